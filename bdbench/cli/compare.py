"""`bdbench compare`: one's own method in the table of a track, and against single entries of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from bdbench.errors import BdbenchError
from bdbench.leaderboard.compare import Comparison, compare
from bdbench.leaderboard.folder import Board, Entry, load
from bdbench.leaderboard.rank import AXES, Axis
from bdbench.leaderboard.standing import standing
from bdbench.leaderboard.text import differences, terminal
from bdbench.schema import Card, Submission
from bdbench.store import Store
from bdbench.submit import Collected, collect

UNDEFENDED = "none"


def compare_method(
    name: Annotated[str, typer.Argument(help="An attack, objective or defense, or `kind/name`.")],
    track: Annotated[str, typer.Option(help="The leaderboard's track.")],
    plugin: Annotated[list[Path] | None, typer.Option(help="Also load a plugin file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank a method whose cells have run among a track's entries, and compare it pair by pair."""
    store = Store()
    mine = collect(name, track, plugins=plugin or (), store=store)
    axis = cast(Axis, mine.entry.kind)
    board = _with(load(track), mine, track)
    stand = standing(board)
    found = _comparisons(board, mine, axis, store, [
        *([UNDEFENDED] if axis == "defense" else []),
        *(row.name for row in stand.rows[axis] if row.rank is not None),
    ])
    if as_json:
        typer.echo(json.dumps([asdict(one) | {"apart": one.apart} for one in found], indent=1))
        return
    console = Console(highlight=False, emoji=False)
    console.print(terminal([stand]))
    for one in found:
        console.print(differences(mine.entry.name, axis, one))


def _with(board: Board, mine: Collected, track: str) -> Board:
    """The board with the method among its entries, in the place of a submission of its name."""
    submission = Submission(
        track=track, edition=board.track.edition, kind=mine.entry.kind,  # type: ignore[arg-type]
        name=mine.entry.name, summary="", authors=("you",), cards=mine.cards,
    )
    others = tuple(
        entry for entry in board.entries
        if (entry.submission.kind, entry.submission.name) != (mine.entry.kind, mine.entry.name)
    )
    return replace(board, entries=(*others, Entry(submission, "", None)))


def _comparisons(
    board: Board, mine: Collected, axis: Axis, store: Store, names: Sequence[str]
) -> list[Comparison]:
    """Against the undefended models and against the best entry besides the method itself."""
    wanted = [name for name in dict.fromkeys(names) if name != mine.entry.name][:2]
    found = [
        compare(mine.cards, _cards(board, axis, name), board.track, axis, store)
        for name in wanted
    ]
    kept = [one for one in found if one is not None]
    if not kept:
        raise BdbenchError(
            f"no cell of `{mine.entry.name}` counts together with one of another entry of the"
            f" track `{board.name}`",
            f"bdbench leaderboard show --track {board.name}",
        )
    return kept


def _cards(board: Board, axis: Axis, name: str) -> list[Card]:
    assert axis in AXES
    return [card for card in board.cards() if getattr(card.cell, axis) == name]
