"""This machine: worker processes, as many nodes at a time as there are cores and GPUs for."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

from bdbench.environment import cores
from bdbench.errors import BdbenchError, CellFailed
from bdbench.execute.pool import Work
from bdbench.plan import Node

COMMAND = (sys.executable, "-P", "-m", "bdbench.worker")
"""Without -P a method's file here could hide a module: `random.py` is a fair name for one."""
_WARM = 2
"""Workers started ahead, while the first stages run; more follow when there is work for them."""


_KEPT = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
"""glibc keeps so many bytes that are freed: every batch asks for them again, and the kernel's fresh
pages took a fifth to a third of the time of an evaluation."""


def worker_environment() -> dict[str, str]:
    """Each stage sets its own thread count; until then no library may start a thread per core."""
    return {**_KEPT, **os.environ, "OMP_NUM_THREADS": "1"}


class _Worker:
    """A `bdbench.worker` process and the node it is at."""

    def __init__(
        self, events: queue.Queue[tuple[_Worker, dict[str, Any] | None]], warm: bool
    ) -> None:
        self.node: Node | None = None
        self.gpus: list[int] = []
        self._process = subprocess.Popen(
            [*COMMAND, *["warm"] * warm], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=worker_environment(), start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, events: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            events.put((self, json.loads(line)))
        events.put((self, None))

    def start(self, node: Node, gpus: list[int], job: dict[str, Any]) -> None:
        self.node, self.gpus = node, gpus
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def stop(self) -> int:
        """Kill the process; returns its exit status."""
        self._process.kill()
        return self._process.wait()


class Here:
    """A `Pool` of processes on this machine."""

    def __init__(self, work: Work) -> None:
        """BdbenchError if a node wants more GPUs than there are."""
        self._work = work
        self._gpus = _gpus(work.waiting.values())
        self._free = self._cores = cores()
        self._events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        models = sum(
            node.stage in ("pretrain", "defend", "evaluate") for node in work.waiting.values()
        )
        ahead = max(1, min(self._cores, models, _WARM))
        self._workers = [_Worker(self._events, warm=models > 0) for _ in range(ahead)]
        self._idle = list(self._workers)

    def full(self) -> bool:
        """Whether no core is free."""
        return self._free == 0

    def fits(self, node: Node) -> bool:
        """Whether its cores and GPUs are free."""
        return self._threads(node) <= self._free and node.gpus <= len(self._gpus)

    def start(self, node: Node) -> None:
        """Hand it to an idle worker, or to a new one."""
        if not self._idle:
            self._workers.append(_Worker(self._events, warm=False))
            self._idle.append(self._workers[-1])
        self._free -= self._threads(node)
        given, self._gpus = self._gpus[: node.gpus], self._gpus[node.gpus :]
        self._idle.pop().start(node, given, self._work.job(node, given))

    def wait(self) -> tuple[Node, dict[str, Any]]:
        """What a worker says next, or that it died."""
        worker, event = self._events.get()
        if worker.node is None:
            raise CellFailed("a worker process died at its start", "see the messages above")
        node = worker.node
        if event is None:
            event = {"event": "died", "status": worker.stop()}
            self._workers.remove(worker)
        elif event["event"] == "progress":
            return node, event
        else:
            self._idle.append(worker)
        self._free += self._threads(node)
        self._gpus += worker.gpus
        worker.node = None
        return node, event

    def close(self) -> None:
        """Kill the workers."""
        for worker in self._workers:
            worker.stop()

    def _threads(self, node: Node) -> int:
        """A node that wants more cores than there are has them all."""
        return min(node.threads, self._cores)


def _gpus(nodes: Iterable[Node]) -> list[int]:
    """The GPUs that may be used, if any of the nodes wants one; BdbenchError if it wants more."""
    most = max((node.gpus for node in nodes), default=0)
    if most == 0:
        return []
    # In a process of its own: torch takes seconds to import, and a GPU once it is initialised.
    count = "import torch; print(torch.cuda.device_count())"
    asked = subprocess.run(
        [sys.executable, "-P", "-c", count], capture_output=True, text=True, check=True
    )
    found = int(asked.stdout.split()[-1])
    if found < most:
        how = (
            "`--set recipe.hardware.device=cpu`, which is much slower" if found == 0 else
            f"`--set recipe.hardware.processes={found}`"
        )
        raise BdbenchError(f"the recipe asks for `{most}` GPUs, and torch finds `{found}`", how)
    return list(range(found))
