"""Jobs of a cluster that shares the store, with a cluster that a test controls."""

from __future__ import annotations

import errno
import json
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from bdbench.errors import DiskError
from bdbench.execute import carry as carrying
from bdbench.execute import remote
from bdbench.execute.carry import JOB, SAID, UNSEEN, carry
from bdbench.execute.pool import Looked, Machine, Work, threads_of
from bdbench.execute.remote import TRIES, Remote
from bdbench.plan import Node, Plan
from bdbench.store import Store

NODE = Node("poison", "badnet", {}, {}, threads=2)
DONE = {"event": "done", "reused": False, "notes": []}


class Fake:
    """Keeps what it was asked to do; a test says what a job says, and which are gone."""

    name, most = "Fake", 2

    def __init__(self) -> None:
        self.queued: list[tuple[Node, Path]] = []
        self.cancelled: list[str] = []
        self.ended: dict[str, str] = {}
        self.waits: dict[str, str] = {}
        self.closed = False
        self.on_submit: Callable[[Path], None] = lambda folder: None

    def submit(self, node: Node, folder: Path) -> str:
        self.queued.append((node, folder))
        self.on_submit(folder)
        return str(len(self.queued))

    def look(self, jobs: Collection[str]) -> Looked:
        return Looked(*(
            {job: why for job, why in those.items() if job in jobs}
            for those in (self.ended, self.waits)
        ))

    def cancel(self, jobs: Collection[str]) -> None:
        self.cancelled += jobs

    def close(self) -> None:
        self.closed = True


def say(folder: Path, *events: Mapping[str, Any], end: str = "\n") -> None:
    with (folder / SAID).open("a") as said:
        said.write("\n".join(map(json.dumps, events)) + end)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr(remote, "_POLL", 0.01)
    monkeypatch.setattr(remote, "_ASK", 0.02)
    return Fake()


@pytest.fixture
def pool(fake: Fake, tmp_path: Path) -> Remote:
    todo = Plan()
    todo.add(NODE)
    return Remote(Work(todo, todo.nodes, Store(tmp_path), (Path("mine.py"),)), fake)


def test_a_job_has_all_that_a_worker_needs_and_what_it_says_comes_back(
    pool: Remote, fake: Fake, tmp_path: Path
) -> None:
    pool.start(NODE)
    ((node, folder),) = fake.queued
    job = json.loads((folder / JOB).read_text())
    assert (node, job["node"]["key"], job["store"]) == (NODE, NODE.key, str(tmp_path))
    assert job["plugins"] == [str(Path("mine.py").absolute())]
    say(folder, {"event": "progress", "done": 1})
    assert pool.wait() == (NODE, {"event": "progress", "done": 1})
    say(folder, DONE, end="")
    later = threading.Timer(0.1, lambda: say(folder, end="\n"))
    later.start()
    assert pool.wait() == (NODE, DONE), "a line counts once it is whole"
    later.join()
    pool.close()
    assert fake.closed
    assert not (tmp_path / "jobs").exists()


def test_there_are_no_more_jobs_than_the_cluster_takes(pool: Remote, fake: Fake) -> None:
    others = [Node("poison", name, {"name": name}, {}) for name in "ab"]
    assert pool.fits(NODE)
    for node in others:
        assert not pool.full()
        pool.start(node)
    assert pool.full()
    assert not pool.fits(NODE)
    say(fake.queued[0][1], DONE)
    assert pool.wait()[0] == others[0]
    assert pool.fits(NODE)
    pool.close()
    assert fake.cancelled == ["2"]


@pytest.mark.parametrize("way", ["gone", "died"])
def test_a_lost_job_is_queued_again_and_after_three_it_has_failed(
    way: str, pool: Remote, fake: Fake
) -> None:
    pool.start(NODE)
    for attempt in range(1, TRIES + 1):
        if way == "gone":
            fake.ended[str(attempt)] = "NODE_FAIL"
        else:
            say(fake.queued[-1][1], {"event": "died", "status": -9})
        why = "NODE_FAIL" if way == "gone" else "its process died with status -9"
        node, event = pool.wait()
        if attempt < TRIES:
            assert (node, event["event"]) == (NODE, "note")
            assert event["text"] == f"poison badnet was lost on Fake ({why}); it is queued again"
            assert len(fake.queued) == attempt + 1
            assert fake.cancelled[-1] == str(attempt)
    assert (event["event"], event["kind"]) == ("error", "cell")
    assert event["message"] == (
        f"it was lost `3` times on Fake without getting an epoch further: {why}")
    assert f"`{fake.queued[-1][1]}` has what is known" in event["hint"]
    assert len(fake.queued) == TRIES


def test_an_epoch_further_each_loss_is_the_first(pool: Remote, fake: Fake) -> None:
    """On machines that are taken away at any time a training ends all the same."""
    pool.start(NODE)
    for attempt in range(1, 2 * TRIES + 1):
        say(fake.queued[-1][1], {"event": "progress", "epoch": attempt})
        assert pool.wait()[1]["event"] == "progress"
        fake.ended[str(attempt)] = "PREEMPTED"
        assert pool.wait()[1]["event"] == "note"
    say(fake.queued[-1][1], DONE)
    assert pool.wait() == (NODE, DONE)


def test_the_first_epoch_is_no_epoch_further(pool: Remote, fake: Fake) -> None:
    pool.start(NODE)
    for attempt in range(1, TRIES + 1):
        say(fake.queued[-1][1], {"event": "progress", "epoch": 1})
        assert pool.wait()[1]["event"] == "progress"
        fake.ended[str(attempt)] = "PREEMPTED"
        assert pool.wait()[1]["event"] == ("note" if attempt < TRIES else "error")


def test_half_a_line_of_a_lost_machine_is_passed_over(pool: Remote, fake: Fake) -> None:
    pool.start(NODE)
    folder = fake.queued[0][1]
    with (folder / SAID).open("a") as said:
        said.write('{"event": "prog')
    say(folder, end="\n")
    say(folder, DONE)
    assert pool.wait() == (NODE, DONE)


def test_what_a_job_waits_for_is_told_once(pool: Remote, fake: Fake) -> None:
    pool.start(NODE)
    fake.waits["1"] = "`AssocGrpGRES`"
    assert pool.wait() == (NODE, {
        "event": "note", "text": "poison badnet waits on Fake: `AssocGrpGRES`"})
    later = threading.Timer(0.2, lambda: say(fake.queued[0][1], DONE))
    later.start()
    assert pool.wait() == (NODE, DONE)
    later.join()


def test_a_full_disk_is_told_as_such(
    pool: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *given: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskError, match=f"the store `{tmp_path}` is full"):
        pool.start(NODE)


@pytest.mark.parametrize(("threads", "gpus", "asked"), [
    (4, 0, 4), (100, 0, 64), (100, 2, 16), (100, 9, 1), (4, 4, 1),
])
def test_no_more_cores_are_asked_for_than_a_machine_with_the_gpus_has(
    threads: int, gpus: int, asked: int
) -> None:
    machines = [Machine(64), Machine(16, 2), Machine(0, 4)]
    assert threads_of(Node("poison", "", {}, {}, threads, gpus), machines) == asked


def test_what_a_job_said_before_it_was_gone_counts(pool: Remote, fake: Fake) -> None:
    """A job ends and leaves the queue between two looks: it is not lost."""
    pool.start(NODE)
    folder = fake.queued[0][1]

    def ends(jobs: Collection[str]) -> Looked:
        say(folder, DONE)
        return Looked({job: "COMPLETED" for job in jobs})

    fake.look = ends  # type: ignore[method-assign]
    assert pool.wait() == (NODE, DONE)
    assert len(fake.queued) == 1


def test_a_machine_without_the_store_says_so(tmp_path: Path) -> None:
    assert carry(str(tmp_path / "elsewhere")).startswith(f"{UNSEEN} ")


@pytest.mark.parametrize(("code", "said"), [
    ("import sys; sys.stdin.readline(); sys.exit(3)", [{"event": "died", "status": 3}]),
    ("import sys; sys.stdin.readline(); print('{\"event\": \"done\"}', flush=True);"
     "sys.stdin.read()", [{"event": "done"}]),
])
def test_a_job_ends_with_its_worker_and_tells_how(
    code: str, said: list[Mapping[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "COMMAND", (sys.executable, "-c", code))
    (tmp_path / JOB).write_text("{}")
    carry(str(tmp_path))
    assert [json.loads(line) for line in (tmp_path / SAID).read_text().splitlines()] == said
    with (tmp_path / SAID).open("a") as half:
        half.write("{")
    carry(str(tmp_path))
    last = (tmp_path / SAID).read_text().splitlines()[-len(said):]
    assert [json.loads(line) for line in last] == said
