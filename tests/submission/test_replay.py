"""Parts of a submission run again: sound ones agree, changed ones are found."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bdbench.errors import BdbenchError, CheckFailed
from bdbench.hashing import canonical_json, file_digest
from bdbench.leaderboard.folder import load
from bdbench.plan import Plan, plan
from bdbench.registry import Registry
from bdbench.replay import HeldOut, badge, draw, held_out, replay, reproduce
from bdbench.schema import Card
from bdbench.store import Store
from bdbench.submit import submit
from bdbench.worker import run_node
from tests.submission.conftest import Json, Made, card, count, pick, stage

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def inline(todo: Plan, store: Store, plugins: Sequence[Path]) -> None:
    """Run a plan in this process, which has torch already; the command is tested with its own."""
    import torch

    threads, registry = torch.get_num_threads(), Registry(plugins)
    store.prepare()
    for node in todo.nodes.values():
        run_node(store, registry, todo.job(node), lambda event: None)
    torch.set_num_threads(threads)


def said(done) -> dict[str, str]:
    return {check.name: check.outcome for check in done.checks}


def test_a_sound_submission_gives_itself(made: Made, tmp_path: Path) -> None:
    done = replay(made.case(tmp_path), 2, 0, Store(made.store), (), inline)
    assert said(done) == {"score": "yes", "evaluate": "yes"}
    assert (done.level, len(done.cards), done.largest) == ("replayed", 2, 0.0)
    assert (done.seed, done.identical) == (0, True)
    assert done.checks[1].reason.startswith("0 of ")
    assert len(Store(made.store).artifacts()) == len(list((made.store / "objects").glob("*/*")))


def test_the_seed_says_what_is_drawn(made: Made, tmp_path: Path) -> None:
    case, store, plans = made.case(tmp_path), Store(made.store), []

    def stop(todo, place, plugins) -> None:
        plans.append(list(todo.cards or todo.nodes))
        raise BdbenchError("enough")

    for seed in (1, 1, 2, 3, 4, 5):
        with pytest.raises(BdbenchError, match="enough"):
            replay(case, 1, seed, store, (), stop)
    assert plans[0] == plans[1]
    assert len({str(found) for found in plans}) == 2
    assert draw(7) == 7
    assert draw(None) != draw(None)


def test_a_changed_score_is_found(made: Made, tmp_path: Path) -> None:
    """Consistent in itself, so that only the predictions know better."""
    def better(data: Json) -> None:
        point = card(data)["trajectory"][3]
        count(point, "triggered_top1", point["scores"]["triggered_top1"]["k"] + 3)

    done = replay(made.case(tmp_path, better), 2, 0, Store(made.store), (), inline)
    assert said(done) == {"score": "no", "evaluate": "yes"}
    assert "`badnet / mmcl / mine / seed 0`, model 3: `triggered_top1` is" in done.checks[0].reason
    assert done.largest == pytest.approx(3 / 128)


def test_a_changed_prediction_is_found(made: Made, tmp_path: Path) -> None:
    """The cheat changes the answers and makes the card from them with bdbench itself."""
    home = tmp_path / "home"
    shutil.copytree(made.store, home)
    store = Store(home)
    key = stage(json.loads(made.data), "evaluate", 2)["key"]
    folder = store.open("evaluate", key).path
    frame = pd.read_parquet(folder / "predictions.parquet")
    frame.loc[(frame["set"] == "test") & (frame.index % 3 == 0), "clean1"] = frame["label"]
    frame.to_parquet(folder / "predictions.parquet", index=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["predictions.parquet"] = file_digest(folder / "predictions.parquet")
    (folder / "manifest.json").write_text(canonical_json(manifest))
    shutil.rmtree(home / "objects" / "card")
    registry = Registry([made.plugin])
    track = load("demo", made.root).track
    inline(plan(registry, track.cells("defense", "mine")), Store(home), [made.plugin])
    out = tmp_path / "mine.json"
    done = submit("mine", "demo", authors=["A. Author"], plugins=[made.plugin], store=Store(home),
                  root=made.root, out=out)
    assert done.report.case
    # Of the checks that read the file alone, only the one on top-5 can have noticed.
    assert {check.name for check in done.report.failed} <= {"counts"}
    found = replay(done.report.case, 2, 0, Store(home), (), inline)
    assert said(found) == {"score": "yes", "evaluate": "no"}
    assert found.largest > 0.1


def test_what_is_missing_is_said_with_the_command_that_makes_it(
    made: Made, tmp_path: Path
) -> None:
    with pytest.raises(BdbenchError) as error:
        replay(made.case(tmp_path), 1, 0, Store(tmp_path / "empty"), [made.plugin])
    assert "is not in the store" in error.value.message
    assert error.value.hint.startswith(
        f"bdbench run --track demo --defense mine --plugin {made.plugin} makes what is missing"
    )

    def other(data: Json) -> None:
        for attack in ("none", "badnet"):
            files = stage(data, "defend", 0, attack)["files"]
            files["step-0001.safetensors"] = "0" * 64

    with pytest.raises(BdbenchError, match=r"step-0001.safetensors` is another file than the card"):
        replay(made.case(tmp_path, other), 1, 0, Store(made.store), (), inline)


def test_a_sound_defense_makes_the_same_models(made: Made, tmp_path: Path) -> None:
    """The undefended models are enough: what the defense made is not looked at."""
    home = tmp_path / "home"
    for name in ("data", "poison", "pretrain"):
        shutil.copytree(made.store / "objects" / name, home / "objects" / name)
    case = made.case(tmp_path)
    done = reproduce(case, 1, 3, Store(home), [made.plugin], inline)
    assert said(done) == {"bytes": "yes", "reproduce": "yes", "selections": "yes"}
    assert (done.level, len(done.cards), done.largest) == ("reproduced", 1, 0.0)
    assert done.identical
    assert done.checks[0].reason == "4 models that it changed"
    assert not (home / "objects" / "defend").exists()


@pytest.mark.parametrize(("runs", "outcome"), [((1,), "no"), ((0, 1), "warning")])
def test_a_wrong_model_hash_is_found(
    runs: tuple[int, ...], outcome: str, made: Made, tmp_path: Path
) -> None:
    """Where one model has its hash the machine is alike, so all must; where none has, it is not."""
    def wrong(data: Json) -> None:
        data["cards"] = [card(data, "none"), card(data)]
        for attack in ("none", "badnet"):
            for i in runs:
                files = stage(data, "defend", i, attack)["files"]
                for file in files:
                    if file.startswith("step-"):
                        files[file] = "0" * 64

    done = reproduce(made.case(tmp_path, wrong), 4, 0, Store(made.store), [made.plugin], inline)
    assert said(done) == {"bytes": outcome, "reproduce": "yes", "selections": "yes"}
    assert not done.identical


def test_a_defense_that_does_not_do_it_again_is_found(made: Made, tmp_path: Path) -> None:
    """Whether the rules would pick the better model anyway is chance: rounding decides it."""
    picks = []

    def better(data: Json) -> None:
        picks.append(dict(card(data)["selections"]))
        count(card(data)["trajectory"][-1], "clean_top5", 110)
        count(card(data)["trajectory"][-1], "clean_top1", 100)
        pick(data)
        picks.append(dict(card(data)["selections"]))

    done = reproduce(made.case(tmp_path, better), 4, 0, Store(made.store), [made.plugin], inline)
    selections = "yes" if picks[0] == picks[1] else "warning"
    assert said(done) == {"bytes": "yes", "reproduce": "no", "selections": selections}
    assert "`clean_top1` is `0.781`, and found `0.0" in done.checks[1].reason


@pytest.mark.parametrize(("change", "says"), [
    (("Fine-tuning under", "Other code under"), "and this is `mine.py:Mine`, sha256"),
    (None, "add `--plugin FILE`"),
])
def test_only_the_very_file_is_run(
    change: tuple[str, str] | None, says: str, made: Made, tmp_path: Path
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(made.plugin.read_text().replace(*change or ("", "")))
    with pytest.raises(BdbenchError) as error:
        reproduce(made.case(tmp_path), 1, 0, Store(made.store), [plugin] if change else [])
    assert says in str(error.value)


def test_a_sweep_that_the_file_does_not_declare_is_found(made: Made, tmp_path: Path) -> None:
    """`--set defense.sweep.lr` leaves no other trace: the keys fit what was run."""
    case = made.case(tmp_path)
    one = case.cards[0].model_copy(update={"trajectory": case.cards[0].trajectory[:3]})
    short = case.submission.model_copy(update={"cards": (one,)})
    with pytest.raises(BdbenchError, match=r"or another sweep, than `mine\.py:Mine` has"):
        reproduce(replace(case, submission=short), 1, 0, Store(made.store), [made.plugin])


def test_a_badge_holds_until_the_file_is_edited(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "leaderboards"
    shutil.copytree(made.root, root)
    path = root / "demo" / "submissions" / "mine.json"
    path.write_bytes(made.data)
    from bdbench.verify import verify

    case = verify(path, root=root).case
    assert case
    done = replay(case, 1, 0, Store(made.store), (), inline)
    out = badge(case, done, "M. Maintainer")
    assert out == root / "demo" / "verified" / "mine.json"
    levels = {e.submission.name: e.level for e in load("demo", root).entries}
    assert levels == {"mine": "replayed 1/2", "none": "claimed"}
    kept = out.read_text()
    out.write_text(kept.replace('"cells": 1', '"cells": 3'))
    with pytest.raises(BdbenchError, match=r"is for `3` cells, and it has `2`"):
        load("demo", root)
    out.write_text(kept.replace('"largest_difference": 0.0', '"largest_difference": 0.02'))
    with pytest.raises(BdbenchError, match=r"0\.02 is more than the 0 of an identical result"):
        load("demo", root)
    out.write_text(kept)
    path.write_bytes(made.data.replace(b"A. Author", b"B. Author"))
    assert {e.level for e in load("demo", root).entries} == {"claimed"}
    with pytest.raises(BdbenchError, match="not the track's file"):
        badge(case, done, "M. Maintainer")
    with pytest.raises(BdbenchError, match=r"badge\.by"):
        badge(case, done, "two\nlines", tmp_path / "x.json")


def test_held_out_cells_have_another_seed_and_target(made: Made, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (one,) = held_out(made.case(tmp_path), 1, 11, Store(home), [made.plugin], inline)
    assert one.target == one.card.poison.target != "banana"
    assert one.card.cell.seed == one.none.cell.seed != 0
    assert (one.card.cell.attack, one.card.cell.defense) == ("badnet", "mine")
    assert (one.none.cell.defense, len(one.submitted)) == ("none", 1)
    assert one.none.trajectory[0] == one.card.trajectory[0]
    assert one.bound is None
    assert one.check.outcome == "warning"


def with_asr(one: Card, asr: float) -> Card:
    """The card with another ASR of the blind selection."""
    at = one.selections.blind
    score = one.trajectory[at].scores["asr_top1"].model_copy(update={"value": asr})
    point = one.trajectory[at]
    point = point.model_copy(update={"scores": {**point.scores, "asr_top1": score}})
    points = (*one.trajectory[:at], point, *one.trajectory[at + 1 :])
    return one.model_copy(update={"trajectory": points})


def test_held_out_figures_may_not_exceed_what_the_seeds_foretell(
    made: Made, tmp_path: Path
) -> None:
    """By hand: mean 0.1, s 0.1, t(0.95, 2) = 2.920, so 0.1 + 2.920 * 0.1 * sqrt(4 / 3) = 0.4372."""
    ok = made.case(tmp_path).cards[1]
    worked = ok.model_copy(
        update={"verdict": ok.verdict.model_copy(update={"status": "ok", "reason": "as told"})}
    )
    failed = ok.model_copy(
        update={"verdict": ok.verdict.model_copy(update={"status": "attack_failed"})}
    )
    seeds = tuple(with_asr(worked, asr) for asr in (0.0, 0.1, 0.2))
    one = HeldOut("kite", worked, with_asr(worked, 0.43), (*seeds, with_asr(failed, 0.9)))
    assert one.bound == pytest.approx(0.4372, abs=1e-4)
    assert one.check.outcome == "yes"
    assert replace(one, card=with_asr(worked, 0.44)).check.outcome == "no"
    assert "ASR `0.440`, and at most `0.437` is foretold" in (
        replace(one, card=with_asr(worked, 0.44)).check.reason
    )
    alike = replace(one, submitted=(with_asr(worked, 0.0),) * 3)
    assert alike.bound == pytest.approx(0.0337, abs=1e-4)
    nothing = replace(one, none=failed).check
    assert nothing.outcome == "warning"
    assert "the undefended attack failed" in nothing.reason


@pytest.mark.heavy
def test_the_command_replays_and_signs(made: Made, tmp_path: Path, bdbench: Command) -> None:
    out = tmp_path / "badge.json"
    path = made.file(tmp_path)
    words = ["verify", str(path), "--root", str(made.root), "--seed", "4"]
    done = bdbench(*words, "--replay", "1", "--badge", "M. Maintainer", "--out", str(out),
                   home=made.store)
    assert done.returncode == 0, done.stderr
    assert "drawn with --seed 4" in done.stderr
    assert "yes      evaluate" in done.stdout
    found = json.loads(out.read_text())
    assert found["submission_sha256"] == file_digest(path)
    assert (found["level"], found["cells"], found["by"]) == ("replayed", 1, "M. Maintainer")
    assert (found["seed"], found["identical"]) == (4, True)
    done = bdbench(*words, "--badge", "M. Maintainer")
    assert done.returncode == 2
    assert "hint: add `--replay 1`" in done.stderr
    done = bdbench(*words, "--replay", "1", "--plugin", "mine.py")
    assert done.returncode == 2
    assert "hint: bdbench run --track demo --defense mine --plugin mine.py" in done.stderr


def test_the_command_shows_held_out_figures(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The cells are replaced by submitted ones: how they run is tested above."""
    from bdbench.cli import verify as command

    case = made.case(tmp_path)
    verdict = case.cards[1].verdict.model_copy(update={"status": "ok"})
    worked = case.cards[1].model_copy(update={"verdict": verdict})
    shown = HeldOut("kite", worked, worked, (with_asr(worked, 0.0), with_asr(worked, 0.1)))
    monkeypatch.setattr(command, "held_out", lambda *words: [shown])
    command.verify(case.path, held_out_=1, root=made.root, seed=5)
    text = capsys.readouterr().out
    assert "held out: badnet / mmcl / mine / seed 0, target kite" in text
    assert "submitted, seed 0" in text
    assert "yes      held-out    a fresh seed and target leave no more ASR than" in text
    command.verify(case.path, held_out_=1, root=made.root, seed=5, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["held_out"][0]["check"]["outcome"] == "yes"
    assert found["seed"] == 5
    more = with_asr(worked, 0.99)
    monkeypatch.setattr(command, "held_out", lambda *words: [replace(shown, card=more)])
    with pytest.raises(CheckFailed) as error:
        command.verify(case.path, held_out_=1, root=made.root, seed=5)
    assert f"`bdbench verify {case.path} --held-out 3` draws other seeds" in error.value.hint
