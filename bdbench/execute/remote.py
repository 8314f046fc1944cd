"""Nodes as jobs of a cluster that shares the store: each tells in a file how it goes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bdbench.execute.carry import JOB, SAID
from bdbench.execute.pool import Looked, Work
from bdbench.plan import Node
from bdbench.store import disk_errors

TRIES = 3
"""Times that a node is lost, without an epoch in between, before it has failed."""
_POLL, _ASK = 0.25, 2.0
"""Seconds between looks at the files, and between questions to the cluster."""


class Cluster(Protocol):
    """What places jobs on machines."""

    name: str
    most: int
    """Jobs that may be queued or running at once."""

    def submit(self, node: Node, folder: Path) -> str:
        """Queue the job of a folder, with the node's cores and GPUs; returns its name there."""

    def look(self, jobs: Collection[str]) -> Looked:
        """Which of them are gone, and which are held up."""

    def cancel(self, jobs: Collection[str]) -> None:
        """Stop them."""

    def close(self) -> None:
        """Let go of the cluster."""


@dataclass
class _Job:
    """A node on its way, and how much of what was said of it is read."""

    node: Node
    folder: Path
    name: str
    tries: int = 1
    epoch: int = 1
    """The furthest that it was at."""
    read: int = 0


class Remote:
    """A `Pool` on a cluster. A job that is lost, with its machine or alone, is queued again."""

    def __init__(self, work: Work, cluster: Cluster) -> None:
        self._work, self._cluster = work, cluster
        self._root = work.store.root / "jobs" / f"{os.getpid()}-{time.time_ns()}"
        self._jobs: dict[str, _Job] = {}
        self._said: deque[tuple[Node, dict[str, Any]]] = deque()
        self._asked = time.monotonic()
        self._told: set[str] = set()
        """Reasons for which jobs wait, each told once."""

    def full(self) -> bool:
        """Whether the cluster takes no more jobs for now."""
        return len(self._jobs) >= self._cluster.most

    def fits(self, node: Node) -> bool:
        """Whether it takes another; where it runs is the cluster's business."""
        return not self.full()

    def start(self, node: Node) -> None:
        """Queue its job."""
        folder = self._root / node.key
        job = self._work.job(node, list(range(node.gpus)))
        with disk_errors(self._work.store.root):
            folder.mkdir(parents=True)
            (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
            # A network disk remembers for a while that a file is missing, not what is in it.
            (folder / SAID).touch()
        self._jobs[node.key] = _Job(node, folder, self._cluster.submit(node, folder))

    def wait(self) -> tuple[Node, dict[str, Any]]:
        """What a job says next; those that the cluster has lost are queued again."""
        while not self._said:
            for job in list(self._jobs.values()):
                self._read(job)
            if not self._said and time.monotonic() - self._asked > _ASK:
                self._ask()
            if not self._said:
                time.sleep(_POLL)
        return self._said.popleft()

    def _read(self, job: _Job) -> None:
        """Take over the whole lines that were said since the last look."""
        # Opened anew every time: only then does a network disk show what others wrote.
        with (job.folder / SAID).open("rb") as said:
            said.seek(job.read)
            text = said.read()
        whole = text[: text.rfind(b"\n") + 1]
        job.read += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # half a line, of a machine that went away
                continue
            if event.get("epoch", 0) > job.epoch:  # the one before it is done
                job.tries, job.epoch = 1, event["epoch"]
            if event["event"] == "died":
                self._lost(job, f"its process died with status {event['status']}")
                return
            self._said.append((job.node, event))
            if event["event"] in ("done", "error"):
                _look(self._work.store.root / "objects" / job.node.stage)
                del self._jobs[job.node.key]
                shutil.rmtree(job.folder, ignore_errors=True)
                return

    def _ask(self) -> None:
        names = {job.name: job for job in self._jobs.values()}
        found = self._cluster.look(names)
        for name, why in found.held.items():
            if why not in self._told:
                self._told.add(why)
                node = names[name].node
                text = f"{node.stage} {node.label} waits on {self._cluster.name}: {why}"
                self._said.append((node, {"event": "note", "text": text}))
        for job in list(self._jobs.values()):
            if job.name in found.gone:
                _look(job.folder)
                self._read(job)
                if job.node.key in self._jobs and job.name in found.gone:
                    self._lost(job, found.gone[job.name])
        self._asked = time.monotonic()

    def _lost(self, job: _Job, why: str) -> None:
        """Queue the job again: what it saved is in the store, for any machine to continue."""
        if job.tries == TRIES:
            del self._jobs[job.node.key]
            self._said.append((job.node, {
                "event": "error", "kind": "cell",
                "message": f"it was lost `{TRIES}` times on {self._cluster.name} without getting an"
                f" epoch further: {why}",
                "hint": "run the same command again: it continues; every machine must see"
                f" `{self._work.store.root}`, and `{job.folder}` has what is known",
            }))
            return
        self._said.append((job.node, {
            "event": "note",
            "text": f"{job.node.stage} {job.node.label} was lost on {self._cluster.name} ({why});"
            " it is queued again",
        }))
        self._cluster.cancel([job.name])
        job.tries += 1
        job.name = self._cluster.submit(job.node, job.folder)

    def close(self) -> None:
        """Cancel what is on its way."""
        self._cluster.cancel([job.name for job in self._jobs.values()])
        self._cluster.close()
        for folder in (self._root, self._root.parent):
            with suppress(OSError):  # it is not there, or not empty
                folder.rmdir()


def _look(folder: Path) -> None:
    """List a folder, by which a network disk learns what others did there."""
    with suppress(FileNotFoundError):
        next(folder.iterdir(), None)
