"""A track as tables of strings, for the terminal and for Markdown alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from markupsafe import Markup

from bdbench.cards.fit import UNTOLD, Table
from bdbench.cards.text import counted, percent
from bdbench.leaderboard.folder import runs_here
from bdbench.leaderboard.rank import AXES, NONE, Axis, Group, Row
from bdbench.leaderboard.standing import Standing, parts
from bdbench.schema import Cleaned, Reported, Statistic
from bdbench.statistics import Mean

TITLES = {"defense": "Defenses", "attack": "Attacks", "objective": "Objectives"}
NOTHING = "No measured rows yet."
LEGEND = (
    ("ASR", "of the blind selection, in per cent: the mean over the seeds with Student's 95 %"
     " interval. (2/3): the attack worked in two of three seeds, and only these count."),
    ("accuracy loss", "points of clean accuracy that were lost, the mean over all cells of the"
     " objective where most was; the intervals are over the seeds."),
    ("oracle", "the loss of the most accurate model with an ASR of at most 5 %, and in how many of"
     " the cells there is one; it reads the trigger."),
    ("failed", "cells whose undefended attack missed the gate. The board's undefended cards say"
     " so, not the entry; such cells are not counted."),
    (UNTOLD, "not distinguishable from the first row: the ASR that the rank rests on, taken within"
     " each seed, in Student's paired test over the seeds at 5 %, corrected by Holm for the rows"
     " of the table; or different, but not in the direction of the rank. Few seeds tell only large,"
     " steady differences apart."),
    ("level", "built-in: run by other entries; claimed: as submitted; replayed: evaluated again"
     " from the hashed checkpoints; reproduced: the defense was run again."),
)
"""What the columns of a ranking say, as terms and texts."""
_RULE: dict[Axis, str] = {
    "defense": "Ranked by the ASR that survives on the worst attack and objective, lowest first.",
    "attack": "Ranked by the ASR that the best defense leaves on the objective where it leaves"
    " least, highest first; one that failed in most cells of an objective is not ranked.",
    "objective": "Ranked by the ASR that the best defense leaves of the worst attack, lowest"
    " first.",
}


def tables(standing: Standing, *, brief: bool = False) -> Iterator[Table]:
    """The tables of a track: a ranking per axis that has rows, the statistic, reported figures.

    `brief` gives the ranking of the defenses and what survives them alone.
    """
    if standing.rows["defense"]:
        yield _ranking(standing, "defense")
        yield _surviving(standing)
        if not brief:
            yield _parts(standing, "defense")
    if brief:
        return
    declared = standing.board.track.statistic
    if declared and standing.finding:
        yield _statistic(standing, declared)
    for axis in AXES[1::-1]:
        if standing.rows[axis]:
            yield _ranking(standing, axis)
            if axis == "attack":
                yield _parts(standing, axis)
    for reported in standing.board.reported:
        yield from _reported(reported)


def _ranking(standing: Standing, axis: Axis) -> Table:
    found, seeds = standing.rows[axis], len(standing.board.track.seeds)
    rows: list[tuple[str, ...]] = []
    for row in found:
        entry, worst = standing.entry(axis, row.name), row.worst
        rows.append((
            place(row), row.name, entry.level if entry else "built-in",
            of_seeds(worst, seeds, interval(worst.asr, rate=True)) if worst else Markup("-"),
            " / ".join(worst.where) if worst else Markup("-"), interval(row.loss),
            Markup(f"{row.failed}/{row.cells}" if row.failed else "0"), Markup(row.unranked or ""),
        ))
    head = ("#", axis, "level", "ASR [95 %]", " / ".join(other for other in AXES if other != axis),
            "accuracy loss [95 %]", "failed", "not ranked")
    # The last two columns only where they say something.
    kept = [*range(6), *[6] * any(row.failed for row in found),
            *[7] * any(row.unranked for row in found)]
    return Table(
        title=TITLES[axis], head=tuple(head[i] for i in kept), right=frozenset({0, 3, 5, 6}),
        rows=tuple(tuple(row[i] for i in kept) for row in rows), note=_RULE[axis],
    )


def _surviving(standing: Standing) -> Table:
    """The ASR of every defense, attack and objective: where each works, at a glance."""
    track = standing.board.track
    rows = standing.rows["defense"]
    attacks = [name for name in track.attacks if name != NONE]
    columns = [(attack, objective) for objective in track.objectives for attack in attacks]
    return Table(
        title="What survives each defense",
        head=("defense", *(f"{objective}: {attack}" for attack, objective in columns)),
        right=frozenset(range(1, len(columns) + 1)),
        rows=tuple(
            (row.name, *_cells({group.where: group for group in row.groups}, columns,
                               len(track.seeds)))
            for row in rows
        ),
        note="ASR of the blind selection in per cent, the mean over the seeds.",
    )


def _cells(
    groups: dict[tuple[str, str], Group], columns: Iterable[tuple[str, str]], seeds: int
) -> Iterator[Markup]:
    for where in columns:
        group = groups.get(where)
        yield of_seeds(group, seeds, percent(group.asr.value)) if group else Markup("-")


def of_seeds(group: Group, seeds: int, figure: str) -> Markup:
    """A figure of a group, with the number of its seeds where some do not count."""
    return Markup(figure if group.asr.n == seeds else f"{figure} ({group.asr.n}/{seeds})")


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
    which = "worst attack" if axis == "defense" else "best defense"
    return Table(
        title=f"{TITLES[axis]} by objective", head=(axis, *figures),
        right=frozenset(range(1, len(figures) + 1)), rows=tuple(rows),
        note=f"ASR with the {which}; mean accuracy loss; loss of the oracle.",
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
    attacks = len(track.attacks) - (NONE in track.attacks)
    counts = [
        counted(attacks, "attack") + " and the control" * (NONE in track.attacks),
        counted(len(track.objectives), "objective"), counted(len(track.defenses), "defense"),
        counted(len(track.seeds), "seed"),
    ]
    return (
        f"Edition {track.edition}, recipe {track.recipe}: {', '.join(counts)}. A cell counts if its"
        f" undefended attack reaches a lift of {track.gate.lift:g} and a clean accuracy of"
        f" {track.gate.clean_top1:g}. A defense that loses more than {100 * track.accuracy_loss:g}"
        " points of accuracy on average over the cells of an objective is not ranked."
    ) + ("" if runs_here(track) else " This version of bdbench cannot run it yet.")


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
    note = f" The attack failed on {failed}, which counts all the same." if failed else ""
    return Table(
        title="Declared statistic", head=("objective", "ASR removed [95 %]", "by seed"),
        right=frozenset({1}), rows=tuple(rows), note=declared(statistic) + note,
    )


def _reported(reported: Reported) -> Iterator[Table]:
    """A table for each setting and attack of a source."""
    bounds = sorted({bound for row in reported.rows for bound in row.best}, key=float)
    for setting, attack in dict.fromkeys((row.setting, row.attack) for row in reported.rows):
        yield Table(
            title=f"Reported elsewhere: {attack}, {setting}",
            head=("objective", "defense", "models", "start",
                  *(f"ASR ≤ {100 * float(bound):g} %" for bound in bounds)),
            right=frozenset(range(2, 4 + len(bounds))),
            rows=tuple(
                (row.objective, row.defense, Markup(f"{row.points:,}"), _pair(row.start),
                 *(_pair(row.best.get(bound)) for bound in bounds))
                for row in reported.rows if (row.setting, row.attack) == (setting, attack)
            ),
            note="Clean accuracy / ASR in per cent, not ranked with measured rows."
            f" {reported.source}. {reported.note}",
        )


def _pair(found: Cleaned | None) -> Markup:
    if found is None:
        return Markup("none")
    return Markup(f"{100 * found.clean_top1:.2f} / {100 * found.asr_top1:.2f}")
