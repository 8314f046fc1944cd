"""A card as a table for the terminal, and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from bdbench.api import EXTRAS, SPLITS
from bdbench.cards import escape
from bdbench.cards.escape import clean as clean
from bdbench.cards.select import frontier, values
from bdbench.schema import Card, Point, Score

if TYPE_CHECKING:
    from jinja2 import Template
    from rich.console import RenderableType
    from rich.text import Text

HEADLINE = ("clean_top1", "asr_top1", "base_rate", "lift", "triggered_top1")
"""The metrics shown for every selected model; the trajectory shows all."""

AFTER = (
    "recall_i2t_5", "recall_t2i_5", "retrieval_asr_5", "retrieval_base_5", "linear_top1",
    "linear_asr", "knn_top1", "knn_asr",
)
"""Of the metrics that not every dataset allows, those that the terminal shows below the table."""

_SHORT = dict(zip(HEADLINE, ("clean", "ASR [95 %]", "base", "lift", "triggered"), strict=True))
TARGET_CAPTIONS = "target captions"
"""How many captions of the retrieval name the target, among the sizes of the data."""
_DIGITS = 23
"""Characters of an address of weights that are shown: 16 digits of its sha256."""


def percent(value: float) -> str:
    """A rate in [0, 1] as a percentage without its sign, one decimal."""
    return f"{100 * value:z.1f}"


def counted(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def figure(score: Score | None, *, interval: bool) -> str:
    """A score in per cent, a difference with its sign, and its 95 % interval in brackets."""
    if score is None:
        return "-"
    sign = "+" if score.k is None else ""
    bounds = f" [{percent(score.low)}, {percent(score.high)}]" if interval else ""
    return f"{100 * score.value:{sign}z.1f}{bounds}"


def setting(sweep: Mapping[str, float]) -> str:
    """The swept parameters of a run, such as `lr 0.003`; empty when nothing is swept."""
    return ", ".join(f"{name} {value:g}" for name, value in sweep.items())


def place(point: Point | None) -> str:
    """Where on the trajectory a model lies, such as `lr 0.003, epoch 6`."""
    if point is None:
        return "none qualifies"
    if point.step == 0:
        return "starting model"
    return ", ".join(filter(None, [setting(point.sweep), f"epoch {point.step}"]))


def rules(card: Card) -> list[tuple[str, int | None]]:
    """The undefended model and every selection: the rule's name and what it picked."""
    bounds = sorted(card.selections.oracle, key=float)
    return [
        ("undefended", 0),
        ("blind", card.selections.blind),
        ("last", card.selections.last),
        *((f"oracle {100 * float(b):g} %", card.selections.oracle[b]) for b in bounds),
    ]


def summary(card: Card) -> RenderableType:
    """What `bdbench run` and `bdbench show` print: verdict and selected models, in per cent."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    cell = card.cell
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("per cent", no_wrap=True)
    table.add_column("")
    for name in HEADLINE:
        table.add_column(_SHORT[name], justify="right", no_wrap=True)
    for rule, position in rules(card):
        point = None if position is None else card.trajectory[position]
        scores = {} if point is None else point.scores
        figures = (figure(scores.get(name), interval=name == "asr_top1") for name in HEADLINE)
        table.add_row(*map(Text, (rule, clean(place(point)), *figures)))
    return Group(
        Text(clean(f"{cell.defense} against {cell.attack} on {cell.objective}"), style="bold"),
        Text(clean(f"recipe {cell.recipe}, seed {cell.seed}{_origin(card)}"), style="dim"),
        Text(clean(f"{card.verdict.status}: {card.verdict.reason}")),
        Text(),
        table,
        *_further(card),
        *_blind_oracle(card),
    )


def _further(card: Card) -> Iterator[Text]:
    """What further metrics say of the start and of the blind selection."""
    from rich.text import Text

    points = {"undefended": card.trajectory[0], "blind": card.trajectory[card.selections.blind]}
    for metric in card.metrics:
        if metric.source is not None or metric.name in AFTER:
            told = ", ".join(
                f"{name} {figure(point.scores.get(metric.name), interval=True)}"
                for name, point in points.items()
            )
            yield Text(clean(f"{metric.name}: {told}"))


def _origin(card: Card) -> str:
    """What the model was made from, if not from random weights here."""
    model = card.recipe.model
    if card.recipe.checkpoint is not None:
        return f", a {model.name} from elsewhere, {card.recipe.checkpoint[:_DIGITS]}"
    return f", from the weights {model.init[:_DIGITS]}" if model.init is not None else ""


def _blind_oracle(card: Card) -> Iterator[Text]:
    """What accuracy needs no shape at all: the floor to read the clean column against."""
    from rich.text import Text

    known = {"shape_blind_oracle": "shape-blind oracle", "chance": "chance"}
    if "shape_blind_oracle" in card.data:
        figures = ", ".join(
            f"{title} {percent(card.data[name])}" for name, title in known.items()
            if name in card.data
        )
        yield Text(f"{figures} (clean accuracy that needs no shape)", style="dim")


def markdown(card: Card) -> str:
    """The page of a card, which explains itself; expects the figure beside it as `card.png`.

    Every string of the card is data: none of them can open a tag, a table cell, a link or a
    code span.
    """
    sizes = {*SPLITS, *EXTRAS, TARGET_CAPTIONS, "classes", *card.trajectory[0].further}
    return _template().render(
        card=card,
        headline=HEADLINE,
        rules=[(name, i, None if i is None else card.trajectory[i]) for name, i in rules(card)],
        rows=list(_trajectory(card)),
        metrics=list(card.trajectory[0].scores),
        further=list(card.trajectory[0].further),
        sizes={name: value for name, value in card.data.items() if name in sizes},
        facts={name: value for name, value in card.data.items() if name not in sizes},
        parameters=list(parameters(card)),
    )


def _trajectory(card: Card) -> Iterator[tuple[Point, str]]:
    """Every model with the rules that picked it; `frontier` where no other model beats it."""
    points = card.trajectory
    best = set(frontier(values(points, "clean_top1"), values(points, "asr_top1")))
    picked = rules(card)
    for i, point in enumerate(points):
        notes = [name for name, position in picked if position == i]
        yield point, "; ".join(notes + ["frontier"] * (i in best))


def parameters(card: Card) -> Iterator[tuple[str, str, str, bool]]:
    """Who, parameter, value as JSON, and whether it was overridden; components, then recipe."""
    for role, ref in card.components.items():
        for name, value in ref.params.items():
            yield f"{role} {ref.name}", name, json.dumps(value), name in ref.overridden
    changed = set(_flat(card.overridden))
    methods = {"summary", "needs", "attacks", "objectives", "defenses", "datasets"}
    settings = card.recipe.model_dump(mode="json", exclude=methods, exclude_none=True)
    for name, value in _flat(settings).items():
        yield f"recipe {card.cell.recipe}", name, json.dumps(value), name in changed


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables by their dotted paths."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves


@cache
def _template() -> Template:
    """The card page."""
    from markupsafe import Markup

    environment = escape.markdown().overlay()
    environment.filters = environment.filters | {
        "percent": percent,
        # Digits and brackets of our own, which no string of the card can turn into a link.
        "figure": lambda score, interval: Markup(figure(score, interval=interval)),
        "place": place,
        "setting": setting,
    }
    return environment.get_template("card.md.j2")
