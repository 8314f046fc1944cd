"""What a check tells a reviewer without saying no."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.submission.conftest import Json, Made, card, pick, said, stage


def test_one_cell_that_stops_early_is_told(made: Made, tmp_path: Path) -> None:
    def stop(data: Json) -> None:
        card(data)["trajectory"].pop()
        pick(data)
        del stage(data, "defend", 1)["files"]["step-0002.safetensors"]

    report = made.report(tmp_path, stop)
    assert report.failed == []
    outcome, reason = said(report, "method")
    assert outcome == "warning"
    assert "its runs end after other epochs than in other cells" in reason


@pytest.mark.parametrize("source", [None, "bdbench-example 1.0", "0" * 63])
def test_code_that_no_hash_pins_is_told(source: str | None, made: Made, tmp_path: Path) -> None:
    def installed(data: Json) -> None:
        for one in data["cards"]:
            one["components"]["defense"]["source"] = source

    expected = f"`mine.py:Mine` has the source `{source}`: no hash pins its code"
    assert said(made.report(tmp_path, installed), "method") == ("warning", expected)


@pytest.mark.parametrize(("git", "expected"), [
    ("0" * 40, ("yes", "")),
    (f"{'0' * 40}+dirty", ("warning", "1 card of a checkout with uncommitted changes")),
    (None, ("warning", "1 card of the commit `None`: only a checkout tells which code ran")),
    ("main", ("warning", "1 card of the commit `main`: only a checkout tells which code ran")),
])
def test_the_commit_is_told(
    git: str | None, expected: tuple[str, str], made: Made, tmp_path: Path
) -> None:
    def commit(data: Json) -> None:
        for one in data["cards"]:
            one["provenance"]["git"] = "0" * 40
        card(data)["provenance"]["git"] = git

    assert said(made.report(tmp_path, commit), "code") == expected


def test_other_hardware_makes_an_own_twin(made: Made, tmp_path: Path) -> None:
    def other(data: Json) -> None:
        stage(data, "pretrain")["files"]["model.safetensors"] = "0" * 64

    report = made.report(tmp_path, other)
    assert report.failed == []
    outcome, reason = said(report, "twin")
    assert outcome == "warning"
    assert "own twin, paired comparison not possible" in reason
    assert said(report, "start") == (
        "warning", "1 of 2 cells have nothing to be compared with in the reference"
    )


def test_a_verdict_in_other_words_is_told(made: Made, tmp_path: Path) -> None:
    def reworded(data: Json) -> None:
        card(data)["verdict"]["reason"] = "it works very well"

    report = made.report(tmp_path, reworded)
    assert report.failed == []
    outcome, reason = said(report, "verdict")
    assert outcome == "warning"
    assert "`it works very well`" in reason
