"""The matrix of everything in the registry is of the checked in cards, and complete."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from bdbench.registry import Registry, share_dir
from tests.leaderboard.matrix_files import COMMAND, draw
from tests.pictures import alike

FOLDER = share_dir("leaderboards")
DRAWN = sorted(path.parent.name for path in FOLDER.glob("*/matrix"))


@pytest.mark.parametrize("track", DRAWN)
def test_the_committed_files_are_what_the_script_writes(track: str, tmp_path: Path) -> None:
    stale = f"leaderboards/{track}/matrix is old; run `{COMMAND} {track}`"
    fresh = draw(track, tmp_path)
    there = {path.name for path in (FOLDER / track / "matrix").iterdir() if path.suffix != ".json"}
    assert there == {path.name for path in fresh}, stale
    for path in fresh:
        old = FOLDER / track / "matrix" / path.name
        if path.suffix == ".png":
            assert alike(old, path), stale
        else:
            assert old.read_bytes() == path.read_bytes(), stale


def test_tiny_has_everything_in_the_registry_three_times() -> None:
    with (FOLDER / "tiny" / "matrix" / "matrix.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter((row["attack"], row["objective"], row["defense"]) for row in rows)
    registry = Registry()
    names = {kind: [entry.name for entry in registry.entries(kind)]
             for kind in ("attack", "objective", "defense")}
    assert counts == {
        (attack, objective, defense): 3 for attack in names["attack"]
        for objective in names["objective"] for defense in names["defense"]
    }
    assert len({row["seed"] for row in rows}) == 3
