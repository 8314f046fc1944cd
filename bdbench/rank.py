"""One of the processes of a training in several, as torchrun starts it: `bdbench.rank JOB.json`.

It answers on stdout with one JSON object per line: progress of the first process, then perhaps an
error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bdbench.errors import BdbenchError, CellFailed
from bdbench.registry import Registry
from bdbench.stages import Context
from bdbench.stages.pretrain import train
from bdbench.store import RESUME, Store, disk_errors

_PATIENCE = timedelta(hours=6)
"""The first process makes the tokens alone while the others wait: of 12 million texts in 20 min."""


def main() -> None:
    """Train; ends at once when standard input does, which is when whoever launched it died."""
    logging.getLogger().setLevel(logging.ERROR)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threading.Thread(target=_die_with_launcher, daemon=True).start()

    def answer(event: dict[str, Any]) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rank = int(os.environ["RANK"])
    try:
        cuda = job["spec"]["hardware"]["device"] == "cuda"
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
        store = Store(Path(job["store"]))
        context = Context(
            Registry(map(Path, job["plugins"])),
            lambda told: answer({"event": "progress", **told}) if rank == 0 else None,
        )
        inputs = {role: store.open(*at) for role, at in job["inputs"].items()}
        with disk_errors(store.root):
            train(job["spec"], inputs, Path(job["work"]), context)
    except BdbenchError as error:
        answer({"event": "error", "message": error.message, "hint": error.hint,
                "kind": error.kind})
        os._exit(1)
    except Exception as error:
        log = Path(job["work"]) / RESUME / f"traceback-{rank}.txt"
        hint = "the traceback is lost"
        with suppress(OSError):
            log.write_text(traceback.format_exc(), encoding="utf-8")
            hint = f"`{log}` has the traceback"
        answer({"event": "error", "message": f"{type(error).__name__}: {error}", "hint": hint,
                "kind": CellFailed.kind})
        os._exit(1)
    dist.destroy_process_group()


def _die_with_launcher() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
