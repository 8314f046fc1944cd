"""Tracks for the terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from bdbench.cards import escape
from bdbench.cards.escape import clean
from bdbench.leaderboard.compare import Comparison
from bdbench.leaderboard.rank import AXES, Axis
from bdbench.leaderboard.standing import Standing
from bdbench.leaderboard.tables import (
    LEGEND,
    NOTHING,
    Table,
    declared,
    facts,
    interval,
    tables,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.console import RenderableType


def terminal(standings: Sequence[Standing]) -> RenderableType:
    """What `bdbench leaderboard show` prints."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        *(part for standing in standings for part in _parts(standing)), Text(LEGEND, style="dim")
    )


def _parts(standing: Standing) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(clean(f"{standing.board.name}: {standing.board.track.summary}"), style="bold")
    yield Text(clean(facts(standing)), style="dim")
    yield Text()
    if not any(standing.rows.values()):
        yield Text(NOTHING + "\n")
    for table in tables(standing):
        yield Text(clean(table.title), style="bold")
        yield _rich(table)
        yield Text(clean(table.note) + "\n" if table.note else "", style="dim")
    if standing.board.track.statistic:
        yield Text(clean(statistic(standing)) + "\n", style="dim")


def _rich(table: Table) -> RenderableType:
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, head in enumerate(table.head):
        figures = i in table.right
        shown.add_column(
            Text(clean(head)), justify="right" if figures else "left",
            overflow="fold", no_wrap=figures and len(table.head) < 8,
        )
    for row in table.rows:
        # As Text: what a submission says must not reach the terminal as markup.
        shown.add_row(*(Text(clean(cell)) for cell in row))
    return shown


def statistic(standing: Standing) -> str:
    """What the track declares, and how much of it has been run."""
    asked = standing.board.track.statistic
    if asked is None:
        return ""
    if standing.finding:
        return declared(asked)
    cells = len(asked.cells(standing.board.track.recipe))
    return f"Declared statistic, {standing.evidence} of {cells} cells measured. {declared(asked)}"


def differences(name: str, axis: Axis, found: Comparison) -> RenderableType:
    """A method against another, pair by pair: what `bdbench compare` prints."""
    from rich.console import Group
    from rich.text import Text

    others = [other for other in AXES if other != axis]
    rows = [
        (*row.where, interval(row.asr), interval(row.loss), f"{row.p:.2g}",
         "-" if row.images is None else f"{row.images:.2g}",
         "" if row.apart else "not distinguishable")
        for row in found.rows
    ]
    rows.append((
        "all cells", "", interval(found.asr), interval(found.loss), f"{found.p:.2g}", "",
        "" if found.apart else "not distinguishable",
    ))
    table = Table(
        title=f"{name} minus {found.other}",
        head=(*others, "ASR [95 %]", "accuracy loss [95 %]", "p, seeds", "p, images", ""),
        right=frozenset({2, 3, 4, 5}), rows=tuple(rows),
        note="Points of the blind selection, paired by seed. p, seeds: Student's paired test; over"
        " all cells the sign-flip test. p, images: McNemar's test on the same triggered images,"
        " where both methods' predictions are in the store. p are corrected by Holm.",
    )
    return Group(
        Text(clean(table.title), style="bold"), _rich(table), Text(clean(table.note), style="dim")
    )


def markdown(standing: Standing) -> str:
    """`README.md` of a track."""
    return _environment().get_template("board.md.j2").render(
        standing=standing, tables=list(tables(standing)), measured=any(standing.rows.values()),
        facts=facts(standing), statistic=statistic(standing), nothing=NOTHING, legend=LEGEND,
    )


def overview(standings: Sequence[Standing]) -> str:
    """`README.md` of all tracks."""
    return _environment().get_template("boards.md.j2").render(
        tracks=[
            (standing, list(tables(standing, brief=True)), facts(standing))
            for standing in standings
        ],
        nothing=NOTHING, legend=LEGEND,
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
