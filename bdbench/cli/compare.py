"""`bdbench compare`: one's own method in the table of a track, and against single entries of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from bdbench.leaderboard.compare import Comparison, compare
from bdbench.leaderboard.folder import Board, Entry, load
from bdbench.leaderboard.rank import NONE, Axis, references
from bdbench.leaderboard.standing import Standing, cards, standing
from bdbench.leaderboard.text import differences, terminal
from bdbench.schema import Submission
from bdbench.store import Store
from bdbench.submit import Collected, collect


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
    found = _comparisons(board, mine, axis, store, _others(stand, mine, axis))
    if as_json:
        typer.echo(json.dumps([asdict(one) | {"apart": one.apart} for one in found], indent=1))
        return
    console = Console(highlight=False, emoji=False)
    console.print(terminal([stand]))
    for one in found:
        console.print(differences(mine.entry.name, axis, one))
    if not found:
        typer.echo(f"nothing to compare with: no cell of `{mine.entry.name}` counts together with"
                   f" one of another entry of the track `{track}`", err=True)


@dataclass(frozen=True)
class _Yours(Entry):
    """Cells of the store, in no submission yet."""

    @property
    def level(self) -> str:
        return "yours"


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
    return replace(board, entries=(*others, _Yours(submission, "", None)))


def _others(stand: Standing, mine: Collected, axis: Axis) -> list[str]:
    """The undefended models, where the method is a defense, and the best entry besides itself."""
    best = [row.name for row in stand.rows[axis] if row.rank and row.name != mine.entry.name][:1]
    undefended = [NONE] if axis == "defense" and mine.entry.name != NONE else []
    return list(dict.fromkeys(undefended + best))


def _comparisons(
    board: Board, mine: Collected, axis: Axis, store: Store, names: Sequence[str]
) -> list[Comparison]:
    """Against each of the methods that has a cell in common."""
    all_cards = cards(board, axis)
    undefended = references(all_cards)
    found = [
        compare(
            mine.cards, [card for card in all_cards if getattr(card.cell, axis) == name],
            board.track, axis, undefended, store,
        )
        for name in names
    ]
    return [one for one in found if one is not None]
