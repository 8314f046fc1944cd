"""Cards to ranked rows: worst cell first, with what cannot be told apart marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bdbench.cards.select import PAPER_BOUND, verdict
from bdbench.schema import Card, Cell, Track
from bdbench.statistics import Mean, holm, mean, sign_flip

Axis = Literal["attack", "objective", "defense"]
AXES: tuple[Axis, ...] = ("attack", "objective", "defense")
ALPHA = 0.05
"""Level below which two entries count as different."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Measured:
    """What the ranking reads off one card, all rates in [0, 1]."""

    cell: Cell
    counts: bool
    """Whether the undefended attack reached the track's gate."""
    control: bool
    """Whether nothing was poisoned."""
    start: float
    """ASR of the undefended model."""
    asr: float
    """ASR of the blind selection."""
    loss: float
    """Clean accuracy that the blind selection lost."""
    oracle_loss: float | None
    """The same of the oracle selection at 5 % ASR; None where no model is within."""


@dataclass(frozen=True)
class Group:
    """The seeds of one combination of the other two axes."""

    where: tuple[str, str]
    """Of the axes other than the ranked one, in the order attack, objective, defense."""
    start: Mean
    asr: Mean
    loss: Mean
    oracle_loss: Mean | None
    """Over the seeds that the oracle rule cleaned."""
    cleaned: int
    """Seeds that the oracle rule cleaned."""


@dataclass(frozen=True)
class Row:
    """One method on a board."""

    name: str
    groups: tuple[Group, ...]
    worst: Group | None
    """The group that the rank rests on; None where no attack worked. Of an objective: of the attack
    of which the best defense leaves most."""
    loss: Mean
    """Loss of clean accuracy over all cells, controls included."""
    cells: int
    expected: int
    """Cells that the track asks for."""
    failed: int
    """Cells whose undefended attack missed the gate: shown, not counted."""
    unranked: str | None
    """Why it has no rank."""
    rank: int | None = None
    apart: bool | None = None
    """Whether it differs from the best row over their common cells; None for the best itself."""


def measure(card: Card, track: Track) -> Measured:
    """The figures of a card under the gate of a track."""
    start = card.trajectory[0]
    status = verdict(start, card.poison, track.gate).status
    blind = card.trajectory[card.selections.blind]
    accuracy = start.scores["clean_top1"].value
    cleaned = card.selections.oracle.get(f"{PAPER_BOUND:g}")
    return Measured(
        cell=card.cell, counts=status == "ok", control=status == "control",
        start=start.scores["asr_top1"].value, asr=blind.scores["asr_top1"].value,
        loss=accuracy - blind.scores["clean_top1"].value,
        oracle_loss=None if cleaned is None
        else accuracy - card.trajectory[cleaned].scores["clean_top1"].value,
    )


def rank(
    cards: Iterable[Card], track: Track, axis: Axis = "defense", also: Sequence[str] = ()
) -> list[Row]:
    """The rows of a board, best first, the unranked last.

    Defenses are ranked by their worst group, the highest ASR that survives, lowest first, if they
    lose at most the track's `accuracy_loss`. Attacks and objectives are ranked by what survives the
    best defense: attacks by the lowest ASR that is left of them, highest first; objectives by the
    attack of which the best defense leaves most, lowest first. A row that lacks cells is not
    ranked. Only cells of the track count, with the names `also` on the ranked axis besides the
    track's own.
    """
    allowed: dict[Axis, set[str]] = {
        "attack": set(track.attacks), "objective": set(track.objectives),
        "defense": set(track.defenses),
    }
    allowed[axis] |= set(also)
    found: dict[str, dict[Cell, Measured]] = {}
    for card in cards:
        cell = card.cell
        if cell.recipe == track.recipe and cell.seed in track.seeds and all(
            getattr(cell, name) in allowed[name] for name in AXES
        ):
            cells = found.setdefault(getattr(cell, axis), {})
            if cell not in cells:
                cells[cell] = measure(card, track)
    rows = [_row(name, list(cells.values()), axis, track) for name, cells in found.items()]
    sign = -1 if axis == "attack" else 1

    def order(row: Row) -> tuple[bool, float, float, str]:
        asr = sign * (row.worst.asr.value if row.worst else 0)
        return row.unranked is not None, asr, row.loss.value, row.name

    rows.sort(key=order)
    ranked = [row for row in rows if row.unranked is None]
    apart = _apart(ranked, found, axis)
    return [
        replace(row, rank=place, apart=apart[row.name]) for place, row in enumerate(ranked, 1)
    ] + rows[len(ranked):]


def _row(name: str, cells: Sequence[Measured], axis: Axis, track: Track) -> Row:
    others = [other for other in AXES if other != axis]
    by: dict[tuple[str, str], list[Measured]] = {}
    for item in cells:
        if item.counts:
            where = getattr(item.cell, others[0]), getattr(item.cell, others[1])
            by.setdefault(where, []).append(item)
    groups = tuple(_group(where, items) for where, items in sorted(by.items()))
    loss, expected = mean([item.loss for item in cells]), len(track.cells(axis, name))
    unranked = None
    if len(cells) < expected:
        unranked = f"{len(cells)} of {expected} cells"
    elif not groups:
        unranked = "no attack worked"
    elif axis == "defense" and loss.value > track.accuracy_loss + _ROUNDING:
        unranked = f"loses more than {100 * track.accuracy_loss:g} points of accuracy"
    return Row(
        name=name, groups=groups, worst=_worst(groups, axis), loss=loss, cells=len(cells),
        expected=expected, failed=sum(not (item.counts or item.control) for item in cells),
        unranked=unranked,
    )


def _worst(groups: Sequence[Group], axis: Axis) -> Group | None:
    """The group that speaks for a row; of equal ones the first by name."""
    def asr(group: Group) -> float:
        return group.asr.value

    if axis == "attack":
        return min(groups, key=asr, default=None)
    if axis == "objective":
        best: dict[str, Group] = {}
        for group in groups:
            attack = group.where[0]
            best[attack] = min(best.get(attack, group), group, key=asr)
        groups = list(best.values())
    return max(groups, key=asr, default=None)


def _group(where: tuple[str, str], items: Sequence[Measured]) -> Group:
    cleaned = [item.oracle_loss for item in items if item.oracle_loss is not None]
    return Group(
        where=where, start=mean([item.start for item in items]),
        asr=mean([item.asr for item in items]), loss=mean([item.loss for item in items]),
        oracle_loss=mean(cleaned) if cleaned else None, cleaned=len(cleaned),
    )


def _apart(
    rows: Sequence[Row], found: Mapping[str, Mapping[Cell, Measured]], axis: Axis
) -> dict[str, bool | None]:
    """Whether each row's ASR differs from the first row's, paired by cell, corrected by Holm.

    Over all cells that count for both, also where the rank rests on a single group.
    """
    import numpy as np

    apart: dict[str, bool | None] = {row.name: None for row in rows}
    if not rows:
        return apart

    def by_place(name: str) -> dict[Cell, float]:
        return {
            item.cell.model_copy(update={axis: ""}): item.asr
            for item in found[name].values() if item.counts
        }

    best = by_place(rows[0].name)
    columns: dict[tuple[Cell, ...], dict[str, list[float]]] = {}
    for row in rows[1:]:
        mine = by_place(row.name)
        common = tuple(cell for cell in best if cell in mine)
        columns.setdefault(common, {})[row.name] = [mine[cell] - best[cell] for cell in common]
    p: dict[str, float] = {}
    for common, differences in columns.items():
        if common:
            values = sign_flip(np.array(list(differences.values())).T)
            p |= dict(zip(differences, values.tolist(), strict=True))
    for name, adjusted in zip(p, holm(list(p.values())), strict=True):
        apart[name] = adjusted < ALPHA
    return apart
