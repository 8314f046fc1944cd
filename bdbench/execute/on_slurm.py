"""Slurm, through submitit: a job per node, with `SBATCH_*` variables for what a site wants."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bdbench.errors import BdbenchError
from bdbench.execute.carry import carry
from bdbench.execute.pool import Looked, Machine, Work, threads_of
from bdbench.plan import Node

_MINUTES = 24 * 60
"""Time limit of a job; one that reaches it is queued again and goes on from its last epoch."""
_LIMITS = 10_000
"""Times that it may reach it."""

_TURN = {"None", "Priority", "Resources", "BeginTime", "Dependency"}
"""Reasons of the queue that pass by themselves."""


class Job:
    """What runs in a Slurm job; submitit asks it what to do when the time is up."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self) -> None:
        """Run the node."""
        carry(self.folder)

    def checkpoint(self) -> Any:
        """The same again: the stage continues from what it saved."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class OnSlurm:
    """A `Cluster` of Slurm jobs."""

    name = "Slurm"
    most = 200
    executor = "slurm"
    """Of submitit."""

    def __init__(self, work: Work) -> None:
        """BdbenchError where submitit or Slurm is missing."""
        try:
            import submitit
        except ImportError as error:
            raise BdbenchError(
                "submitit is not installed", "`pip install 'bdbench[slurm]'`"
            ) from error
        if shutil.which("sbatch") is None:
            raise BdbenchError(
                "there is no `sbatch` here", "run it on a machine that submits to Slurm"
            )
        self._make = submitit.AutoExecutor
        partition = os.environ.get("SBATCH_PARTITION")
        where = [f"--partition={partition}"] if partition else []
        self._machines = machines(_ask("sinfo", "--noheader", "--format=%c %G", *where))

    def submit(self, node: Node, folder: Path) -> str:
        """`sbatch` it; BdbenchError with what Slurm says against it."""
        threads = threads_of(node, self._machines)
        executor = self._make(
            folder=str(folder), cluster=self.executor, slurm_max_num_timeout=_LIMITS
        )
        executor.update_parameters(
            name=f"bdbench-{node.stage}-{node.key}", nodes=1, tasks_per_node=1,
            cpus_per_task=threads, timeout_min=_MINUTES, stderr_to_stdout=True,
            slurm_srun_args=[f"--cpus-per-task={threads}"],
            slurm_additional_parameters={"requeue": True},
            **({"gpus_per_node": node.gpus} if node.gpus else {}),
        )
        try:
            return str(executor.submit(Job(str(folder))).job_id)
        except Exception as error:  # submitit has several for what sbatch says
            raise BdbenchError(
                f"Slurm does not take {node.stage} `{node.label}`: {error}",
                "`SBATCH_PARTITION`, `SBATCH_ACCOUNT`, `SBATCH_TIMELIMIT` and the like say what"
                " your site wants",
            ) from error

    def look(self, jobs: Collection[str]) -> Looked:
        """Jobs that are not in the queue, and those for which it has a reason that stays."""
        lines = _ask("squeue", "--noheader", "--format=%A %T %r", f"--user={os.getuid()}")
        queued = {
            job: (state, why) for job, state, why in
            (line.split(maxsplit=2) for line in lines.splitlines())
        }
        return Looked(
            {job: f"job {job} left the queue" for job in jobs if job not in queued},
            {job: f"`{queued[job][1]}`" for job in jobs
             if job in queued and queued[job][0] == "PENDING" and queued[job][1] not in _TURN},
        )

    def cancel(self, jobs: Collection[str]) -> None:
        """`scancel` them."""
        if jobs:
            subprocess.run(["scancel", "--quiet", *jobs], check=False)

    def close(self) -> None:
        """Slurm goes on without us."""


def machines(text: str) -> list[Machine]:
    """What `sinfo` has, given its lines of cores and generic resources: `16+ gpu:a100:4(S:0-1)`."""
    found = []
    for line in text.splitlines():
        cpus, _, resources = line.partition(" ")
        gpus = re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", resources)
        found.append(Machine(int(cpus.rstrip("+")), sum(map(int, gpus))))
    return found


def _ask(*command: str) -> str:
    """What a command of Slurm says; asked again while its controller does not answer."""
    for pause in (1, 5, 25, None):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        if pause is not None:
            time.sleep(pause)
    raise BdbenchError(f"Slurm does not answer: {done.stderr.strip()}", "`sinfo` shows its state")
