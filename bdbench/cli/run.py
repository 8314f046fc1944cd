"""`bdbench run`: every combination of the attacks, objectives, defenses and seeds asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bdbench.cli import results
from bdbench.cli.overrides import parse
from bdbench.cli.planned import print_plan
from bdbench.cli.progress import RunProgress
from bdbench.errors import BdbenchError
from bdbench.execute import PLACES, execute
from bdbench.plan import cells, plan
from bdbench.registry import ALL, Registry, near
from bdbench.resolve import UNKNOWN, with_checkpoint
from bdbench.schema import Card, Cell
from bdbench.store import Store

_SEVERAL = "Repeat for several; `all` for all."
DEFAULTS = {"attack": "badnet", "objective": "mmcl_ssl", "defense": "cleanclip"}
RECIPE = "tiny"
MAX_SEED = 2**31 - 1


def run(
    attack: Annotated[list[str] | None, typer.Option(
        help=f"{_SEVERAL} Default: {DEFAULTS['attack']}.")] = None,
    objective: Annotated[list[str] | None, typer.Option(
        help=f"{_SEVERAL} Default: {DEFAULTS['objective']}.")] = None,
    defense: Annotated[list[str] | None, typer.Option(
        help=f"{_SEVERAL} Default: {DEFAULTS['defense']}.")] = None,
    recipe: Annotated[str | None, typer.Option(
        help=f"The setting: data, model, budgets. Default: {RECIPE}.")] = None,
    seed: Annotated[list[int] | None, typer.Option(
        help=f"Repeat for several; 0 to {MAX_SEED}. Default: 0.")] = None,
    track: Annotated[str | None, typer.Option(
        help="Take recipe, and what is not given of the rest, from a leaderboard's track.")] = None,
    checkpoint: Annotated[str | None, typer.Option(metavar="FILE", help=(
        "Defend the model in this file instead of training one; `--set recipe.model=RN50` says what"
        " it is, and `--objective` what it was trained with. Of OpenAI and CleanCLIP:"
        " `RN50-quickgelu`."))] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a parameter, as in `defense.lr=1e-3`."),
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Also load a plugin file.")] = None,
    on: Annotated[str, typer.Option(metavar="PLACE", help=(
        f"Where: {', '.join(PLACES)}. A cluster must share the store and this environment."
        ))] = PLACES[0],
    keep_going: Annotated[bool, typer.Option(
        "--keep-going", help="Where a stage fails, go on with all that does not rest on it.")
    ] = False,
    strict: Annotated[bool, typer.Option(
        "--strict", help="Refuse a dataset with samples that cannot be used.")] = False,
    only_plan: Annotated[bool, typer.Option("--plan", help="Show the stages; run none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """Run cells: poison, pre-train, defend, evaluate, and write a result card for each."""
    plugins = plugin or []
    for number in seed or []:
        if not 0 <= number <= MAX_SEED:
            raise BdbenchError(
                f"the seed `{number}` is not between 0 and {MAX_SEED}", "`bdbench run --seed 0`"
            )
    if on not in PLACES:
        raise BdbenchError(f"`{on}` is no place to run", near(on, PLACES))
    registry = Registry(plugins)
    given = {"attack": attack, "objective": objective, "defense": defense}
    if checkpoint is not None:
        given["objective"] = objective = objective or [UNKNOWN]
        if "all" in objective or len(set(objective)) > 1:
            raise BdbenchError(
                f"the model `{checkpoint}` was trained with one objective, and several are named",
                f"`--objective mmcl`, or leave it out: it is then `{UNKNOWN}`",
            )
    wanted = _cells(registry, track, recipe, given, seed)
    todo = plan(registry, wanted, with_checkpoint(parse(set_ or []), checkpoint))
    for note in todo.notes:
        typer.echo(f"note: {note}", err=True)
    store = Store()
    if only_plan:
        print_plan(todo, store, as_json)
        return
    talk = Console(stderr=True, highlight=False)
    with RunProgress(talk, todo) as progress:
        failures = execute(todo, store, plugins, progress, strict, keep_going, on)
    cards = results.read(todo, store, failures)
    if as_json:
        results.print_json(todo, store, cards)
    elif cards:
        last = next(reversed(cards))
        words = (
            _compare(track, given) if track else _next(last, cards[last], set_ or [], checkpoint)
        )
        words += [word for path in plugins for word in ("--plugin", str(path))]
        results.print_cards(todo, store, cards, words)
    results.refuse(todo, cards, failures)


def _cells(
    registry: Registry, track: str | None, recipe: str | None,
    given: Mapping[str, Sequence[str] | None], seeds: Sequence[int] | None,
) -> list[Cell]:
    """The combinations asked for; a track fills in what is not given."""
    if track is None:
        names = {kind: given[kind] or [name] for kind, name in DEFAULTS.items()}
        recipe, seeds = recipe or RECIPE, seeds or [0]
    else:
        from bdbench.leaderboard.folder import load_track

        found = load_track(track)
        if recipe not in (None, found.recipe):
            raise BdbenchError(
                f"the track `{track}` runs the recipe `{found.recipe}`, not `{recipe}`",
                f"leave `--recipe {recipe}` out, or `--track {track}`",
            )
        names = {kind: given[kind] or getattr(found, f"{kind}s") for kind in DEFAULTS}
        recipe, seeds = found.recipe, seeds or found.seeds
    return cells(
        registry, recipe=recipe, attacks=names["attack"], objectives=names["objective"],
        defenses=names["defense"], seeds=seeds,
    )


def _compare(track: str, given: Mapping[str, Sequence[str] | None]) -> list[str]:
    """The table that a method of one's own goes into, or the whole board."""
    for kind, names in given.items():
        if names is not None and len(names) == 1 and ALL not in names:
            return ["bdbench", "compare", f"{kind}/{names[0]}", "--track", track]
    return ["bdbench", "leaderboard", "show", "--track", track]


def _next(
    cell: Cell, card: Card, settings: Sequence[str], checkpoint: str | None
) -> list[str]:
    """The comparison that says most after this cell."""
    objective, defense = cell.objective, cell.defense
    if card.verdict.status == "attack_failed":
        return ["bdbench", "show", f"attack/{cell.attack}"]
    if card.recipe.checkpoint is not None:
        defense = "finetune" if defense == "cleanclip" else "cleanclip"
    elif objective != "mmcl":
        objective = "mmcl"
    elif defense != "finetune":
        defense = "finetune"
    else:
        objective, defense = "mmcl_ssl", "cleanclip"
    words = ["bdbench", "run", "--attack", cell.attack]
    words += [] if objective == UNKNOWN else ["--objective", objective]
    words += ["--defense", defense]
    words += [] if checkpoint is None else ["--checkpoint", checkpoint]
    words += [] if cell.recipe == RECIPE else ["--recipe", cell.recipe]
    words += ["--seed", str(cell.seed)] if cell.seed else []
    for setting in settings:
        # What is set on the objective or the defense need not be a field of the next one.
        if setting.split(".")[0].strip() in ("attack", "dataset", "recipe"):
            words += ["--set", setting]
    return words
