"""A node on another machine: a job in a folder of the store, and a file of what is said of it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

from bdbench.execute.here import COMMAND, worker_environment

JOB, SAID = "job.json", "said.jsonl"
_TERM = 120.0
"""Seconds to wait to be killed after the worker was asked to end."""
UNSEEN = "unseen"
"""What `carry` returns where the folder is not there: that machine does not share the store."""


def carry(folder: str) -> str:
    """Run the job in a worker process and append what it says to a file beside it.

    Returns the name of this machine, after `UNSEEN` and a space where the folder is not there.
    The worker stops when this process dies, however it dies.
    """
    place, host = Path(folder), socket.gethostname()
    if not (place / JOB).is_file():
        return f"{UNSEEN} {host}"
    with (
        (place / SAID).open("a", encoding="utf-8") as said,
        subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=worker_environment(),
        ) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        if said.tell():
            said.write("\n")  # whoever was lost before may have left half a line
        worker.stdin.write((place / JOB).read_text(encoding="utf-8") + "\n")
        worker.stdin.flush()
        for line in worker.stdout:
            said.write(line)
            said.flush()
            if json.loads(line)["event"] in ("done", "error"):
                break
        else:
            status = worker.wait()
            if status == -signal.SIGTERM:
                # Asked to end, as this process is: a job of Slurm that ends itself is not requeued.
                time.sleep(_TERM)
            said.write(json.dumps({"event": "died", "status": status}) + "\n")
        worker.kill()
    return host
