"""What is on the leaderboards passes the checks that it is asked to pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdbench.registry import share_dir
from bdbench.verify import verify

FOLDER = share_dir("leaderboards")
FILES = sorted(
    path.relative_to(FOLDER).as_posix()
    for part in ("submissions", "evidence") for path in FOLDER.glob(f"*/{part}/*.json")
)


def test_there_are_some() -> None:
    assert {Path(name).parts[0] for name in FILES} >= {"tiny", "coco_mini"}


@pytest.mark.parametrize("name", FILES)
def test_it_passes(name: str) -> None:
    report = verify(FOLDER / name)
    assert len(report.checks) == 24
    assert report.failed == []
