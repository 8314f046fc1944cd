"""A Ray cluster: the one that runs here already, or one of this machine, started for the run."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bdbench.environment import cores
from bdbench.errors import BdbenchError
from bdbench.execute.carry import UNSEEN, carry
from bdbench.execute.pool import Looked, Machine, Work, threads_of
from bdbench.plan import Node


class OnRay:
    """A `Cluster` of Ray's tasks; `RAY_ADDRESS` names another one, as for any program of Ray."""

    name = "Ray"
    most = 10_000

    def __init__(self, work: Work) -> None:
        """BdbenchError where Ray is not installed, or no machine of it has the GPUs of a node."""
        try:
            import ray
            from ray.exceptions import RayError
        except ImportError as error:
            raise BdbenchError("Ray is not installed", "`pip install 'bdbench[ray]'`") from error
        self._ray, self._error = ray, RayError
        self._own = not ray.is_initialized()
        if self._own:
            _answers(os.environ.get("RAY_ADDRESS", ""))
            quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
            ours = signal.getsignal(signal.SIGTERM)  # Ray puts one of its own in its place
            try:
                ray.init(address="auto", **quiet)
            except ConnectionError:
                ray.init(num_cpus=cores(), include_dashboard=False, **quiet)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, ours)
        nodes = ray.nodes()
        machines = [node["Resources"] for node in nodes if node["Alive"]]
        self._machines = [
            Machine(int(machine.get("CPU", 0)), int(machine.get("GPU", 0))) for machine in machines
        ]
        gpus = max(machine.gpus for machine in self._machines)
        wanted = max((node.gpus for node in work.waiting.values()), default=0)
        if wanted > gpus:
            raise BdbenchError(
                f"the recipe asks for `{wanted}` GPUs on one machine, and Ray's largest has"
                f" `{gpus}`", "`ray status` shows what there is",
            )
        # Lost jobs are queued again here, where they are counted and told of.
        self._carry = ray.remote(max_retries=0)(carry)
        self._tasks: dict[str, Any] = {}
        self._names = map(str, itertools.count())

    def submit(self, node: Node, folder: Path) -> str:
        """Queue a task, of its size."""
        name = next(self._names)
        self._tasks[name] = self._carry.options(
            num_cpus=threads_of(node, self._machines), num_gpus=node.gpus,
            name=f"{node.stage} {node.label}",
        ).remote(str(folder))
        return name

    def look(self, jobs: Collection[str]) -> Looked:
        """Tasks that ended; BdbenchError where a machine does not share the store."""
        tasks = [self._tasks[job] for job in jobs]
        ready, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        why = {}
        for job in jobs:
            if self._tasks[job] not in ready:
                continue
            try:
                host = self._ray.get(self._tasks[job])
            except self._error as error:
                why[job] = type(error).__name__
                continue
            if host.startswith(UNSEEN):
                raise BdbenchError(
                    f"the machine `{host.removeprefix(UNSEEN).strip()}` does not see the store",
                    "set BDBENCH_HOME to a folder that every machine of the cluster shares",
                )
            why[job] = f"its process ended early on {host}"
        return Looked(why)

    def cancel(self, jobs: Collection[str]) -> None:
        """Kill the processes of the tasks."""
        for job in jobs:
            self._ray.cancel(self._tasks[job], force=True)

    def close(self) -> None:
        """Stop Ray if it was started for this run."""
        if self._own:
            self._ray.shutdown()


def _answers(address: str) -> None:
    """BdbenchError where nothing listens; Ray itself would ask for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise BdbenchError(
            f"nothing answers at `{address}`, where RAY_ADDRESS says that Ray is",
            "`unset RAY_ADDRESS` to have a Ray started on this machine",
        ) from error
