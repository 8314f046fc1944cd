"""What submissions are compared with, those that are committed, and those of released versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bdbench.hashing import file_digest
from bdbench.leaderboard.folder import load_track
from bdbench.schema import Card, Submission
from bdbench.schema.card import CARD_VERSION
from bdbench.schema.track import SUBMISSION_VERSION
from bdbench.verify import Report, verify
from tests.submission.conftest import TRACK, Json, Made, card, said

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"
BOARDS = TESTS.parent / "leaderboards"
COMMITTED = sorted([*BOARDS.glob("*/submissions/*.json"), *BOARDS.glob("*/evidence/*.json")])
DOUBTS = {
    # Its models of all attacks but badnet are older than its cards, as its track.toml says.
    "coco_mini/submissions": {
        "code": "6 cards of the commit `ef6e120bf6626911a5edcc7cd23fc795c19946f1;"
        " 1a736c771c75716d2a5ff18234f4ae9d82dd050f`: only a checkout tells which code ran",
    },
    # Every caption of the training pairs that names the target, and no more.
    "coco_mini/submissions/none.json": {
        "poisoned": "`label_consistent / mmcl / none / seed 16845`: `81` of `320` pairs are"
        " poisoned (and 1 more)",
    },
}
"""What is doubted of what is committed, by folder or file, and true."""


def compared(report: Report) -> set[tuple[str, str]]:
    """What the checks against the reference say."""
    return {said(report, name) for name in ("data", "poison", "twin", "start")}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: "/".join(p.parts[-3:]))
def test_what_is_committed_passes(path: Path) -> None:
    """No doubt either: a new one is looked at, and named above if it is true."""
    report = verify(path, root=BOARDS)
    assert len(report.checks) == 24
    name = path.relative_to(BOARDS)
    known = {**DOUBTS.get(str(name.parent), {}), **DOUBTS.get(str(name), {})}
    assert {c.name: c.reason for c in report.checks if c.outcome != "yes"} == known
    assert report.failed == []
    cells = len(report.case.cards) if report.case else 0
    expected = "the reference itself" if path.name == "none.json" else f"{cells} cells"
    assert compared(report) == {("yes", expected)}


def test_every_shipped_reference_is_pinned() -> None:
    assert {path.parts[-3] for path in COMMITTED} == {"tiny", "coco_mini"}
    found = [path for path in COMMITTED if path.name == "none.json"]
    assert found
    for path in found:
        assert load_track(path.parts[-3], BOARDS).reference == file_digest(path)


@pytest.fixture
def root(made: Made, tmp_path: Path) -> Path:
    """A copy of the folder `leaderboards` that a test may change."""
    return Path(shutil.copytree(made.root, tmp_path / "leaderboards"))


def test_a_reference_that_is_not_the_pinned_one(made: Made, root: Path, tmp_path: Path) -> None:
    own = root / "demo" / "submissions" / "none.json"
    pinned = file_digest(own)
    assert verify(own, root=root).failed == []
    own.write_text(own.read_text() + "\n")
    for path in (own, made.file(tmp_path)):
        report = verify(path, root=root)
        assert [check.name for check in report.failed] == ["reference"]
        assert report.failed[0].reason == (
            f"the `none` submission has the sha256 `{file_digest(own)}`, and pinned is `{pinned}`"
        )


def test_a_reference_that_no_track_pins_is_told(made: Made, root: Path, tmp_path: Path) -> None:
    (root / "demo" / "track.toml").write_text(TRACK)
    own = root / "demo" / "submissions" / "none.json"
    line = f'`track.toml` pins none; it does with `reference = "{file_digest(own)}"`'
    for path in (own, made.file(tmp_path)):
        report = verify(path, root=root)
        assert report.failed == []
        assert said(report, "reference") == ("warning", line)


def test_a_defense_needs_a_reference(made: Made, root: Path, tmp_path: Path) -> None:
    (root / "demo" / "track.toml").write_text(TRACK)
    (root / "demo" / "submissions" / "none.json").unlink()
    report = verify(made.file(tmp_path), root=root)
    assert [check.name for check in report.failed] == ["data", "poison", "twin"]
    assert {check.reason for check in report.failed} == {
        "2 of 2 cells have nothing to be compared with in the reference"
    }


def test_fewer_poisoned_pairs_than_asked_for_without_a_reference(root: Path) -> None:
    path = root / "demo" / "submissions" / "none.json"
    data = json.loads(path.read_text())
    card(data)["poison"]["poisoned"] = 30
    path.write_text(json.dumps(data))
    outcome, reason = said(verify(path, root=root), "poisoned")
    assert outcome == "warning"
    assert reason.endswith(": `30` of `31` pairs are poisoned")


def test_an_attack_is_compared_with_its_own_undefended_models(root: Path, tmp_path: Path) -> None:
    data: Json = json.loads((root / "demo" / "submissions" / "none.json").read_text())
    data |= {"kind": "attack", "name": "loud", "cards": [card(data)]}
    card(data)["components"]["attack"] |= {
        "name": "loud", "use": "loud.py:Loud", "source": "0" * 64,
    }
    card(data)["cell"]["attack"] = "loud"
    path = tmp_path / "loud.json"
    path.write_text(json.dumps(data))
    assert compared(verify(path, root=root)) == {("yes", "1 cell")}


def test_evidence_is_compared_with_the_other_method(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(BOARDS / "tiny" / "evidence", folder / "evidence")
    shutil.copy(BOARDS / "tiny" / "track.toml", folder)
    path, other = (folder / "evidence" / f"{name}.json" for name in ("finetune", "cleanclip"))
    data = json.loads(other.read_text())
    data["cards"][0]["provenance"]["stages"][0]["files"]["pixels.bin"] = "0" * 64
    data["cards"][1]["trajectory"][0]["validation"]["k"] -= 1
    other.write_text(json.dumps(data))
    assert [check.name for check in verify(path, root=tmp_path).failed] == ["data", "start"]
    other.unlink()
    report = verify(path, root=tmp_path)
    assert report.failed == []
    lacking = "10 of 10 cells have nothing to be compared with in the reference"
    assert compared(report) == {("warning", lacking)}


def kept(old: Any, new: Any) -> bool:
    """Whether everything of `old` is in `new`, which may have more fields."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and kept(value, new[name]) for name, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(kept, old, new))
    return type(old) is type(new) and old == new


@pytest.mark.parametrize(("folder", "model", "version"), [
    ("cards", Card, CARD_VERSION), ("submissions", Submission, SUBMISSION_VERSION),
])
def test_what_was_written_once_is_read_for_ever(
    folder: str, model: type[Card] | type[Submission], version: int
) -> None:
    """The schema grows by optional fields only; every version has its fixtures."""
    paths = sorted((GOLDEN / folder).glob("*.json"))
    assert {path.name.partition("_")[0] for path in paths} == {
        f"v{number}" for number in range(1, version + 1)
    }
    for path in paths:
        old = json.loads(path.read_bytes())
        assert path.name.startswith(f"v{old['version']}_")
        assert kept(old, model.model_validate_json(path.read_bytes()).model_dump(mode="json"))
