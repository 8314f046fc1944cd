"""Where a track stands: ranked rows on each axis, what they say per objective, the statistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bdbench.leaderboard.folder import Board, Entry, load, names
from bdbench.leaderboard.rank import AXES, Axis, Group, Row, rank
from bdbench.leaderboard.statistic import Finding, finding
from bdbench.schema import Card


@dataclass(frozen=True)
class Part:
    """A row's groups on one objective."""

    worst: Group
    loss: float
    """Mean over all cells, controls included."""
    oracle_loss: float | None
    """Mean over the cells that the oracle rule cleaned."""
    cleaned: int
    cells: int


@dataclass(frozen=True)
class Standing:
    """A track as it is shown."""

    board: Board
    rows: dict[Axis, list[Row]]
    finding: Finding | None
    evidence: int
    """Cells of the declared statistic that are there."""

    def entry(self, axis: Axis, name: str) -> Entry | None:
        """The submission that a row is; None for a built-in method that other entries ran."""
        at = self.position(axis, name)
        return None if at is None else self.board.entries[at]

    def position(self, axis: Axis, name: str) -> int | None:
        """Where in `board.entries` the submission of a row is."""
        return self._positions.get((axis, name))

    @cached_property
    def _positions(self) -> dict[tuple[str, str], int]:
        told = [entry.submission for entry in self.board.entries]
        return {(one.kind, one.name): i for i, one in enumerate(told)}


def standings(only: str | None = None, root: Path | None = None) -> list[Standing]:
    """The tracks below the folder `leaderboards`, or the one named."""
    return [standing(load(name, root)) for name in ([only] if only else names(root))]


def standing(board: Board) -> Standing:
    """The rows of a track on each axis, and its statistic."""
    evidence = [card for submission in board.evidence for card in submission.cards]
    declared = board.track.statistic
    return Standing(
        board=board,
        rows={
            axis: rank(
                cards(board, axis), board.track, axis,
                [e.submission.name for e in board.entries if e.submission.kind == axis],
            )
            for axis in AXES
        },
        finding=finding(board.track, declared, evidence) if declared else None,
        evidence=len({card.cell for card in evidence}),
    )


def cards(board: Board, axis: Axis) -> list[Card]:
    """The cards of all submissions, those of the axis first: they speak for their own rows."""
    entries = sorted(board.entries, key=lambda entry: entry.submission.kind != axis)
    return [card for entry in entries for card in entry.submission.cards]


def parts(row: Row, axis: Axis) -> dict[str, Part]:
    """What a row of a defense or an attack says per objective."""
    # `where` holds the other two axes in the order attack, objective, defense.
    at = 1 if axis == "defense" else 0
    by: dict[str, list[Group]] = {}
    for group in row.groups:
        by.setdefault(group.where[at], []).append(group)
    pick = max if axis == "defense" else min
    return {
        name: _part(groups, pick(groups, key=lambda group: group.asr.value), row.losses[name])
        for name, groups in by.items()
    }


def _part(groups: Sequence[Group], worst: Group, loss: float) -> Part:
    cells, cleaned = sum(g.asr.n for g in groups), sum(g.cleaned for g in groups)
    oracle = sum(g.oracle_loss.value * g.cleaned for g in groups if g.oracle_loss)
    return Part(
        worst=worst, loss=loss, oracle_loss=oracle / cleaned if cleaned else None,
        cleaned=cleaned, cells=cells,
    )
