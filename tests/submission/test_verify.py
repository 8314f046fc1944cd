"""A sound submission passes; one change fails exactly the check that is for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bdbench.cli.main import main
from bdbench.errors import BdbenchError
from bdbench.leaderboard.folder import LARGEST
from bdbench.schema import Card, Submission
from bdbench.verify import verify
from tests.submission.conftest import OTHERS, TRACK, Edit, Json, Made, card, count, pick, stage

GOLDEN = Path(__file__).parent.parent / "golden"
SHA = "0" * 64

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_sound_submission_passes(made: Made, tmp_path: Path) -> None:
    report = made.report(tmp_path)
    assert [check.name for check in report.checks] == [
        "size", "schema", "track", "cells", "name", "recipe", "components", "files", "code",
        "figures", "method", "keys", "runs", "rates", "lift", "counts", "poisoned", "selections",
        "verdict", "poison", "twin", "start",
    ]
    assert {check.name: check.reason for check in report.checks if check.outcome == "no"} == {}
    assert {check.name for check in report.checks if check.outcome == "warning"} <= {"code"}
    reasons = {check.name: check.reason for check in report.checks}
    assert reasons["poison"] == reasons["twin"] == reasons["start"] == "2 cells"


def test_the_tracks_own_undefended_models_pass(made: Made) -> None:
    report = verify(made.root / "demo" / "submissions" / "none.json", root=made.root)
    assert report.failed == []
    assert {c.reason for c in report.checks if c.name == "twin"} == {"nothing to compare with"}


def change(*path: str | int, to: object) -> Edit:
    """Set one value of the card of badnet, or of the file where the path begins with `/`."""
    def edit(data: Json) -> None:
        at, *rest = path
        found = data if at == "/" else card(data)[at]
        for key in rest[:-1]:
            found = found[key]
        if not rest:
            card(data)[at] = to
        else:
            found[rest[-1]] = to

    return edit


def drop(data: Json) -> None:
    data["cards"].pop()


def add(data: Json) -> None:
    data["cards"].append(json.loads(json.dumps(card(data))))
    data["cards"][-1]["cell"]["seed"] = 5


def other_parameters(data: Json) -> None:
    card(data)["components"]["defense"]["params"]["weight_decay"] = 0.2


def all_other_parameters(data: Json) -> None:
    for one in data["cards"]:
        one["components"]["defense"]["params"]["weight_decay"] = 0.2


def tuned(data: Json) -> None:
    for one in data["cards"]:
        one["components"]["defense"]["overridden"] = {"epochs": 2}


def key(name: str) -> Edit:
    return lambda data: stage(data, name, -1).update(key="0123456789abcdef")


def sha256(name: str, file: str, value: str = SHA) -> Edit:
    return lambda data: stage(data, name)["files"].update({file: value})


def swap_epochs(data: Json) -> None:
    points = card(data)["trajectory"]
    points[1]["step"], points[2]["step"] = 2, 1
    pick(data)


def drop_epoch(data: Json) -> None:
    card(data)["trajectory"].pop()
    pick(data)


def lose_metric(data: Json) -> None:
    del card(data)["trajectory"][2]["scores"]["asr_all"]


def miscount(data: Json) -> None:
    card(data)["trajectory"][2]["scores"]["triggered_top1"]["k"] += 1


def fewer_images(data: Json) -> None:
    for point in card(data)["trajectory"][1:]:
        count(point, "validation", point["validation"]["k"], 63)
    pick(data)


def twice(data: Json) -> None:
    count(card(data)["trajectory"][2], "triggered_top1", 120)
    count(card(data)["trajectory"][2], "asr_top1", 30)
    pick(data)


def other_start(data: Json) -> None:
    sha256("pretrain", "model.safetensors")(data)
    count(card(data)["trajectory"][0], "asr_top1", 40)
    pick(data)


def start_score(data: Json) -> None:
    score = card(data)["trajectory"][0]
    count(score, "triggered_top1", score["scores"]["triggered_top1"]["k"] + 1)


CHANGES: list[tuple[str, Edit, str]] = [
    ("schema", change("/", "surprise", to=1), "`surprise`: Extra inputs"),
    ("schema", change("/", "url", to="javascript:alert(1)"), "`url`"),
    ("schema", change("/", "name", to="../x"), "`name`"),
    ("schema", change("trajectory", 0, "step", to="0"), "step"),
    ("track", change("/", "edition", to=2), "edition `2`"),
    ("track", change("/", "track", to="demos"), "no track `demos`. did you mean `demo`?"),
    ("cells", drop, "1 of 2 cells are missing"),
    ("cells", add, "does not ask for `badnet / mmcl / mine / seed 5`"),
    ("recipe", change("recipe", "budget", "pairs", to=9999), "`recipe.budget.pairs` is `9999`"),
    ("recipe", change("recipe", "target", to="kite"), "`recipe.target` is `kite`"),
    ("recipe", change("overridden", to={"eval_batch": 7}), "`--set` changed"),
    ("recipe", change("provenance", "threads", "defend", to=2), "threads"),
    ("recipe", tuned, "`defense.epochs` was changed by `--set`"),
    ("components", change("components", "objective", "version", to=2), "`version` is `2`"),
    ("components", change("components", "attack", "params", "size", to=4), "`params.size`"),
    ("components", change("components", "dataset", "name", to="world"), "`world`"),
    ("components", change("metrics", 1, "version", to=3), "metric `asr_top1`"),
    ("keys", all_other_parameters, "key of `defend`"),
    ("keys", key("defend"), "`0123456789abcdef`, and computed here"),
    ("keys", key("evaluate"), "key of `evaluate`"),
    ("keys", change("provenance", "seeds", "defend", to=1), "seeds"),
    ("files", sha256("defend", "model.json", "0" * 63 + "g"), "with sha256"),
    ("files", sha256("data", "pixels.bin"), "other bytes than in another cell"),
    ("figures", lose_metric, "`asr_all` is not both"),
    ("figures", change("trajectory", to=[]), "empty"),
    ("runs", swap_epochs, "order of runs and epochs"),
    ("runs", drop_epoch, "run 1 has the epochs `[1]`, and models of `[1, 2]`"),
    ("rates", miscount, "model 2: `triggered_top1` is"),
    ("rates", change("trajectory", 1, "scores", "asr_all", "high", to=0.2), "Wilson's"),
    ("rates", change("trajectory", 1, "scores", "asr_all", "k", to=None), "counts `None`"),
    ("lift", change("trajectory", 1, "scores", "lift", "value", to=-0.02), "and ASR less"),
    ("lift", change("trajectory", 1, "scores", "lift", "low", to=0.01), "outside of its"),
    ("counts", fewer_images, "of `63` images, not of `64`"),
    ("counts", change("data", "test", to=2048.0), "`test` has `2048` rows, not `128`"),
    ("counts", twice, "count an image twice"),
    ("poisoned", change("poison", "target", to="kite"), "target is `kite`"),
    ("poisoned", change("poison", "poisoned", to=30), "`none` submission"),
    ("poisoned", change("poison", "requested", to=300), "at rate"),
    ("selections", change("selections", "blind", to=0), "`blind` picks `0`"),
    ("selections", change("selections", "oracle", to={"0.05": 1}), "`oracle` picks"),
    ("verdict", change("verdict", "status", to="ok"), "is `attack_failed`"),
    ("poison", sha256("poison", "rows.parquet"), "version of pyarrow"),
    ("poison", sha256("poison", "poison.json"), "`poison.json` is not the track's"),
    ("twin", other_start, "another undefended model than the track's"),
    ("start", start_score, "the starting model has `triggered_top1`"),
]


@pytest.mark.parametrize(("name", "edit", "says"), CHANGES, ids=[
    f"{i}-{name}" for i, (name, _, _) in enumerate(CHANGES)
])
def test_a_change_fails_its_check_alone(
    name: str, edit: Edit, says: str, made: Made, tmp_path: Path
) -> None:
    report = made.report(tmp_path, edit)
    assert [check.name for check in report.failed] == [name], report.failed
    assert says in report.failed[0].reason


def test_another_setting_in_one_cell_is_found(made: Made, tmp_path: Path) -> None:
    """Tuned for one attack: no key fits either."""
    report = made.report(tmp_path, other_parameters)
    assert [check.name for check in report.failed] == ["method", "keys"]
    assert "`params.weight_decay` is `0.2`, and here `0.1`" in report.failed[0].reason or (
        "`params.weight_decay` is `0.1`" in report.failed[0].reason
    )


def test_other_hardware_makes_an_own_twin(made: Made, tmp_path: Path) -> None:
    report = made.report(tmp_path, sha256("pretrain", "model.safetensors"))
    assert report.failed == []
    (twin,) = (check for check in report.checks if check.name == "twin")
    assert twin.outcome == "warning"
    assert "own twin, paired comparison not possible" in twin.reason


def test_a_verdict_in_other_words_is_told(made: Made, tmp_path: Path) -> None:
    report = made.report(tmp_path, change("verdict", "reason", to="it works very well"))
    assert report.failed == []
    (found,) = (check for check in report.checks if check.name == "verdict")
    assert found.outcome == "warning"
    assert "`it works very well`" in found.reason


def test_names_are_nobody_elses(made: Made, tmp_path: Path) -> None:
    assert [c.name for c in made.report(tmp_path, name="other").failed] == ["name"]

    def rename(data: Json) -> None:
        data["name"] = "cleanclip"
        for one in data["cards"]:
            one["cell"]["defense"] = one["components"]["defense"]["name"] = "cleanclip"

    report = made.report(tmp_path, rename, "cleanclip")
    (wrong,) = (check for check in report.failed if check.name == "name")
    assert wrong.reason.endswith("is a defense of bdbench, and the cards are of `mine.py:Mine`")

    root = tmp_path / "leaderboards"
    (root / "demo" / "submissions").mkdir(parents=True)
    (root / "demo" / "track.toml").write_text(TRACK)
    made.file(root / "demo" / "submissions")
    path = made.file(tmp_path, change("/", "authors", to=["B. Author"]))
    (wrong,) = verify(path, root=root).failed
    assert (wrong.name, wrong.reason) == ("name", "the track has a defense `mine` by `A. Author`")
    assert verify(made.file(tmp_path), root=root).failed == []


def test_what_nobody_foresaw_is_a_no(made: Made, tmp_path: Path) -> None:
    report = made.report(
        tmp_path, change("components", "defense", "params", "lr", to=float("nan"))
    )
    assert "keys" in [check.name for check in report.failed]
    path = made.file(tmp_path, change("trajectory", 1, "scores", "asr_all", "k", to=777777))
    path.write_text(path.read_text().replace("777777", "7" * 5000))
    report = verify(path, root=made.root)
    assert [check.name for check in report.failed] in (["schema"], ["rates", "counts"])
    assert all(len(check.reason) < 500 for check in report.checks)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BdbenchError, match="not a plain file"):
        verify(tmp_path / "missing.json")
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with pytest.raises(BdbenchError, match="not a JSON object"):
        verify(path)
    path.write_text('{"version": 1')
    assert [check.name for check in verify(path).failed] == ["schema"]
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    assert [check.name for check in verify(path).failed] == ["size"]
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with pytest.raises(BdbenchError, match="not a plain file"):
        verify(link)


def test_hostile_text_does_not_reach_the_terminal(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "\x1b[2J\u202e\x07\r\nhint: rm -rf"
    for edit in (
        change("/", evil, to=1), change("/", "summary", to=evil), change("/", "track", to=evil),
        change("components", "objective", "params", evil, to=evil),
        change("cell", "recipe", to=evil),
        change("poison", "target", to=evil), change("verdict", "reason", to=evil),
        lambda data: stage(data, "defend")["files"].update({evil: evil}),
    ):
        words = ["verify", str(made.file(tmp_path, edit)), "--root", str(made.root)]
        monkeypatch.setattr(sys, "argv", ["bdbench", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        text = "".join(capsys.readouterr())
        assert ended.value.code in (None, 0, 3), text
        assert "  name " in text or "  schema " in text
        assert not set("\x1b\u202e\x07\r") & set(text)
        assert "\nhint: rm" not in text


def test_the_command_says_it_all(made: Made, tmp_path: Path, bdbench: Command) -> None:
    done = bdbench("verify", str(made.file(tmp_path)), "--root", str(made.root), "--json")
    assert done.returncode == 0, done.stderr
    assert {check["outcome"] for check in json.loads(done.stdout)["checks"]} <= {"yes", "warning"}
    path = made.file(tmp_path, miscount)
    done = bdbench("verify", str(path), "--root", str(made.root))
    assert done.returncode == 3
    assert "no       rates" in done.stdout
    assert done.stderr.startswith("error: 1 of 22 checks say no\n\nhint: ")
    done = bdbench("verify", str(tmp_path / "missing.json"))
    assert done.returncode == 2


def test_no_torch_and_no_code_of_others_is_imported(made: Made, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bdbench.cli.verify import verify;"
        "verify(Path(sys.argv[1]), root=Path(sys.argv[2]));"
        "print([m for m in sys.modules if m == 'torch' or 'plugin_' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made.file(tmp_path)), str(made.root)],
        capture_output=True, text=True, check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("path", sorted((GOLDEN / "cards").glob("*.json")), ids=lambda p: p.stem)
def test_old_cards_stay_parseable(path: Path) -> None:
    """The schema grows by optional fields only: what was written once is read for ever."""
    found = Card.model_validate_json(path.read_bytes())
    old = json.loads(path.read_bytes())
    assert {name: found.model_dump(mode="json")[name] for name in old}.keys() == old.keys()
    assert found.trajectory[0].scores["asr_top1"].n == OTHERS


@pytest.mark.parametrize(
    "path", sorted((GOLDEN / "submissions").glob("*.json")), ids=lambda p: p.stem
)
def test_old_submissions_stay_parseable(path: Path) -> None:
    found = Submission.model_validate_json(path.read_bytes())
    assert (found.track, found.kind, found.name) == ("demo", "defense", "mine")
    assert len(found.cards) == 1
