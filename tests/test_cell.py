"""One cell end to end on the recipe `smoke`, killed and restarted, corrupted, run twice at once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bdbench.errors import CellFailed
from bdbench.execute import NodeEvent, run
from bdbench.plan import STAGES as ALL
from bdbench.plan import cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card
from bdbench.store import Store
from tests.inline import inlined
from tests.mounts import in_namespace

CELL = {"attack": "badnet", "objective": "mmcl_ssl", "defense": "cleanclip", "recipe": "smoke"}
STAGES = ALL[1:]
"""Those of a model that is trained here."""
SCRIPT = (
    "import sys; from bdbench.execute import run;"
    f"run({CELL['attack']!r}, {CELL['objective']!r}, {CELL['defense']!r},"
    f" recipe={CELL['recipe']!r}, store=sys.argv[1])"
)


def keys() -> dict[str, list[str]]:
    registry = Registry()
    wanted = cells(registry, recipe="smoke", attacks=["badnet"], objectives=["mmcl_ssl"],
                   defenses=["cleanclip"], seeds=[0])
    found: dict[str, list[str]] = {}
    for key, node in plan(registry, wanted).nodes.items():
        found.setdefault(node.stage, []).append(key)
    return found


def rerun(store: Path) -> tuple[Card, list[NodeEvent]]:
    events: list[NodeEvent] = []
    card = run(**CELL, store=store, listen=events.append)  # type: ignore[arg-type]
    return card, events


def test_the_card_holds_the_whole_trajectory(smoke_card: Card) -> None:
    recipe = Registry().recipe("smoke")
    rates = recipe.defenses["cleanclip"].sweep["lr"]
    epochs = smoke_card.components["defense"].params["epochs"]
    assert len(smoke_card.trajectory) == 1 + len(rates) * epochs
    start, *rest = smoke_card.trajectory
    assert (start.step, start.sweep) == (0, {})
    assert [(p.sweep["lr"], p.step) for p in rest] == [
        (lr, step) for lr in rates for step in range(1, epochs + 1)
    ]


def test_scores_equal_a_hand_count_of_the_predictions(
    smoke_card: Card, shared_store: Path
) -> None:
    """Counted here with nothing but numpy comparisons on the stored predictions."""
    store = Store(shared_store)
    card = store.open("card", keys()["card"][0])
    frame = pd.read_parquet(
        store.open("evaluate", card.manifest.inputs["start"]).file("predictions.parquet")
    )
    classes = json.loads(
        store.open("data", card.manifest.inputs["data"]).file("data.json").read_text()
    )["classes"]
    target = classes.index("banana")
    test = frame[frame["set"] == "test"]
    label, clean, stamped = (test[c].to_numpy() for c in ("label", "clean1", "triggered1"))
    others = label != target
    scores = smoke_card.trajectory[0].scores
    assert scores["clean_top1"].k == int(np.sum(clean == label))
    assert scores["clean_top1"].n == len(label)
    assert scores["asr_top1"].k == int(np.sum((stamped == target) & others))
    assert scores["asr_top1"].n == int(np.sum(others))
    assert scores["asr_all"].k == int(np.sum(stamped == target))
    assert scores["base_rate"].k == int(np.sum((clean == target) & others))
    assert scores["triggered_top1"].k == int(np.sum(stamped == label))
    lift = scores["asr_top1"].value - scores["base_rate"].value
    assert scores["lift"].value == pytest.approx(lift, abs=1e-12)


def test_a_second_run_reuses_every_stage(smoke_card: Card, shared_store: Path) -> None:
    card, events = rerun(shared_store)
    assert card == smoke_card
    assert {event.kind for event in events} == {"reused"}
    assert {event.node.stage for event in events} == set(STAGES)


def test_a_fresh_store_and_a_single_process_give_the_same_card(
    smoke_card: Card, tmp_path: Path
) -> None:
    with inlined():
        card, _ = rerun(tmp_path)
    assert card.without_times() == smoke_card.without_times()


def test_any_seed_changes_the_figures(smoke_card: Card, shared_store: Path) -> None:
    with inlined():
        other = run("badnet", "mmcl_ssl", "none", recipe="smoke", seed=1, store=shared_store)
    assert other.trajectory[0].scores != smoke_card.trajectory[0].scores


def under_way(store: Path, stage: str, wanted: list[str]) -> list[str]:
    """The keys a process is at: it holds their lock and has not published what it works on."""
    return [
        key for key in wanted
        if (store / "work" / key).is_dir() and not (store / "objects" / stage / key).exists()
        and held(store / "locks" / f"{key}.lock")
    ]


def held(lock: Path) -> bool:
    try:
        with lock.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def kill_during(store: Path, stage: str, wanted: list[str], delay: float) -> bool:
    """Start the run, kill it `delay` seconds into a node of `stage`; whether that was cut short."""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(store)],
                               start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        while not (cut := under_way(store, stage, wanted)) and process.poll() is None:
            time.sleep(0.003)
        time.sleep(delay)
        cut = under_way(store, stage, wanted) or cut
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while any(held(store / "locks" / f"{key}.lock") for key in wanted):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.01)
    return any(not (store / "objects" / stage / key).exists() for key in cut)


@pytest.mark.parametrize("stage", [
    stage if stage == "card" else pytest.param(stage, marks=pytest.mark.heavy)
    for stage in STAGES
])
def test_killed_at_random_moments_of_a_stage_it_ends_in_the_same_card(
    stage: str, smoke_card: Card, shared_store: Path, tmp_path: Path
) -> None:
    """Everything up to `stage` is copied, then the run is killed three times within the stage.

    Where it was published before the kill came, it is taken away and the kill tried again.
    """
    found = keys()
    for name in STAGES[: STAGES.index(stage)]:  # type: ignore[arg-type]
        for key in found[name]:
            shutil.copytree(shared_store / "objects" / name / key,
                            tmp_path / "objects" / name / key)
    took = [Store(shared_store).open(stage, key).manifest.seconds for key in found[stage]]
    rng, hits = random.Random(stage), 0
    for _ in range(6):
        if kill_during(tmp_path, stage, found[stage], rng.uniform(0, 0.8 * min(took))):
            hits += 1
        else:
            for key in found[stage]:
                shutil.rmtree(tmp_path / "objects" / stage / key, ignore_errors=True)
        if hits == 3:
            break
    assert hits >= (1 if stage in ("poison", "card") else 3)
    card, _ = rerun(tmp_path)
    assert card.without_times() == smoke_card.without_times()


def test_killed_workers_go_with_their_parent(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)],
                               stderr=subprocess.DEVNULL)
    time.sleep(3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not list child processes in /proc")
    pids = [int(pid) for pid in children.read_text().split()]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(_alive(pid) for pid in pids):
        time.sleep(0.1)
    assert pids
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_training_resumes_at_the_last_epoch(
    smoke_card: Card, shared_store: Path, tmp_path: Path
) -> None:
    """Stopped after its first epoch, the second run computes only the rest."""
    from bdbench.api import Objective
    from bdbench.augment import image_views  # noqa: F401
    from bdbench.clip import Clip
    from bdbench.data import DataCache
    from bdbench.train import fit

    recipe = Registry().recipe("smoke")
    objective = Registry().build("objective", smoke_card.components["objective"].identity())
    assert isinstance(objective, Objective)
    data = DataCache(next((shared_store / "objects" / "data").iterdir()))
    pairs = data.pairs("budget")

    def train(state: Path, stop_after: int | None) -> tuple[dict[str, object], int]:
        clip = Clip.build(recipe.model, pairs.captions, 3)
        ran: list[int] = []

        def after(epoch: int) -> None:
            ran.append(epoch)
            if len(ran) - 1 == stop_after:
                raise InterruptedError

        training = recipe.pretrain.model_copy(update={"epochs": 3})
        with contextlib.suppress(InterruptedError):
            fit(clip, objective, pairs, training, recipe.augment, seed=5, state=state,
                after_epoch=after)
        return dict(clip.state()), len(ran)

    whole, epochs = train(tmp_path / "a", None)
    assert epochs == 3
    train(tmp_path / "b", 1)
    resumed, epochs = train(tmp_path / "b", None)
    assert epochs == 2
    assert all((whole[name] == resumed[name]).all() for name in whole)  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", STAGES)
def test_a_corrupt_artifact_is_named_and_computed_again(
    stage: str, smoke_card: Card, shared_store: Path, tmp_path: Path
) -> None:
    shutil.copytree(shared_store, tmp_path / "s")
    key = keys()[stage][-1]
    folder = tmp_path / "s" / "objects" / stage / key
    victim = next(p for p in sorted(folder.iterdir()) if p.name != "manifest.json")
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    card, events = rerun(tmp_path / "s")
    notes = [event.data["text"] for event in events if event.kind == "note"]
    assert len(notes) == 1
    assert f"`{stage}/{key}` is corrupt" in notes[0]
    assert victim.name in notes[0]
    assert [event.node.key for event in events if event.kind == "done"] == [key]
    assert card.without_times() == smoke_card.without_times()


@pytest.mark.parametrize("cores", [1, pytest.param(4, marks=pytest.mark.heavy)])
def test_results_do_not_depend_on_how_many_run_at_once(
    cores: int, smoke_card: Card, shared_store: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = keys()
    for stage in ("data", "poison", "pretrain"):
        for key in found[stage]:
            source = shared_store / "objects" / stage / key
            shutil.copytree(source, tmp_path / "objects" / stage / key)
    monkeypatch.setattr("bdbench.execute.here.cores", lambda: cores)
    card, events = rerun(tmp_path)
    assert card.without_times() == smoke_card.without_times()
    at_once = most = 0
    for event in events:
        at_once += {"started": 1, "done": -1}.get(event.kind, 0)
        most = max(most, at_once)
    assert most == min(cores, 3)  # the start's evaluation beside the two points of the sweep


@pytest.mark.heavy
def test_two_threads_give_the_same_card_twice(tmp_path: Path) -> None:
    one, two = (
        run(**CELL | {"defense": "none"}, store=tmp_path / name,  # type: ignore[arg-type]
            overrides={"recipe": {"threads": {"pretrain": 2}}})
        for name in "ab"
    )
    assert one.recipe.threads.pretrain == 2
    assert one.without_times() == two.without_times()


def test_a_plugin_that_raises_fails_its_cell_and_keeps_the_rest(tmp_path: Path) -> None:
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from bdbench import register\nfrom bdbench.api import Repair\n\n"
        '@register("bad")\nclass Bad(Repair):\n'
        '    def repair(self, clip, budget):\n        raise RuntimeError("no luck")\n'
    )
    with pytest.raises(CellFailed) as caught:
        run("badnet", "mmcl", "bad", recipe="smoke", plugins=[plugin], store=tmp_path / "s")
    assert "defend `badnet / mmcl / bad` failed: RuntimeError: no luck" in caught.value.message
    log = Path(caught.value.hint.split("`")[1])
    assert "bad.py" in log.read_text()
    stages = {a.manifest.stage for a in Store(tmp_path / "s").artifacts()}
    assert {"data", "poison", "pretrain"} <= stages


@pytest.mark.heavy
def test_a_full_disk_is_explained_and_the_run_completes_once_there_is_space(
    smoke_card: Card, shared_store: Path, tmp_path: Path
) -> None:
    """On a real disk of 1 MB the data do not fit, on one of 4 MB the training state does not."""
    found = keys()
    run_it = f"bdbench run {' '.join(f'--{name} {value}' for name, value in CELL.items())}"
    script = f"""
        mount -t tmpfs -o size=1m tmpfs "$BDBENCH_HOME" || exit 99
        {run_it} 2> "$OUT/1"; echo "status $?"
        mount -o remount,size=4m "$BDBENCH_HOME" || exit 99
        for stage in data poison; do
            mkdir -p "$BDBENCH_HOME/objects/$stage" || exit 98
        done
        cd "$SHARED/objects" || exit 98
        cp -r data/{found["data"][0]} "$BDBENCH_HOME/objects/data" || exit 98
        cp -r poison/{found["poison"][0]} "$BDBENCH_HOME/objects/poison" || exit 98
        {run_it} 2> "$OUT/4"; echo "status $?"
        mount -o remount,size=64m "$BDBENCH_HOME" || exit 99
        {run_it} --json 2> "$OUT/64" > "$OUT/cards.json"; echo "status $?"
        ls "$BDBENCH_HOME"
    """
    home = tmp_path / "home"
    home.mkdir()
    done = in_namespace(script, home=home, OUT=str(tmp_path), SHARED=str(shared_store))
    told = [word for word in done.stdout.split() if word != "checked"]  # after two seconds
    assert told == ["status", "2", "status", "2", "status", "0", "locks", "objects", "work"]
    for size, failed in ((1, "data `shapes`"), (4, "pretrain `badnet / mmcl_ssl`")):
        assert (tmp_path / str(size)).read_text().endswith(
            f"error: {failed} failed: the store `{home}` is full\n\n"
            "hint: free space there or point BDBENCH_HOME at another disk; `bdbench store gc`"
            " deletes what no card needs, unfinished work too\n")
    talk = (tmp_path / "64").read_text()
    assert talk.count("reused") == 2  # what was finished is intact
    assert "corrupt" not in talk
    (only,) = json.loads((tmp_path / "cards.json").read_text())
    card = Card.model_validate_json(json.dumps(only["card"]))
    assert card.without_times() == smoke_card.without_times()
