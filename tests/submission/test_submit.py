"""`bdbench submit`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bdbench.errors import BdbenchError
from bdbench.leaderboard.folder import load
from bdbench.schema import Submission
from bdbench.store import Store
from bdbench.submit import Written, submit
from tests.submission.conftest import TRACK, Made

Command = Callable[..., "subprocess.CompletedProcess[str]"]

STATISTIC = """
[statistic]
attack = "badnet"
defense = "mine"
baseline = "finetune"
objectives = ["mmcl", "mmcl_ssl"]
losses = [0.05]
seeds = [1, 2, 3, 4, 5]
"""


@pytest.fixture
def written(made: Made, tmp_path: Path) -> Callable[..., Written]:
    """Submit `mine` to the track, with something else than usual."""

    def run(name: str = "mine", track: str = "demo", **other) -> Written:
        return submit(name, track, **{
            "authors": ["A. Author"], "plugins": [made.plugin], "store": Store(made.store),
            "root": made.root, "out": tmp_path / "mine.json",
        } | other)

    return run


def test_one_file_with_every_card(made: Made, written: Callable[..., Written]) -> None:
    done = written(url="https://example.org/mine")
    assert done.report.failed == []
    assert done.place == "leaderboards/demo/submissions/mine.json"
    data = done.path.read_bytes()
    assert data.count(b"\n") == 1
    assert b": " not in data.replace(b"reason", b"").split(b'"cards"')[0]
    found = Submission.model_validate_json(data)
    assert (found.kind, found.name, found.summary) == ("defense", "mine", "Fine-tuning")
    assert (found.authors, found.url) == (("A. Author",), "https://example.org/mine")
    assert [card.cell.attack for card in found.cards] == ["none", "badnet"]
    assert found.cards[0].components["defense"].source


def test_the_bytes_are_the_same_each_time(made: Made, written: Callable[..., Written]) -> None:
    assert written().path.read_bytes() == made.data == written().path.read_bytes()


def test_it_goes_where_the_board_reads_it(made: Made, written, tmp_path: Path) -> None:
    root = tmp_path / "leaderboards"
    (root / "demo" / "submissions").mkdir(parents=True)
    (root / "demo" / "track.toml").write_text(TRACK)
    written(root=root, out=root / "demo" / "submissions" / "mine.json")
    (entry,) = load("demo", root).entries
    assert (entry.submission.name, entry.level) == ("mine", "claimed")


def test_missing_cells_name_the_command_that_runs_them(made: Made, written, tmp_path: Path) -> None:
    with pytest.raises(BdbenchError) as error:
        written(store=Store(tmp_path / "empty"))
    assert "`2` of the `2` cells of `mine`" in error.value.message
    assert "the first is `none / mmcl / mine / seed 0`" in error.value.message
    assert error.value.hint == f"bdbench run --track demo --defense mine --plugin {made.plugin}"
    assert error.value.exit_code == 2
    assert not (tmp_path / "mine.json").exists()


def test_attacks_and_objectives_are_submitted_alike(made: Made, written, tmp_path: Path) -> None:
    done = written("attack/badnet", plugins=(), out=tmp_path / "badnet.json")
    assert done.report.failed == []
    assert done.submission.kind == "attack"
    done = written("mmcl", plugins=(), out=tmp_path / "mmcl.json")
    assert done.report.failed == []
    assert len(done.submission.cards) == 2


@pytest.mark.parametrize(("name", "says", "hint"), [
    ("none", "names the attack and the defense", "say which: `attack/none` or `defense/none`"),
    ("asr_top1", "is a metric, and a board has rows for", "CONTRIBUTING.md"),
    ("dataset/shapes", "is a dataset, and a board has rows for", "CONTRIBUTING.md"),
    ("mime", "there is no attack, objective or defense `mime`", "did you mean `mine`"),
])
def test_what_has_no_row_is_refused(name: str, says: str, hint: str, written) -> None:
    with pytest.raises(BdbenchError) as error:
        written(name)
    assert says in error.value.message
    assert hint in error.value.hint


def test_bad_words_are_refused(written) -> None:
    with pytest.raises(BdbenchError, match=r"submission\.url"):
        written(url="javascript:alert(1)")
    with pytest.raises(BdbenchError, match=r"submission\.authors"):
        written(authors=[])
    with pytest.raises(BdbenchError, match=r"submission\.summary"):
        written(summary="two\nlines")
    with pytest.raises(BdbenchError, match="no track `demos`"):
        written(track="demos")
    with pytest.raises(BdbenchError, match=r"must be named `mine\.json`"):
        written(out=Path("other.json"))
    with pytest.raises(BdbenchError, match="cannot be written"):
        written(out=Path("/nowhere/mine.json"))


def test_evidence_is_of_the_cells_of_the_statistic(made: Made, written, tmp_path: Path) -> None:
    with pytest.raises(BdbenchError, match="declares no statistic"):
        written(evidence=True)
    root = tmp_path / "leaderboards"
    (root / "demo").mkdir(parents=True)
    (root / "demo" / "track.toml").write_text(TRACK + STATISTIC)
    with pytest.raises(BdbenchError) as error:
        written(evidence=True, root=root)
    assert "`10` of the `10` cells" in error.value.message
    assert error.value.hint == (
        "bdbench run --track demo --defense mine --attack badnet --objective mmcl --objective"
        f" mmcl_ssl --seed 1 --seed 2 --seed 3 --seed 4 --seed 5 --plugin {made.plugin}"
    )
    with pytest.raises(BdbenchError) as error:
        written("cleanclip", evidence=True, root=root, out=tmp_path / "cleanclip.json")
    assert "compares `finetune` and `mine`" in error.value.message

    def moved(data):
        data["cards"] = [card for card in data["cards"] if card["cell"]["attack"] == "badnet"]
        data["cards"][0]["cell"]["seed"] = 1

    from bdbench.verify import verify

    report = verify(made.file(tmp_path, moved), root=root)
    (cells,) = (check for check in report.checks if check.name == "cells")
    assert cells.reason.startswith("9 of 10 cells are missing, `badnet / mmcl / mine / seed 2`")


def test_the_command_refuses_without_running(bdbench: Command) -> None:
    done = bdbench("submit", "cleanclip", "--track", "tiny", "--author", "A. Author")
    assert done.returncode == 2
    assert "hint: bdbench run --track tiny --defense cleanclip" in done.stderr
    assert done.stdout == ""


def test_the_command_writes_and_tells_where_to_put_it(
    made: Made, bdbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the parser, on a folder `leaderboards` that a test brings."""
    from typer.testing import CliRunner

    from bdbench.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BDBENCH_HOME", str(made.store))
    for module in ("bdbench.leaderboard.folder", "bdbench.verify"):
        monkeypatch.setattr(f"{module}.share_dir", lambda name: made.root)
    done = CliRunner().invoke(app, [
        "submit", "mine", "--track", "demo", "--plugin", str(made.plugin), "--author", "A. Author",
    ])
    assert done.exit_code == 0, done.output
    assert done.stdout == "mine.json\n"
    assert "2 cards, all 24 checks passed" in done.stderr
    assert "leaderboards/demo/submissions/mine.json" in done.stderr
    assert json.loads((tmp_path / "mine.json").read_text())["track"] == "demo"
