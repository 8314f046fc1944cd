"""How far what was found is from what was submitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from typing import TYPE_CHECKING

from bdbench.schema import Card, Level, Point, Score
from bdbench.store import Store
from bdbench.verify import Check
from bdbench.verify.case import stages, where
from bdbench.verify.twin import WEIGHTS

if TYPE_CHECKING:
    import pandas as pd

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Replay:
    """What was run again and how far it is from the submission."""

    level: Level
    seed: int
    """Of the draw."""
    cards: tuple[Card, ...]
    """Of the cells that were run again."""
    checks: tuple[Check, ...]
    identical: bool
    """Whether all predictions (replayed) or all models (reproduced) are the submitted ones."""
    largest: float
    """Between a submitted rate and the one found."""


def unlike(card: Card, new: Card) -> Iterator[str]:
    """What the card of the same predictions says otherwise."""
    if len(card.trajectory) != len(new.trajectory):
        yield f"{len(new.trajectory)} models, not {len(card.trajectory)}"
        return
    for i, (a, b) in enumerate(zip(card.trajectory, new.trajectory, strict=True)):
        for name in sorted(a.scores):
            if not _same(a.scores[name], b.scores[name]):
                yield (
                    f"model {i}: `{name}` is `{a.scores[name].value:g}`, and found"
                    f" `{b.scores[name].value:g}`"
                )
        if not _same(a.validation, b.validation):
            yield (
                f"model {i}: `validation` is `{a.validation.value:g}`, and found"
                f" `{b.validation.value:g}`"
            )
    if card.poison != new.poison:
        yield "its counts of poisoned pairs, or its examples, are not those of the poison"
    if card.data != new.data:
        yield "its sizes or facts of the data are not those of the data"


def _same(a: Score, b: Score) -> bool:
    """Equal counts, and figures that differ by rounding at most."""
    return (a.k, a.n) == (b.k, b.n) and all(
        isclose(x, y, rel_tol=0, abs_tol=_ROUNDING)
        for x, y in ((a.value, b.value), (a.low, b.low), (a.high, b.high))
    )


def rows(store: Store, place: Store, cards: Iterable[Card]) -> tuple[int, int]:
    """Rows of the predictions that differ between two stores, and all rows."""
    import pandas as pd

    def read(where: Store, key: str) -> pd.DataFrame:
        return pd.read_parquet(where.open("evaluate", key).file("predictions.parquet"))

    turned = of = 0
    for key in {stage.key for card in cards for stage in stages(card, "evaluate")}:
        old, new = read(store, key), read(place, key)
        of += len(old)
        if old.shape != new.shape or list(old.columns) != list(new.columns):
            turned += len(old)
        else:
            turned += int((old.to_numpy() != new.to_numpy()).any(axis=1).sum())
    return turned, of


def same_bytes(card: Card, place: Store, key: str) -> list[bool]:
    """For each model that the defense changed, whether its bytes are the card's."""
    inputs = place.open("card", key).manifest.inputs
    untouched, alike = stages(card, "pretrain")[0].files.get(WEIGHTS), []
    for i, stage in enumerate(stages(card, "defend")):
        new, old = place.open("defend", inputs[f"defend{i}"]).manifest.files, stage.files
        alike += [
            new.get(file) == old.get(file) for file in sorted(new.keys() | old)
            if file.startswith("step-") and not new.get(file) == old.get(file) == untouched
        ]
    return alike


def bytes_check(alike: Sequence[bool]) -> Check:
    """Whether the models are the same ones.

    On other hardware no trained model is; where one is, the arithmetic is equal, and all must be.
    """
    claim = "the defense makes the models with the submitted sha256"
    same = sum(alike)
    if same == len(alike):
        return Check("bytes", claim, "yes", f"{same} models that it changed")
    if same:
        text = f"{len(alike) - same} of {len(alike)} models have other bytes, and the rest the same"
        return Check("bytes", claim, "no", text)
    text = f"none of {len(alike)} models has: other hardware, or another method"
    return Check("bytes", claim, "warning", text)


def distances(a: Point, b: Point) -> dict[str, float]:
    """By name, how far each rate of two models is apart: 0 only where the counts agree."""
    pairs = {name: (a.scores[name], b.scores[name]) for name in a.scores.keys() & b.scores.keys()}
    pairs["validation"] = a.validation, b.validation
    return {
        name: abs(x.k / x.n - y.k / y.n) for name, (x, y) in pairs.items()
        if x.k is not None and y.k is not None
    }


def largest(card: Card, new: Card) -> float:
    """The largest difference of a rate between two trajectories; 1 if they cannot be compared."""
    if len(card.trajectory) != len(new.trajectory):
        return 1.0
    pairs = zip(card.trajectory, new.trajectory, strict=True)
    return max(max(distances(a, b).values()) for a, b in pairs)


def apart(card: Card, new: Card, bound: float) -> Iterator[str]:
    """The models of which a rate differs by more than `bound`."""
    if len(card.trajectory) != len(new.trajectory):
        yield f"{where(card.cell)}: {len(new.trajectory)} models, not {len(card.trajectory)}"
        return
    for i, (a, b) in enumerate(zip(card.trajectory, new.trajectory, strict=True)):
        found = distances(a, b)
        name = max(found, key=lambda name: found[name])
        if found[name] > bound:
            x, y = (point.scores.get(name, point.validation) for point in (a, b))
            yield (
                f"{where(card.cell)}, model {i}: `{name}` is `{x.value:.3f}`, and found"
                f" `{y.value:.3f}`"
            )


def picks_check(pairs: Sequence[tuple[Card, Card]]) -> Check:
    """Whether the rules pick the same models; where figures differ, they need not."""
    other = [
        f"{where(card.cell)}: `{rule}` picks model `{new}`, and submitted is `{old}`"
        for card, found in pairs
        for (rule, old), (_, new) in zip(
            _picks(card), _picks(found), strict=True
        ) if old != new
    ]
    more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
    return Check(
        "selections", "the rules pick the submitted models", "warning" if other else "yes",
        f"{other[0]}{more}" if other else "",
    )


def _picks(card: Card) -> list[tuple[str, int | None]]:
    picked = card.selections
    return [("blind", picked.blind), ("last", picked.last), *sorted(picked.oracle.items())]
