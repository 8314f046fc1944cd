"""CONTRIBUTING from an idea to a verified submission, command by command, on a small track."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import invoke
from tests.test_docs import CONTRIBUTING, commands

TRACK = """
summary = "Two attacks, for a test"
edition = 1
recipe = "smoke"
attacks = ["none", "badnet"]
objectives = ["mmcl"]
defenses = ["none"]
seeds = [0]
accuracy_loss = 1.0
gate = { lift = 0.0, clean_top1 = 0.0 }
"""
PATH = [line for line in commands(CONTRIBUTING) if "mine" in line or "leaderboard build" in line]


@pytest.fixture
def checkout(
    shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with leaderboards of its own, in which the undefended models are submitted."""
    root = tmp_path / "leaderboards"
    (root / "tiny" / "submissions").mkdir(parents=True)
    (root / "tiny" / "track.toml").write_text(TRACK)
    monkeypatch.setenv("BDBENCH_HOME", str(shared_store))
    monkeypatch.chdir(tmp_path)
    for module in ("leaderboard.folder", "leaderboard.build", "verify"):
        monkeypatch.setattr(f"bdbench.{module}.share_dir", lambda name: root)
    invoke("run", "--track", "tiny", "--defense", "none")
    invoke("submit", "defense/none", "--track", "tiny", "--author", "maintainers",
           "--out", str(root / "tiny" / "submissions" / "none.json"))
    return tmp_path


@pytest.mark.heavy
def test_the_path_of_a_contributor(checkout: Path) -> None:
    """Every command succeeds in the order of the page, and the badge ends on the board."""
    assert len(PATH) >= 12
    told = {}
    for line in PATH:
        words = shlex.split(line)
        if words[0] == "cp":
            shutil.copy(*words[1:])
            continue
        assert words[0] == "bdbench", line
        told[line] = invoke(*words[1:])
    compared = next(text for line, text in told.items() if "compare" in line)
    assert "mine minus none" in compared
    assert "badnet" in compared
    badge = json.loads((checkout / "leaderboards/tiny/verified/mine.json").read_text())
    assert badge["by"] == "M. Maintainer"
    assert badge["level"] == "replayed"
    page = (checkout / "leaderboards/tiny/README.md").read_text()
    assert "| mine | replayed 2/" in page
    edited = checkout / "leaderboards/tiny/submissions/mine.json"
    edited.write_text(edited.read_text() + " ")
    invoke("leaderboard", "build")
    assert "| mine | claimed |" in (checkout / "leaderboards/tiny/README.md").read_text()
