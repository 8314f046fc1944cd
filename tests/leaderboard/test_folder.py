"""A track's folder: what is read, and each thing that is refused, with its words."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import date

import pytest

from bdbench.errors import BdbenchError
from bdbench.leaderboard import folder as folders
from bdbench.leaderboard.folder import load, load_track, names, read_submission
from bdbench.leaderboard.standing import standing
from bdbench.leaderboard.tables import facts
from bdbench.schema import Statistic, Verification
from tests.leaderboard.conftest import TRACK, submission_of

SMALL = TRACK.model_copy(update={"attacks": ("badnet",), "seeds": (11,)})


def one(name: str = "cleanclip", **fields):
    return submission_of(name, SMALL, **fields)


def said(error) -> str:
    return str(error.value)


def test_a_folder_is_read(folder):
    root = folder(one(), one("finetune"), track=SMALL)
    board = load("demo", root)
    assert names(root) == ["demo"]
    assert board.track == SMALL == load_track("demo", root)
    assert [entry.submission.name for entry in board.entries] == ["cleanclip", "finetune"]
    path = root / "demo" / "submissions" / "cleanclip.json"
    assert board.entries[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert board.entries[0].level == "claimed"
    assert len(list(board.cards())) == 4
    assert read_submission(path) == board.entries[0].submission


def test_an_unknown_track_has_near_names(folder):
    with pytest.raises(BdbenchError, match=r"no track `dmo`\n\nhint: did you mean `demo`"):
        load("dmo", folder(track=SMALL))
    with pytest.raises(BdbenchError, match=r"no track `\.\./demo`"):
        load("../demo", folder(track=SMALL))


def test_folders_with_other_names_are_no_tracks(folder):
    root = folder(track=SMALL)
    for name in ("Upper", "<b>", "a b", ".hidden"):
        (root / name).mkdir()
        (root / name / "track.toml").write_text("edition = 1")
    (root / "notes").mkdir()
    assert names(root) == ["demo"]


@pytest.mark.parametrize(("text", "words"), [
    ("edition = ", "is not valid TOML"),
    ("edition = 1", "is not a valid track: `summary`: Field required"),
    (b"\xff\xfe", "is not valid TOML"),
])
def test_a_track_that_is_none(folder, text, words):
    root = folder(track=SMALL)
    path = root / "demo" / "track.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BdbenchError) as error:
        load_track("demo", root)
    assert words in said(error)
    assert str(path) in said(error)


def test_a_track_whose_recipe_is_not_here_yet(folder):
    later = SMALL.model_copy(update={"recipe": "future"})
    words = " This version of bdbench cannot run it yet."
    assert facts(standing(load("demo", folder(track=later)))).endswith(words)
    assert words not in facts(standing(load("demo", folder(track=SMALL))))


def test_the_blind_rule_may_not_lose_more_than_the_track_allows(folder):
    strict = SMALL.model_copy(update={"accuracy_loss": 0.02})
    with pytest.raises(BdbenchError) as error:
        load_track("demo", folder(track=strict))
    assert "entries may lose `0.02` of accuracy, and the blind rule of the recipe `tiny`" in (
        said(error)
    )
    assert "picks models that lose `0.05`\n\nhint: lower `selection.tolerance`" in said(error)


def test_the_undefended_models_are_pinned(folder):
    root = folder(one("none"), one(), track=SMALL)
    path = root / "demo" / "submissions" / "none.json"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    pinned = SMALL.model_copy(update={"reference": sha256})
    folder(track=pinned)
    assert len(load("demo", root).entries) == 2
    path.write_text(path.read_text() + "\n")
    words = refused(root)
    assert f"`{path}` is another file than the reference that `track.toml` pins" in words
    assert sha256 in words
    assert f"hint: git checkout {path}" in words
    path.unlink()
    assert f"`{path}` is missing: the reference that" in refused(root)


def verification(path, **fields) -> Verification:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Verification(**{
        "submission_sha256": sha256, "level": "replayed", "by": "a maintainer",
        "on": date(2026, 1, 5), "cells": 1, "seed": 7, "identical": False,
        "largest_difference": 0.001,
    } | fields)


def test_levels_and_that_an_edit_drops_them(folder):
    root = folder(one(), track=SMALL)
    path = root / "demo" / "submissions" / "cleanclip.json"
    (root / "demo" / "verified").mkdir()
    told = root / "demo" / "verified" / "cleanclip.json"
    for level in ("replayed", "reproduced"):
        told.write_text(verification(path, level=level).model_dump_json())
        (entry,) = load("demo", root).entries
        assert entry.level == f"{level} 1/{len(entry.submission.cards)}"
        assert entry.verification.by == "a maintainer"
    path.write_text(path.read_text() + "\n")
    assert load("demo", root).entries[0].level == "claimed"


def test_a_verification_of_nothing(folder):
    root = folder(one(), track=SMALL)
    path = root / "demo" / "submissions" / "cleanclip.json"
    (root / "demo" / "verified").mkdir()
    (root / "demo" / "verified" / "gone.json").write_text(verification(path).model_dump_json())
    with pytest.raises(BdbenchError, match=r"gone.json` verifies no submission\n\nhint: delete it"):
        load("demo", root)


def rewrite(root, change, name="cleanclip", part="submissions"):
    path = root / "demo" / part / f"{name}.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def refused(root) -> str:
    with pytest.raises(BdbenchError) as error:
        load("demo", root)
    assert error.value.exit_code == 2
    assert error.value.hint
    return said(error)


def test_a_name_must_be_that_of_the_file(folder):
    root = folder(one(), track=SMALL)
    path = root / "demo" / "submissions" / "cleanclip.json"
    path.rename(path.with_name("better.json"))
    words = refused(root)
    assert "holds the submission `cleanclip`" in words
    assert "name the file `cleanclip.json`" in words


@pytest.mark.parametrize(("field", "value"), [("track", "other"), ("edition", 2)])
def test_another_track_or_edition(folder, field, value):
    root = folder(one(), track=SMALL)
    rewrite(root, lambda data: data.update({field: value}))
    words = refused(root)
    assert "not for edition 1 of `demo`" in words
    assert "hint: bdbench submit cleanclip --track demo" in words


@pytest.mark.parametrize(("axis", "value"), [
    ("attack", "wanet"), ("objective", "siglip"), ("recipe", "smoke"), ("seed", 12),
])
def test_a_cell_that_the_track_does_not_ask_for(folder, axis, value):
    root = folder(one(), track=SMALL)
    rewrite(root, lambda data: data["cards"][0]["cell"].update({axis: value}))
    words = refused(root)
    assert "holds a card that the track does not ask for" in words
    assert f"`{value}`" in words


@pytest.mark.parametrize(("change", "words"), [
    (lambda card: card.update(trajectory=[]), "the trajectory is empty"),
    (lambda card: card["trajectory"][3]["scores"].pop("lift"), "model 3 of the trajectory has no"),
    (lambda card: card["trajectory"][0]["scores"].clear(), "has no `clean_top1`"),
    (lambda card: card["trajectory"][2]["scores"]["asr_top1"].update(value=1e300),
     "`asr_top1` of model 2 is no rate"),
    (lambda card: card["trajectory"][0]["scores"]["asr_top1"].update(value=-0.5), "is no rate"),
    (lambda card: card["trajectory"][0]["scores"]["clean_top1"].update(low=0.99), "is no rate"),
    (lambda card: card["trajectory"][1]["validation"].update(value=7), "`validation` of model 1"),
    (lambda card: card["selections"].update(blind=25), "picks model `25` of 25"),
    (lambda card: card["selections"].update(last=-1), "picks model `-1` of 25"),
    (lambda card: card["selections"]["oracle"].update({"0.05": 99}), "picks model `99`"),
    (lambda card: card["selections"]["oracle"].update({"<b>": 0}), "is no ASR bound"),
])
def test_a_card_that_no_table_can_be_made_from(folder, change, words):
    root = folder(one(), track=SMALL)
    rewrite(root, lambda data: change(data["cards"][1]))
    found = refused(root)
    assert "`cards.1`" in found
    assert words in found


def test_files_that_are_none(folder, tmp_path):
    root = folder(one(), track=SMALL)
    place = root / "demo" / "submissions"
    outside = tmp_path / "outside.json"
    outside.write_text((place / "cleanclip.json").read_text())
    (place / "cleanclip.json").unlink()
    (place / "cleanclip.json").symlink_to(outside)
    assert "is not a plain file" in refused(root)
    (place / "cleanclip.json").unlink()
    (place / "cleanclip.json").mkdir()
    assert "is not a plain file" in refused(root)
    (place / "cleanclip.json").rmdir()
    os.mkfifo(place / "cleanclip.json")
    assert "is not a plain file" in refused(root)


def test_a_file_that_is_too_large(folder, monkeypatch):
    root = folder(one(), track=SMALL)
    path = root / "demo" / "submissions" / "huge.json"
    with path.open("wb") as file:
        file.truncate(folders.LARGEST + 1)
    words = refused(root)
    assert f"has `{folders.LARGEST + 1}` bytes" in words
    assert "one method on one track per file" in words


def test_evidence_holds_the_cells_of_the_statistic_alone(folder):
    declared = Statistic(
        attack="badnet", defense="cleanclip", baseline="finetune",
        objectives=("mmcl", "mmcl_ssl"), losses=(0.02,), seeds=(1, 2, 3, 4, 5),
    )
    track = SMALL.model_copy(update={"statistic": declared})
    root = folder(track=track)
    place = root / "demo" / "evidence"
    place.mkdir()
    cells = [cell for cell in declared.cells("tiny") if cell.defense == "cleanclip"]
    good = submission_of("cleanclip", track, cells=cells)
    (place / "cleanclip.json").write_text(good.model_dump_json())
    assert load("demo", root).evidence == (good,)
    (place / "cleanclip.json").write_text(one().model_dump_json())
    assert "does not ask for" in refused(root)


def test_reported_figures_need_bounds(folder):
    root = folder(track=SMALL)
    (root / "demo" / "reported").mkdir()
    path = root / "demo" / "reported" / "paper.json"
    row = {
        "setting": "s", "attack": "badnet", "objective": "mmcl", "defense": "cleanclip",
        "start": {"clean_top1": 0.1, "asr_top1": 0.9}, "points": 3, "best": {"0.05": None},
    }
    told = {"source": "A paper", "url": "https://example.org", "note": "", "rows": [row]}
    path.write_text(json.dumps(told))
    assert load("demo", root).reported[0].rows[0].best == {"0.05": None}
    row["best"] = {"nan": None}
    path.write_text(json.dumps(told))
    assert "`nan` is no ASR bound" in refused(root)
