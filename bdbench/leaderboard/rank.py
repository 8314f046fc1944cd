"""Cards to ranked rows: worst cell first, with what cannot be told apart marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from bdbench.cards.select import PAPER_BOUND, verdict
from bdbench.schema import Card, Cell, Track
from bdbench.statistics import Mean, holm, mean, t_test

Axis = Literal["attack", "objective", "defense"]
AXES: tuple[Axis, ...] = ("attack", "objective", "defense")
NONE = "none"
"""The attack that poisons nothing, and the defense that does nothing."""
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
    settled: bool
    """Whether the board's own undefended card says so, or the cell is a control by its name."""
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
    """Loss of clean accuracy on the objective where it is largest: what the gate looks at."""
    losses: dict[str, float]
    """Mean loss of clean accuracy by objective, controls included."""
    cells: int
    expected: int
    """Cells that the track asks for."""
    failed: int
    """Cells whose undefended attack missed the gate: shown, not counted."""
    unranked: str | None
    """Why it has no rank."""
    rank: int | None = None
    apart: bool | None = None
    """Whether it differs from the best row, in the direction of the rank; None for the best."""


References = Mapping[tuple[str, str, int], Card]
"""Undefended cards by attack, objective and seed."""


def references(cards: Iterable[Card]) -> References:
    """The undefended cards among `cards`, the first of each cell."""
    found: dict[tuple[str, str, int], Card] = {}
    for card in cards:
        if card.cell.defense == NONE:
            found.setdefault(_place(card.cell), card)
    return found


def _place(cell: Cell) -> tuple[str, str, int]:
    return cell.attack, cell.objective, cell.seed


def measure(card: Card, track: Track, undefended: References) -> Measured:
    """The figures of a card under the gate of a track.

    Whether the attack worked is read off the board's undefended card: a submission must not decide
    which of its cells count. Where the board has none, the card's own start says.
    """
    start, reference = card.trajectory[0], undefended.get(_place(card.cell))
    told = reference or card
    status = verdict(told.trajectory[0], told.poison, track.gate).status
    blind = card.trajectory[card.selections.blind]
    accuracy = start.scores["clean_top1"].value
    cleaned = card.selections.oracle.get(f"{PAPER_BOUND:g}")
    return Measured(
        cell=card.cell, counts=status == "ok", control=status == "control",
        settled=reference is not None or card.cell.attack == NONE,
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
    lose at most the track's `accuracy_loss` on every objective. Attacks and objectives are ranked
    by what survives the best defense: attacks by the lowest ASR that is left of them, highest
    first; objectives by the attack of which the best defense leaves most, lowest first. A row that
    lacks cells is not ranked, nor an attack that failed in most cells of an objective. Only cells
    of the track count, with the names `also` on the ranked axis besides the track's own; the
    control is no row among the attacks.
    """
    allowed: dict[Axis, set[str]] = {
        "attack": set(track.attacks), "objective": set(track.objectives),
        "defense": set(track.defenses),
    }
    allowed[axis] |= set(also)
    cards = list(cards)
    undefended = references(cards)
    found: dict[str, dict[Cell, Measured]] = {}
    for card in cards:
        cell = card.cell
        if cell.recipe == track.recipe and cell.seed in track.seeds and all(
            getattr(cell, name) in allowed[name] for name in AXES
        ):
            cells = found.setdefault(getattr(cell, axis), {})
            if cell not in cells:
                cells[cell] = measure(card, track, undefended)
    if axis == "attack":
        found.pop(NONE, None)
    rows = [_row(name, list(cells.values()), axis, track) for name, cells in found.items()]
    sign = -1 if axis == "attack" else 1

    def order(row: Row) -> tuple[bool, float, float, str]:
        asr = sign * (row.worst.asr.value if row.worst else 0)
        return row.unranked is not None, asr, row.loss.value, row.name

    rows.sort(key=order)
    ranked = [row for row in rows if row.unranked is None]
    apart = _apart([list(found[row.name].values()) for row in ranked], axis, sign)
    return [
        replace(row, rank=place, apart=told)
        for place, (row, told) in enumerate(zip(ranked, apart, strict=True), 1)
    ] + rows[len(ranked):]


def _row(name: str, cells: Sequence[Measured], axis: Axis, track: Track) -> Row:
    groups, expected = _groups(cells, axis), len(track.cells(axis, name))
    losses = {
        objective: mean(seed_means(
            (item.cell.seed, item.loss) for item in cells if item.cell.objective == objective
        ))
        for objective in sorted({item.cell.objective for item in cells})
    }
    loss = max(losses.values(), key=lambda found: found.value)
    unsettled = sum(not (item.counts or item.settled) for item in cells)
    unranked = None
    if len(cells) < expected:
        unranked = f"{len(cells)} of {expected} cells"
    elif unsettled:
        unranked = f"attack failed in {unsettled} cells, and no undefended card confirms it"
    elif not groups:
        unranked = "no attack worked"
    elif axis == "attack" and (weak := _failed_on(cells)):
        unranked = f"failed in most cells on {', '.join(weak)}"
    elif axis == "defense" and loss.value > track.accuracy_loss + _ROUNDING:
        unranked = f"loses more than {100 * track.accuracy_loss:g} points of accuracy"
    return Row(
        name=name, groups=groups, worst=_worst(groups, axis), loss=loss,
        losses={objective: found.value for objective, found in losses.items()}, cells=len(cells),
        expected=expected, failed=sum(not (item.counts or item.control) for item in cells),
        unranked=unranked,
    )


def _failed_on(cells: Sequence[Measured]) -> list[str]:
    """The objectives on most of whose models an attack did not work: its weak spots count too."""
    worked: dict[str, list[bool]] = {}
    for item in cells:
        worked.setdefault(item.cell.objective, []).append(item.counts)
    return [name for name, found in sorted(worked.items()) if 2 * sum(found) < len(found)]


def seed_means(values: Iterable[tuple[int, float]]) -> list[float]:
    """The mean of each seed: cells of one seed share data and start, so that a seed is one draw."""
    by: dict[int, list[float]] = {}
    for seed, value in values:
        by.setdefault(seed, []).append(value)
    return [fmean(found) for found in by.values()]


def _groups(cells: Iterable[Measured], axis: Axis) -> tuple[Group, ...]:
    """The cells that count, by their place on the other two axes."""
    others = [other for other in AXES if other != axis]
    by: dict[tuple[str, str], list[Measured]] = {}
    for item in cells:
        if item.counts:
            where = getattr(item.cell, others[0]), getattr(item.cell, others[1])
            by.setdefault(where, []).append(item)
    return tuple(_group(where, items) for where, items in sorted(by.items()))


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


def _apart(rows: Sequence[Sequence[Measured]], axis: Axis, sign: int) -> list[bool | None]:
    """Whether each row differs from the first; the `sign` of the difference is that of the rank.

    The rank's own rule is applied within each seed, and the figures are paired by seed: Student's
    test with Holm's correction for the number of rows. Cells of one seed are not independent, so
    that the seeds are what is counted.
    """
    if not rows:
        return []
    best, *others = [_by_seed(cells, axis) for cells in rows]
    differences = [
        [sign * (mine[seed] - best[seed]) for seed in best if seed in mine] for mine in others
    ]
    p = holm([t_test(found) for found in differences])
    return [None, *(
        one < ALPHA and sum(found) > 0 for one, found in zip(p, differences, strict=True)
    )]


def _by_seed(cells: Iterable[Measured], axis: Axis) -> dict[int, float]:
    """The figure that ranks a row, as each seed alone gives it."""
    by: dict[int, list[Measured]] = {}
    for item in cells:
        by.setdefault(item.cell.seed, []).append(item)
    worst = {seed: _worst(_groups(items, axis), axis) for seed, items in by.items()}
    return {seed: group.asr.value for seed, group in worst.items() if group}
