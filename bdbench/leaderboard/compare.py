"""One method against another, paired by seed, and by image where predictions are here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bdbench.leaderboard.rank import (
    ALPHA,
    AXES,
    Axis,
    Measured,
    References,
    measure,
    seed_means,
)
from bdbench.schema import Card, Cell, Point, Track
from bdbench.statistics import Mean, holm, mcnemar, mean, t_test
from bdbench.store import Artifact, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Difference:
    """A method minus another in one combination of the other two axes; rates, over the seeds."""

    where: tuple[str, str]
    asr: Mean
    loss: Mean
    p: float
    """Student's paired test of the ASR over the seeds, corrected for the number of rows (Holm)."""
    images: float | None
    """McNemar's test on the same triggered images, likewise corrected; None without predictions."""

    @property
    def apart(self) -> bool:
        """Whether the two can be told apart."""
        return self.p < ALPHA


@dataclass(frozen=True)
class Comparison:
    """A method against another on the cells that count for both."""

    other: str
    rows: tuple[Difference, ...]
    asr: Mean
    """The method minus the other: the mean over the common cells of a seed, over the seeds."""
    loss: Mean
    p: float
    """Student's paired test of the same; one test, hence not corrected."""

    @property
    def apart(self) -> bool:
        """Whether the two can be told apart over all cells."""
        return self.p < ALPHA


def compare(
    mine: Iterable[Card], theirs: Iterable[Card], track: Track, axis: Axis,
    undefended: References, store: Store,
) -> Comparison | None:
    """The first method minus the second; None when no cell counts for both.

    ASR and accuracy are those of the blind selection. The two must have met the same poisoned
    model for the images to be paired: where their checkpoints differ, `images` is None. The
    board's undefended cards say which cells count.
    """
    first, second = _by_place(mine, axis), _by_place(theirs, axis)
    pairs = [
        (a, b, measure(a, track, undefended), measure(b, track, undefended))
        for place, a in first.items() if (b := second.get(place)) is not None
    ]
    pairs = [pair for pair in pairs if pair[2].counts and pair[3].counts]
    if not pairs:
        return None
    others = [name for name in AXES if name != axis]
    groups: dict[tuple[str, str], list[tuple[Card, Card, Measured, Measured]]] = {}
    for pair in pairs:
        cell = pair[2].cell
        groups.setdefault((getattr(cell, others[0]), getattr(cell, others[1])), []).append(pair)
    rows = [_difference(where, group, store) for where, group in sorted(groups.items())]
    by_seed = holm([row.p for row in rows])
    tested = [row.images for row in rows if row.images is not None]
    by_image = iter(holm(tested))
    rows = [
        replace(row, p=p, images=None if row.images is None else next(by_image))
        for row, p in zip(rows, by_seed, strict=True)
    ]
    differences = seed_means((a.cell.seed, a.asr - b.asr) for _, _, a, b in pairs)
    return Comparison(
        other=getattr(pairs[0][3].cell, axis), rows=tuple(rows), asr=mean(differences),
        loss=mean(seed_means((a.cell.seed, a.loss - b.loss) for _, _, a, b in pairs)),
        p=t_test(differences),
    )


def _by_place(cards: Iterable[Card], axis: Axis) -> dict[Cell, Card]:
    return {card.cell.model_copy(update={axis: ""}): card for card in cards}


def _difference(
    where: tuple[str, str], group: Sequence[tuple[Card, Card, Measured, Measured]], store: Store
) -> Difference:
    import numpy as np

    asr = [a.asr - b.asr for _, _, a, b in group]
    hits = [(blind_hits(a, store), blind_hits(b, store)) for a, b, _, _ in group if _twins(a, b)]
    both = [(x, y) for x, y in hits if x is not None and y is not None]
    images = mcnemar(
        np.concatenate([x for x, _ in both]), np.concatenate([y for _, y in both])
    ) if len(both) == len(group) else None
    return Difference(
        where=where, asr=mean(asr), loss=mean([a.loss - b.loss for _, _, a, b in group]),
        p=t_test(asr), images=images,
    )


def _twins(a: Card, b: Card) -> bool:
    """Whether both started from the same poisoned weights."""
    def weights(card: Card) -> list[dict[str, str]]:
        return [stage.files for stage in card.provenance.stages if stage.stage == "pretrain"]

    return weights(a) == weights(b)


def evaluation_of(card: Card, point: Point) -> str:
    """The key of the predictions of a point; the start's come first, then one run after another."""
    keys = [stage.key for stage in card.provenance.stages if stage.stage == "evaluate"]
    return keys[0 if point.step == 0 else 1 + point.order]


def blind_hits(card: Card, store: Store) -> NDArray[np.bool_] | None:
    """Which triggered test images of other classes the blind selection calls the target, [n].

    None where the store lacks the predictions.
    """
    import numpy as np
    import pandas as pd

    point = card.trajectory[card.selections.blind]
    found = store.find("evaluate", evaluation_of(card, point))
    poison = _poison(card, store)
    if found is None or poison is None:
        return None
    target = json.loads(poison.file("poison.json").read_bytes())["label"]
    frame = pd.read_parquet(
        found.file("predictions.parquet"),
        columns=["step", "set", "row", "label", "triggered1"],
    )
    frame = frame[(frame["set"] == "test") & (frame["step"] == point.step)].sort_values("row")
    frame = frame[frame["label"] != target]
    return np.asarray(frame["triggered1"] == target)


def _poison(card: Card, store: Store) -> Artifact | None:
    key = next(stage.key for stage in card.provenance.stages if stage.stage == "poison")
    return store.find("poison", key)
