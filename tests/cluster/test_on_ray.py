"""A real cluster of Ray on this machine: two nodes of one core, one of which is killed at work."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdbench.errors import BdbenchError
from bdbench.execute import execute
from bdbench.execute.on_ray import OnRay
from bdbench.execute.pool import Work
from bdbench.plan import Node, Plan
from bdbench.store import Store
from tests.cluster.conftest import Watched, cards, matrix, parent, workers

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed: pip install 'bdbench[ray]'",
)
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def cluster() -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        pid = parent(pid)


@needs_ray
@pytest.mark.heavy
def test_a_killed_node_is_made_up_for_by_the_other(
    cluster: Any, alone: list[Any], tmp_path: Path
) -> None:
    store, todo = Store(tmp_path), matrix()
    orphans: list[int] = []

    def kill() -> None:
        for node in list(cluster.worker_nodes):
            raylet = node.all_processes["raylet"][0].process.pid
            orphans.extend(worker for worker in workers() if raylet in ancestors(worker))
            if orphans:
                cluster.remove_node(node, allow_graceful=False)
                return
        raise AssertionError("no node has a worker")

    watched = Watched(kill)
    execute(todo, store, listen=watched, on="ray")
    assert watched.cut is None
    assert len(cluster.worker_nodes) == 1
    (note,) = watched.notes
    assert note.startswith("pretrain badnet / mmcl was lost on Ray (")
    assert note.endswith("; it is queued again")
    assert watched.resumed()
    assert cards(todo, store) == alone
    ends = [event.node.key for event in watched.events if event.kind == "done"]
    assert sorted(ends) == sorted(todo.nodes)
    assert not (tmp_path / "jobs").exists()
    deadline = time.monotonic() + 60
    while set(orphans) & set(workers()):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.1)


@needs_ray
@pytest.mark.heavy
def test_a_machine_that_does_not_see_the_store(cluster: Any, tmp_path: Path) -> None:
    import ray

    todo = matrix()
    work = Work(todo, todo.nodes, Store(tmp_path))
    place = OnRay(work)
    name = place.submit(next(iter(todo.nodes.values())), tmp_path / "not" / "there")
    ray.wait([place._tasks[name]], timeout=120)
    with pytest.raises(BdbenchError, match="does not see the store") as caught:
        place.look([name])
    assert caught.value.hint == (
        "set BDBENCH_HOME to a folder that every machine of the cluster shares")


@needs_ray
@pytest.mark.heavy
def test_more_gpus_than_a_machine_has(cluster: Any, tmp_path: Path) -> None:
    todo = Plan()
    todo.add(Node("pretrain", "badnet / mmcl", {}, {}, gpus=2))
    with pytest.raises(BdbenchError) as caught:
        OnRay(Work(todo, todo.nodes, Store(tmp_path)))
    assert str(caught.value) == (
        "the recipe asks for `2` GPUs on one machine, and Ray's largest has `0`\n\n"
        "hint: `ray status` shows what there is")


@needs_ray
@pytest.mark.heavy
def test_the_command_starts_a_cluster_of_its_own_and_is_quiet(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from bdbench.cli.main import main; main()", "run",
         "--recipe", "smoke", "--attack", "none", "--objective", "mmcl", "--defense", "none",
         "--on", "ray"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "BDBENCH_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    assert "card: " in done.stdout
    assert all(line.startswith("[") for line in done.stderr.splitlines()), done.stderr


@needs_ray
@pytest.mark.heavy
def test_it_ends_at_sigterm_as_at_ctrl_c(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", "from bdbench.cli.main import main; main()", "run",
         "--recipe", "smoke", "--attack", "none", "--objective", "mmcl", "--defense", "none",
         "--set", "recipe.pretrain.epochs=500", "--on", "ray"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "BDBENCH_HOME": str(tmp_path / "home")},
    )
    try:
        deadline = time.monotonic() + 200
        while not any((tmp_path / "home" / "work").glob("*/resume/*.safetensors")):
            assert time.monotonic() < deadline
            assert run.poll() is None, run.communicate()
            time.sleep(0.1)
        ours = {worker for worker in workers() if run.pid in ancestors(worker)}
        assert ours
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=100)
        assert run.returncode == 130, said
        assert said.endswith("interrupted\n\nhint: the same command continues\n")
        deadline = time.monotonic() + 60
        while ours & set(workers()):
            assert time.monotonic() < deadline, "a worker outlived its run"
            time.sleep(0.2)
    finally:
        run.kill()


@needs_ray
def test_an_address_where_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(BdbenchError) as caught:
        execute(matrix(), Store(tmp_path), on="ray")
    assert str(caught.value) == (
        "nothing answers at `127.0.0.1:1`, where RAY_ADDRESS says that Ray is\n\n"
        "hint: `unset RAY_ADDRESS` to have a Ray started on this machine")


def test_without_ray_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BdbenchError) as caught:
        execute(matrix(), Store(tmp_path), on="ray")
    assert str(caught.value) == "Ray is not installed\n\nhint: `pip install 'bdbench[ray]'`"
