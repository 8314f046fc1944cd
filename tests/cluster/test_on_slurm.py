"""Jobs of Slurm: cancelled, requeued, out of time; without Slurm, submitit's local executor."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bdbench.errors import BdbenchError
from bdbench.execute import execute, on_slurm
from bdbench.execute.carry import JOB
from bdbench.execute.on_slurm import OnSlurm
from bdbench.execute.pool import Looked, Machine, Work
from bdbench.plan import Node, Plan
from bdbench.store import Store
from tests.cluster import slurm
from tests.cluster.conftest import Watched, cards, matrix, workers

needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None,
    reason="submitit is not installed: pip install 'bdbench[slurm]'",
)
needs_slurm = pytest.mark.skipif(slurm.missing() is not None, reason=str(slurm.missing()))
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm.running(tmp_path_factory.mktemp("slurm")):
        yield


def tell(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@needs_submitit
@needs_slurm
@pytest.mark.heavy
@pytest.mark.parametrize(("cut", "notes"), [
    (lambda job: tell("scancel", job), 1),
    (lambda job: tell("scontrol", "requeue", job), 0),
    (lambda job: tell("scancel", "--signal=USR2", job), 0),
], ids=["cancelled", "preempted", "out of time"])
def test_a_job_that_is_stopped_is_queued_again(
    cut: Callable[[str], None], notes: int, daemons: None, alone: list[Any], tmp_path: Path
) -> None:
    """Slurm requeues what it preempts, and submitit what is out of time: neither is a loss."""
    store, todo = Store(tmp_path), matrix()

    def stop() -> None:
        (job,) = slurm.jobs()
        cut(job)

    watched = Watched(stop)
    execute(todo, store, listen=watched, on="slurm")
    assert watched.cut is None
    assert [note.split(" (")[0] for note in watched.notes] == [
        "pretrain badnet / mmcl was lost on Slurm"] * notes
    assert watched.resumed()
    assert cards(todo, store) == alone
    ends = [event.node.key for event in watched.events if event.kind == "done"]
    assert sorted(ends) == sorted(todo.nodes)
    assert not (tmp_path / "jobs").exists()


@needs_submitit
@needs_slurm
@pytest.mark.heavy
def test_a_node_of_two_processes_is_one_job(daemons: None, tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    todo = matrix(processes=2, epochs=3)
    execute(todo, here)
    execute(todo, there, on="slurm")
    assert cards(todo, there) == cards(todo, here)


@needs_submitit
@needs_slurm
@pytest.mark.heavy
def test_what_a_site_wants_is_said_by_its_variables(
    daemons: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    with pytest.raises(BdbenchError, match="Slurm does not take data `shapes`: ") as caught:
        execute(matrix(), Store(tmp_path), on="slurm")
    assert "invalid partition" in caught.value.message
    assert caught.value.hint == (
        "`SBATCH_PARTITION`, `SBATCH_ACCOUNT`, `SBATCH_TIMELIMIT` and the like say what your site"
        " wants")
    assert not slurm.jobs()


@needs_submitit
@needs_slurm
@pytest.mark.heavy
def test_an_interrupted_run_leaves_no_job(daemons: None, alone: list[Any], tmp_path: Path) -> None:
    todo = matrix()
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", "from bdbench.cli.main import main; main()", "run",
         "--recipe", "smoke", "--attack", "badnet", "--objective", "mmcl", "--defense", "none",
         "--defense", "finetune", "--set", "recipe.pretrain.epochs=12", "--on", "slurm"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "BDBENCH_HOME": str(tmp_path)},
    )
    deadline = time.monotonic() + 300
    while not any((tmp_path / "work").glob("*/resume/*.safetensors")):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    assert slurm.jobs()
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert said.endswith("interrupted\n\nhint: the same command continues\n")
    while slurm.jobs() or workers():
        assert time.monotonic() < deadline, "a job outlived its run"
        time.sleep(0.2)
    store, watched = Store(tmp_path), Watched()
    execute(todo, store, listen=watched)
    assert watched.resumed()
    assert cards(todo, store) == alone


class Local(OnSlurm):
    """Jobs of submitit's local executor: processes of this machine."""

    executor = "local"

    def look(self, jobs: Collection[str]) -> Looked:
        def runs(pid: str) -> bool:
            try:
                return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
            except FileNotFoundError:
                return False

        return Looked({job: "it ended" for job in jobs if not runs(job)})

    def cancel(self, jobs: Collection[str]) -> None:
        for job in set(jobs) - set(self.look(jobs).gone):
            with suppress(ProcessLookupError):
                os.kill(int(job), signal.SIGKILL)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of Slurm that only remember: `sbatch` keeps its script as `job.sh`."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, does in {
        "sinfo": "echo '64 (null)'; echo '16+ gpu:a100:4(S:0-1),gpu:t4:2'",
        "squeue": "echo 7 PENDING AssocGrpGRES; echo 9 PENDING Priority; echo 10 RUNNING None;"
                  "echo 11 PENDING Bad one; echo 12 COMPLETING NonZeroExitCode",
        "sbatch": f"cat \"$1\" > {tmp_path}/job.sh; echo Submitted batch job 7",
        "srun": "", "scancel": "",
    }.items():
        (place / name).write_text(f"#!/bin/sh\n{does}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return tmp_path


@needs_submitit
@pytest.mark.heavy
def test_the_same_matrix_by_the_local_executor(
    alone: list[Any], site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_slurm, "OnSlurm", Local)
    store, todo = Store(site / "home"), matrix()

    def stop() -> None:
        for worker in workers():
            os.kill(worker, signal.SIGKILL)

    watched = Watched(stop)
    execute(todo, store, listen=watched, on="slurm")
    (note,) = watched.notes
    assert note == ("pretrain badnet / mmcl was lost on Slurm (its process died with status -9);"
                    " it is queued again")
    assert watched.resumed()
    assert cards(todo, store) == alone


def place(folder: Path, node: Node) -> OnSlurm:
    todo = Plan()
    todo.add(node)
    return OnSlurm(Work(todo, todo.nodes, Store(folder)))


@needs_submitit
def test_a_job_asks_for_the_cores_and_gpus_of_its_node(site: Path) -> None:
    for cores, gpus, asked in ((3, 0, 3), (100, 0, 64), (100, 2, 16)):
        node = Node("pretrain", "badnet / mmcl", {}, {}, threads=cores, gpus=gpus)
        assert place(site, node).submit(node, site / "job") == "7"
        script = (site / "job.sh").read_text().splitlines()
        assert f"#SBATCH --cpus-per-task={asked}" in script
        assert ("#SBATCH --gpus-per-node=2" in script) == (gpus == 2)
        assert "#SBATCH --requeue" in script
        assert "#SBATCH --ntasks-per-node=1" in script
        assert f"#SBATCH --job-name=bdbench-pretrain-{node.key}" in script
        assert not any("partition" in line or "account" in line for line in script)


@needs_submitit
def test_a_job_that_left_the_queue_is_gone(site: Path) -> None:
    found = place(site, Node("poison", "badnet", {}, {}))
    assert found.look(["7", "8"]).gone == {"8": "job 8 left the queue"}


@needs_submitit
def test_why_a_job_waits_is_told_unless_it_is_a_matter_of_time(site: Path) -> None:
    found = place(site, Node("poison", "badnet", {}, {}))
    every = ["7", "9", "10", "11", "12"]
    assert found.look(every) == Looked({}, {"7": "`AssocGrpGRES`", "11": "`Bad one`"})


def test_cores_and_gpus_of_a_site() -> None:
    lines = ["64 (null)", "16+ gpu:a100:4(S:0-1),gpu:t4:2", "8 gpu:2", "4 craynetwork:3"]
    assert on_slurm.machines("\n".join(lines)) == [
        Machine(64), Machine(16, 6), Machine(8, 2), Machine(4)]


@needs_submitit
def test_what_slurm_says_against_a_job_is_told(site: Path) -> None:
    node = Node("poison", "badnet", {}, {})
    (site / "bin" / "sbatch").write_text("#!/bin/sh\necho 'no account' >&2; exit 1\n")
    with pytest.raises(BdbenchError, match=r"Slurm does not take poison `badnet`: .*no account"):
        place(site, node).submit(node, site / "job")


@needs_submitit
def test_a_slurm_that_does_not_answer(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_slurm.time, "sleep", lambda seconds: None)
    (site / "bin" / "sinfo").write_text("#!/bin/sh\necho 'Connection refused' >&2; exit 1\n")
    with pytest.raises(BdbenchError) as caught:
        place(site, Node("poison", "badnet", {}, {}))
    assert str(caught.value) == (
        "Slurm does not answer: Connection refused\n\nhint: `sinfo` shows its state")


def test_without_submitit_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(BdbenchError) as caught:
        execute(matrix(), Store(tmp_path), on="slurm")
    assert str(caught.value) == (
        "submitit is not installed\n\nhint: `pip install 'bdbench[slurm]'`")


@needs_submitit
def test_without_slurm_the_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BdbenchError) as caught:
        execute(matrix(), Store(tmp_path), on="slurm")
    assert str(caught.value) == (
        "there is no `sbatch` here\n\nhint: run it on a machine that submits to Slurm")


def test_a_job_out_of_time_is_the_same_again(tmp_path: Path) -> None:
    (tmp_path / JOB).write_text("{}")
    job = on_slurm.Job(str(tmp_path))
    again = pytest.importorskip("submitit").helpers.DelayedSubmission
    assert isinstance(job.checkpoint(), again)
    assert job.checkpoint().function is job
