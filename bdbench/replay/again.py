"""What can be run again from here, and a store for a moment to run it in."""

from __future__ import annotations

import random
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bdbench.errors import BdbenchError
from bdbench.hashing import KEY_DIGITS
from bdbench.plan import Plan
from bdbench.registry import Registry
from bdbench.schema import Card
from bdbench.store import Store, disk_errors
from bdbench.verify.case import Case, product, runs_of, where

Runner = Callable[[Plan, Store, Sequence[Path]], object]
_KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")


def choose(
    case: Case, cells: Sequence[Card], n: int, seed: int, store: Store, plugins: Sequence[Path],
    needed: Sequence[str],
) -> list[Card]:
    """n of the cells, whatever the store holds: what is drawn is no choice of whoever filled it.

    BdbenchError unless the stages `needed` of all that are drawn are here with the cards' bytes.
    """
    chosen = random.Random(seed).sample(cells, min(n, len(cells)))
    with disk_errors(store.root):
        lacking = [(card, why) for card in chosen if (why := _absent(card, store, needed))]
    if lacking:
        card, why = lacking[0]
        raise BdbenchError(
            f"`{len(lacking)}` of the `{len(chosen)}` cells drawn with seed `{seed}` cannot be run"
            f" again from here: {where(card.cell)}: {why}",
            f"{run_command(case, plugins)} makes what is missing; what has other bytes comes with"
            " the authors' store, in BDBENCH_HOME",
        )
    return chosen


def run_command(case: Case, plugins: Sequence[Path]) -> str:
    """The command that makes what is missing."""
    sub, first = case.submission, case.cards[0]
    words = ["bdbench", "run", "--track", sub.track, f"--{sub.kind}", sub.name]
    if case.evidence:
        words += ["--attack", first.cell.attack]
        for objective in dict.fromkeys(card.cell.objective for card in case.cards):
            words += ["--objective", objective]
        for seed in dict.fromkeys(card.cell.seed for card in case.cards):
            words += ["--seed", str(seed)]
    return shlex.join([*words, *(word for path in plugins for word in ("--plugin", str(path)))])


@contextmanager
def again(
    case: Case, chosen: Iterable[Card], store: Store, fresh: Sequence[str],
    plugins: Sequence[Path], run: Runner,
) -> Iterator[tuple[Store, list[str]]]:
    """A store for a moment, with links to all but the stages `fresh`, which it computes.

    Yields it with the keys of the new cards.
    """
    todo, keys = Plan(), []
    for card in chosen:
        part, key = case.rebuild(card)
        todo.nodes |= part.nodes
        todo.stages |= part.stages
        keys.append(key)
    with tempfile.TemporaryDirectory(prefix="bdbench-") as folder:
        place = Store(Path(folder))
        place.prepare()
        for key, node in todo.nodes.items():
            if node.stage not in fresh:
                link = place.root / "objects" / node.stage / key
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(store.open(node.stage, key).path)
        run(todo, place, plugins)
        yield place, keys


def same_method(case: Case, plugins: Sequence[Path]) -> None:
    """BdbenchError unless the files are those that the cards were made with."""
    kind, name = case.submission.kind, case.submission.name
    card = case.cards[0]
    ref = card.components[kind]
    if ref.source is not None and not plugins:
        raise BdbenchError(
            f"the {kind} `{name}` comes from a file `{ref.use.partition(':')[0]}`, which is no part"
            " of a submission", "add `--plugin FILE`; the file is executed",
        )
    registry = Registry(plugins)
    entry = registry.entry(kind, name)
    if (entry.source, entry.use) != (ref.source, ref.use):
        raise BdbenchError(
            f"the cards were made with `{ref.use}`, sha256 `{ref.source}`, and this is"
            f" `{entry.use}`, sha256 `{entry.source}`", "ask the authors for the very file",
        )
    own, sweep = registry.resolve(kind, name, getattr(case.recipe, f"{kind}s").get(name))
    if own != ref or (kind == "defense" and runs_of(card) != product(sweep)):
        raise BdbenchError(
            f"the cards were made with other parameters, or another sweep, than `{ref.use}` has",
            f"{run_command(case, plugins)} runs it as it is",
        )


def _absent(card: Card, store: Store, needed: Sequence[str]) -> str | None:
    """Why a card's artifacts cannot be used from here; None if they can."""
    for stage in card.provenance.stages:
        if stage.stage not in needed:
            continue
        # A hostile key would be a path.
        if not _KEY.fullmatch(stage.key):
            return f"`{stage.stage}/{stage.key}` is no artifact"
        artifact = store.find(stage.stage, stage.key)
        if artifact is None:
            return f"`{stage.stage}/{stage.key}` is not in the store `{store.root}`"
        found = artifact.manifest.files
        odd = [name for name in found.keys() | stage.files
               if found.get(name) != stage.files.get(name)]
        if odd:
            return f"`{stage.stage}/{stage.key}/{min(odd)}` is another file than the card's"
    return None
