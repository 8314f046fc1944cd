"""Write `leaderboards/<track>/matrix`: `python -m tests.leaderboard.matrix_files TRACK`.

The files that a run of everything in the registry with the track's seeds leaves, from the checked
in cards: those of the submissions, and those that the track does not ask for, `matrix/*.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bdbench.cards.report import write
from bdbench.leaderboard.folder import load_track, read_submission
from bdbench.plan import cells, plan
from bdbench.registry import ALL, Registry, share_dir
from bdbench.schema import Card

COMMAND = "python -m tests.leaderboard.matrix_files"


def everything(track: str) -> dict[str, Card]:
    """The cards of all cells, by key; KeyError where one is missing."""
    asked, registry = load_track(track), Registry()
    wanted = cells(
        registry, recipe=asked.recipe, attacks=[ALL], objectives=[ALL], defenses=[ALL],
        seeds=asked.seeds,
    )
    folder = share_dir("leaderboards") / track
    known = {
        card.cell: card for place in ("submissions", "matrix")
        for path in sorted((folder / place).glob("*.json")) for card in read_submission(path).cards
    }
    return {key: known[cell] for cell, key in plan(registry, wanted).cards.items()}


def draw(track: str, folder: Path) -> list[Path]:
    """Write the files; returns their paths."""
    return write(everything(track), folder)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        place = share_dir("leaderboards") / name / "matrix"
        (place / "matrix.csv").unlink(missing_ok=True)
        for path in draw(name, place):
            print(path)
