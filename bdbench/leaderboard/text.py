"""Tracks for the terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from bdbench.cards import escape
from bdbench.cards.escape import clean
from bdbench.cards.fit import UNTOLD, Fitted, Table
from bdbench.leaderboard.compare import Comparison
from bdbench.leaderboard.rank import AXES, Axis
from bdbench.leaderboard.standing import Standing
from bdbench.leaderboard.tables import LEGEND, NOTHING, declared, facts, interval, tables

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.console import RenderableType


def terminal(standings: Sequence[Standing]) -> RenderableType:
    """What `bdbench leaderboard show` prints."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        *(part for standing in standings for part in _parts(standing)),
        *(Text(f"{term}: {text}", style="dim") for term, text in _legend(standings)),
    )


def _legend(standings: Sequence[Standing]) -> Sequence[tuple[str, str]]:
    """How a ranking is read, where there is one."""
    return LEGEND if any(any(one.rows.values()) for one in standings) else ()


def _parts(standing: Standing) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(clean(f"{standing.board.name}: {standing.board.track.summary}"), style="bold")
    yield Text(clean(facts(standing)), style="dim")
    yield Text()
    if not any(standing.rows.values()):
        yield Text(NOTHING + "\n")
    for table in tables(standing):
        yield Text(clean(table.title), style="bold")
        yield Fitted(table)
        yield Text(clean(table.note) + "\n", style="dim")
    if waiting := statistic(standing):
        yield Text(clean(waiting) + "\n", style="dim")


def statistic(standing: Standing) -> str:
    """What the track declares and how much of it has been run, while any of it is missing."""
    asked = standing.board.track.statistic
    if asked is None or standing.finding:
        return ""
    cells = len(asked.cells(standing.board.track.recipe))
    return f"Declared statistic, {standing.evidence} of {cells} cells measured. {declared(asked)}"


def differences(name: str, axis: Axis, found: Comparison) -> RenderableType:
    """A method against another, pair by pair: what `bdbench compare` prints."""
    from rich.console import Group
    from rich.text import Text

    others = [other for other in AXES if other != axis]
    rows = [
        (*row.where, interval(row.asr), interval(row.loss), _p(row.p),
         "-" if row.images is None else _p(row.images), "" if row.apart else UNTOLD)
        for row in found.rows
    ]
    rows.append((
        "all", "", interval(found.asr), interval(found.loss), _p(found.p), "",
        "" if found.apart else UNTOLD,
    ))
    table = Table(
        title=f"{name} minus {found.other}",
        head=(*others, "ASR [95 %]", "accuracy loss [95 %]", "p, seeds", "p, images", ""),
        right=frozenset({2, 3, 4, 5}), rows=tuple(rows),
        note=f"Points of the blind selection, paired by seed. {UNTOLD}: not distinguishable at 5 %"
        " over the seeds. p, seeds: Student's paired test. p, images: McNemar's test on the same"
        " triggered images, where both methods' predictions are in the store; it speaks of these"
        " models, not of others with other seeds. Both are corrected by Holm for the rows; the row"
        " `all` is one test of the seeds' means, not corrected.",
    )
    return Group(
        Text(clean(table.title), style="bold"), Fitted(table), Text(clean(table.note), style="dim")
    )


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.2g}"


def markdown(standing: Standing) -> str:
    """`README.md` of a track."""
    return _environment().get_template("board.md.j2").render(
        standing=standing, tables=list(tables(standing)), measured=any(standing.rows.values()),
        facts=facts(standing), statistic=statistic(standing), nothing=NOTHING,
        legend=_legend([standing]),
    )


def overview(standings: Sequence[Standing]) -> str:
    """`README.md` of all tracks."""
    return _environment().get_template("boards.md.j2").render(
        tracks=[
            (standing, list(tables(standing, brief=True)), facts(standing))
            for standing in standings
        ],
        nothing=NOTHING, legend=_legend(standings),
    )


@cache
def _environment() -> Environment:
    return escape.markdown()


def plain(standing: Standing) -> dict[str, Any]:
    """A track for `--json`: everything that the tables are made of, rates in [0, 1]."""
    board = standing.board
    return {
        "name": board.name,
        "track": board.track.model_dump(mode="json"),
        "submissions": [
            {
                **entry.submission.model_dump(mode="json", exclude={"cards"}),
                "sha256": entry.sha256, "level": entry.level,
                "verification": entry.verification and entry.verification.model_dump(mode="json"),
            }
            for entry in board.entries
        ],
        "rows": {axis: [asdict(row) for row in rows] for axis, rows in standing.rows.items()},
        "statistic": standing.finding and asdict(standing.finding),
        "reported": [reported.model_dump(mode="json") for reported in board.reported],
    }
