"""A track as tables of strings, for the terminal and for Markdown alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from bdbench.cards.text import percent
from bdbench.leaderboard.rank import AXES, Axis, Row
from bdbench.leaderboard.standing import Standing, parts
from bdbench.schema import Cleaned, Reported, Statistic
from bdbench.statistics import Mean

TITLES = {"defense": "Defenses", "attack": "Attacks", "objective": "Objectives"}
UNTOLD = "≈"
"""Marks a row that is not distinguishable from the best."""
NOTHING = "No measured rows yet."
LEGEND = (
    "ASR is that of the blind selection, in per cent, the mean over the seeds with Student's 95 %"
    " interval; a defense is ranked by its worst cell. Accuracy loss: points of clean accuracy that"
    " it cost, the mean over all cells. oracle: the loss of the most accurate model with an ASR of"
    " at most 5 %, and in how many of the cells there is one; it reads the trigger. failed: cells"
    " whose undefended attack missed the gate, which are not counted."
    f" {UNTOLD}: not distinguishable from the best over the common cells (paired sign-flip test,"
    " Holm, 5 %). claimed: as submitted; replayed: evaluated again from the hashed checkpoints;"
    " reproduced: the defense was run again."
)


@dataclass(frozen=True)
class Table:
    """Rows of strings; figures of ours are Markup, everything else is to be escaped."""

    title: str
    head: tuple[str, ...]
    right: frozenset[int]
    """Columns of figures."""
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(standing: Standing, *, brief: bool = False) -> Iterator[Table]:
    """The tables of a track: a ranking per axis that has rows, the statistic, reported figures.

    `brief` gives the ranking of the defenses alone.
    """
    for axis in AXES[-1:] if brief else AXES[::-1]:
        rows = standing.rows[axis]
        if rows:
            yield _ranking(standing, axis)
            if axis != "objective":
                yield _parts(standing, axis)
    if not brief:
        declared = standing.board.track.statistic
        if declared and standing.finding:
            yield _statistic(standing, declared)
        for reported in standing.board.reported:
            yield from _reported(reported)


def _ranking(standing: Standing, axis: Axis) -> Table:
    rows: list[tuple[str, ...]] = []
    for row in standing.rows[axis]:
        entry, worst = standing.entry(axis, row.name), row.worst
        rows.append((
            place(row), row.name, entry.level if entry else "built-in",
            interval(worst.asr, rate=True) if worst else Markup("-"),
            " / ".join(worst.where) if worst else Markup("-"), interval(row.loss),
            Markup(f"{row.failed}/{row.cells}"), Markup(row.unranked or ""),
        ))
    worst_of = "worst cell" if axis == "defense" else "best defense"
    head: tuple[str, ...] = (
        "#", axis, "level", "ASR [95 %]", worst_of, "accuracy loss [95 %]", "failed", "not ranked"
    )
    if not any(row.unranked for row in standing.rows[axis]):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return Table(
        title=TITLES[axis], head=head, right=frozenset({0, 3, 5, 6}), rows=tuple(rows),
    )


def _parts(standing: Standing, axis: Axis) -> Table:
    split = standing.board.track.objectives
    rows = []
    for row in standing.rows[axis]:
        by, line = parts(row, axis), [row.name]
        for name in split:
            part = by.get(name)
            if part is None:
                line += [Markup("-")] * 3
                continue
            oracle = "-" if part.oracle_loss is None else percent(part.oracle_loss)
            line += [
                Markup(percent(part.worst.asr.value)), Markup(percent(part.loss)),
                Markup(f"{oracle} ({part.cleaned}/{part.cells})"),
            ]
        rows.append(tuple(line))
    figures = [f"{name}: {figure}" for name in split for figure in ("ASR", "loss", "oracle")]
    return Table(
        title=f"{TITLES[axis]} by objective", head=(axis, *figures),
        right=frozenset(range(1, len(figures) + 1)), rows=tuple(rows),
    )


def place(row: Row) -> Markup:
    """The rank, with a mark where the row cannot be told from the best."""
    if row.rank is None:
        return Markup("-")
    return Markup(f"{row.rank} {UNTOLD}" if row.apart is False else str(row.rank))


def interval(mean: Mean, *, rate: bool = False) -> Markup:
    """A mean in per cent with its interval; that of a rate ends at 0 and 100."""
    if mean.low is None or mean.high is None:
        return Markup(percent(mean.value))
    low, high = (max(mean.low, 0.0), min(mean.high, 1.0)) if rate else (mean.low, mean.high)
    return Markup(f"{percent(mean.value)} [{percent(low)}, {percent(high)}]")


def facts(standing: Standing) -> str:
    """What every entry of the track runs, and what it must reach, in a sentence."""
    track = standing.board.track
    counts = [
        f"{len(track.attacks)} attacks", f"{len(track.objectives)} objectives",
        f"{len(track.defenses)} defenses", f"{len(track.seeds)} seeds",
    ]
    return (
        f"Edition {track.edition}, recipe {track.recipe}: {', '.join(counts)}. A cell counts if its"
        f" undefended attack reaches a lift of {track.gate.lift:g} and a clean accuracy of"
        f" {track.gate.clean_top1:g}. A defense that loses more than {100 * track.accuracy_loss:g}"
        " points of accuracy on average is not ranked."
    )


def declared(statistic: Statistic) -> str:
    """What the declared statistic is, in a sentence."""
    losses = ", ".join(f"{100 * loss:g}" for loss in statistic.losses)
    return (
        f"The ASR that {statistic.defense} removes beyond {statistic.baseline} against"
        f" {statistic.attack} at equal accuracy, in points: the difference of the lowest ASR among"
        f" all models within {losses} points of the start's accuracy, averaged over these losses."
        f" Declared before its runs; {len(statistic.seeds)} seeds of its own."
    )


def _statistic(standing: Standing, statistic: Statistic) -> Table:
    found = standing.finding
    assert found is not None
    first, second = statistic.objectives
    rows = [
        (name, interval(mean), Markup(", ".join(percent(v) for v in found.by_seed[name].values())))
        for name, mean in found.removed.items()
    ]
    rows.append((f"{first} minus {second}", interval(found.difference), Markup("")))
    failed = ", ".join(f"{name} seed {seed}" for name, seed in found.failed)
    return Table(
        title="Declared statistic", head=("objective", "ASR removed [95 %]", "by seed"),
        right=frozenset({1}), rows=tuple(rows), note=f"The attack failed on {failed}." if failed
        else "",
    )


def _reported(reported: Reported) -> Iterator[Table]:
    """A table for each setting of a source."""
    bounds = sorted({bound for row in reported.rows for bound in row.best}, key=float)
    for setting in dict.fromkeys(row.setting for row in reported.rows):
        yield Table(
            title=f"Reported elsewhere: {setting}",
            head=("attack", "objective", "defense", "models", "start",
                  *(f"ASR ≤ {100 * float(bound):g} %" for bound in bounds)),
            right=frozenset(range(3, 5 + len(bounds))),
            rows=tuple(
                (row.attack, row.objective, row.defense, Markup(f"{row.points:,}"),
                 _pair(row.start), *(_pair(row.best.get(bound)) for bound in bounds))
                for row in reported.rows if row.setting == setting
            ),
            note="Clean accuracy / ASR in per cent, not ranked with measured rows."
            f" {reported.source}. {reported.note}",
        )


def _pair(found: Cleaned | None) -> Markup:
    if found is None:
        return Markup("none")
    return Markup(f"{100 * found.clean_top1:.2f} / {100 * found.asr_top1:.2f}")
