"""Run one node; as a process, run nodes named on stdin, one JSON object per line, until it closes.

With the argument `warm` it imports what training needs at once. The process answers on stdout with
one JSON object per line: progress, then done or error.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from bdbench.errors import BdbenchError, CellFailed
from bdbench.registry import Registry
from bdbench.stages import Context
from bdbench.store import RESUME, Store, disk_errors

Event = dict[str, Any]


def run_node(
    store: Store, registry: Registry, node: Mapping[str, Any], report: Callable[[Event], None],
    files: Mapping[str, str] = MappingProxyType({}), gpus: Sequence[int] = (),
) -> bool:
    """Compute and publish a node unless it is in the store by now; True when it was.

    `files` has the paths of the user's files by address; `gpus` are those it may use.
    A second process that wants the same node waits here and then finds it done.
    """
    stage, key = node["stage"], node["key"]
    with disk_errors(store.root), store.lock(key):
        if store.find(stage, key) is not None:
            return True
        work = store.workdir(key)
        inputs = {role: store.open(*at) for role, at in node["inputs"].items()}
        counted = time.monotonic()

        def told(progress: Mapping[str, Any]) -> None:
            nonlocal counted
            now = time.monotonic()
            store.spent(key, now - counted)
            counted = now
            report(dict(progress))

        run = importlib.import_module(f"bdbench.stages.{stage}").run
        context = Context(registry, told, node["local"], files, gpus)
        samples = run(node["spec"], inputs, work, context)
        store.publish(
            stage, key, label=node["label"], spec=node["spec"],
            inputs={role: at[1] for role, at in node["inputs"].items()},
            seconds=time.monotonic() - counted, samples=samples,
        )
        return False


def work(job: Mapping[str, Any], report: Callable[[Event], None]) -> None:
    """Do a job of `execute.pool.Work`; its last event is `done` or `error`."""
    store = Store(Path(job["store"]))
    registry = Registry(map(Path, job["plugins"]))
    try:
        reused = run_node(
            store, registry, job["node"], lambda told: report({"event": "progress", **told}),
            job["files"], job["gpus"],
        )
    except BdbenchError as error:
        report({"event": "error", "message": error.message, "hint": error.hint,
                "kind": error.kind})
    except Exception as error:
        log = store.root / "work" / job["node"]["key"] / RESUME / "traceback.txt"
        hint = "the traceback is lost"
        try:
            log.write_text(traceback.format_exc(), encoding="utf-8")
            hint = f"`{log}` has the traceback"
        except OSError:
            pass
        report({"event": "error", "message": f"{type(error).__name__}: {error}", "hint": hint,
                "kind": CellFailed.kind})
    else:
        report({"event": "done", "reused": reused, "notes": store.taken_notes()})


def _serve(jobs: TextIO, out: TextIO) -> None:
    def answer(event: Event) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    for line in iter(jobs.readline, ""):
        work(json.loads(line), answer)


def main() -> None:
    """Serve until stdin closes, which it does when the parent dies, however it dies."""
    # open_clip warns at every model that is built to be filled with weights a line later.
    logging.getLogger().setLevel(logging.ERROR)
    # Slurm warns every process of a job of its time limit, and one that does not ignore it dies.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    reader, writer = os.pipe()

    def forward() -> None:
        with os.fdopen(writer, "w") as pipe:
            for line in sys.stdin:
                pipe.write(line)
                pipe.flush()
        os._exit(0)

    threading.Thread(target=forward, daemon=True).start()
    if "warm" in sys.argv[1:]:
        # These imports take seconds: they overlap with the stages that need no model.
        importlib.import_module("bdbench.stages.pretrain")
    with os.fdopen(reader) as jobs:
        _serve(jobs, out)


if __name__ == "__main__":
    main()
