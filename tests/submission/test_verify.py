"""A sound submission passes; one change fails exactly the check that is for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bdbench.cli.main import main
from bdbench.errors import BdbenchError
from bdbench.leaderboard.folder import LARGEST
from bdbench.verify import verify
from bdbench.verify.figures import REQUIRED
from tests.submission.conftest import TRACK, Edit, Json, Made, card, count, pick, said, stage

SHA = "0" * 64

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_sound_submission_passes(made: Made, tmp_path: Path) -> None:
    report = made.report(tmp_path)
    assert [check.name for check in report.checks] == [
        "size", "schema", "track", "cells", "name", "recipe", "components", "files", "code",
        "figures", "method", "keys", "runs", "rates", "lift", "counts", "poisoned", "selections",
        "verdict", "reference", "data", "poison", "twin", "start",
    ]
    assert {check.name: check.reason for check in report.checks if check.outcome == "no"} == {}
    assert {check.name for check in report.checks if check.outcome == "warning"} <= {"code"}
    reasons = {check.name: check.reason for check in report.checks}
    assert {reasons[name] for name in ("data", "poison", "twin", "start")} == {"2 cells"}


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


def other_start(name: str, k: int) -> Edit:
    """An own twin, with another figure of its undefended model."""
    def edit(data: Json) -> None:
        sha256("pretrain", "model.safetensors")(data)
        point = card(data)["trajectory"][0]
        count(point, name, k)
        count(point, "asr_top1", point["scores"]["asr_top1"]["k"])
        pick(data)

    return edit


def counted(**k: int) -> Edit:
    """A model with other counts; ASR as given, as its lift follows from it."""
    def edit(data: Json) -> None:
        for name, hits in sorted(k.items(), reverse=True):
            count(card(data)["trajectory"][2], name, hits)
        pick(data)

    return edit


def leave_on_target_out(data: Json) -> None:
    counted(asr_top1=5, triggered_top1=2)(data)
    count(card(data)["trajectory"][2], "asr_all", 8)


def without(name: str) -> Edit:
    """A card that never had a metric."""
    def edit(data: Json) -> None:
        one = card(data)
        one["metrics"] = [metric for metric in one["metrics"] if metric["name"] != name]
        for point in one["trajectory"]:
            del point["scores"][name]

    return edit


def other_data(data: Json) -> None:
    for attack in ("none", "badnet"):
        stage(data, "data", attack=attack)["files"]["pixels.bin"] = SHA


def more_poison(data: Json) -> None:
    card(data)["components"]["attack"]["params"]["rate"] = 0.5
    card(data)["poison"] |= {"requested": 256, "poisoned": 256}


def fields(n: int) -> Edit:
    """Two runs that differ in n swept fields: a product of 2 ** n runs."""
    def edit(data: Json) -> None:
        for one in data["cards"]:
            for point in one["trajectory"][1:]:
                point["sweep"] = {f"field{i}": float(point["order"]) for i in range(n)}

    return edit


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
    ("figures", lose_metric, "`asr_all` is not both"),
    *[("figures", without(name), f"it has no `{name}`") for name in REQUIRED if name != "lift"],
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
    ("counts", counted(triggered_top1=120, asr_top1=30), "`triggered_top1` count an image twice"),
    ("counts", counted(clean_top5=100, clean_top1=100, base_rate=30, asr_top1=3),
     "`base_rate` and `clean_top1` count an image twice"),
    ("counts", leave_on_target_out, "`triggered_top1` leaves images of the target out"),
    ("poisoned", change("poison", "target", to="kite"), "target is `kite`"),
    ("poisoned", change("poison", "poisoned", to=30), "the counts are not those"),
    ("poisoned", change("poison", "requested", to=300), "are asked for, at rate"),
    ("selections", change("selections", "blind", to=0), "`blind` picks `0`"),
    ("selections", change("selections", "oracle", to={"0.05": 1}), "`oracle` picks"),
    ("verdict", change("verdict", "status", to="ok"), "is `attack_failed`"),
    ("poison", sha256("poison", "rows.parquet"), "version of pyarrow"),
    ("poison", sha256("poison", "poison.json"), "`poison.json` is not the reference's"),
    ("data", other_data, "`pixels.bin` is not the reference's"),
    ("twin", other_start("asr_top1", 40), "intervals of its `asr_all` do not meet"),
    ("twin", other_start("base_rate", 60), "intervals of its `base_rate` do not meet"),
    ("twin", other_start("validation", 60), "intervals of its `validation` do not meet"),
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


def test_other_bytes_in_one_cell_are_found(made: Made, tmp_path: Path) -> None:
    report = made.report(tmp_path, sha256("data", "pixels.bin"))
    assert [check.name for check in report.failed] == ["files", "data"]
    assert "other bytes than in another cell" in report.failed[0].reason


def test_an_attack_has_a_poison_budget(made: Made, tmp_path: Path) -> None:
    outcome, reason = said(made.report(tmp_path, more_poison), "poisoned")
    assert outcome == "no"
    assert "`256` pairs are to be poisoned, and the track allows `31`, at rate `0.06`" in reason


def test_a_sweep_without_end_is_not_enumerated(made: Made, tmp_path: Path) -> None:
    report = made.report(tmp_path, fields(64))
    for name in ("keys", "runs"):
        outcome, reason = said(report, name)
        assert outcome == "no"
        assert "2 runs, and all combinations of the swept parameters `field0, " in reason


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
    shutil.copytree(made.root, root)
    placed = made.file(root / "demo" / "submissions")
    path = made.file(tmp_path, change("/", "authors", to=["B. Author"]))
    (wrong,) = verify(path, root=root).failed
    assert (wrong.name, wrong.reason) == ("name", "the track has a defense `mine` by `A. Author`")
    assert said(verify(made.file(tmp_path), root=root), "name") == (
        "yes", "it replaces the submission `mine` of the same authors"
    )
    assert said(verify(placed, root=root), "name") == (
        "yes", f"it is in place already: `git log -p {placed}` tells whose it was before"
    )


def test_a_track_whose_recipe_is_not_here_yet(made: Made, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    text = TRACK.replace('"smoke"', '"future"')
    (tmp_path / "demo" / "track.toml").write_text(text)
    report = verify(made.file(tmp_path), root=tmp_path)
    assert said(report, "track") == ("no", (
        "this version of bdbench cannot run the track `demo` yet: it has no recipe `future`."
        " pip install --upgrade bdbench"
    ))


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
    with pytest.raises(BdbenchError, match="does not exist"):
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
    assert done.stderr.startswith("error: 1 of 24 checks say no\n\nhint: ")
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
