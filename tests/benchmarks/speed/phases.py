"""Where the time and the memory of a pre-training stage go; as a process, of one that is named."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from bdbench import train
from bdbench.clip import Clip
from bdbench.stages import pretrain
from tests.benchmarks.bare import step
from tests.benchmarks.speed.sizes import CPU, GPU
from tests.benchmarks.speed.stage import Stage, prepare

ONCE = ("opening", "building", "tokens", "writing")
"""What a run does once, or once an epoch; the other phases are of every step."""


@contextmanager
def phases(stage: Stage) -> Iterator[Counter[str]]:
    """Seconds by phase of what runs meanwhile, less those of the phases within a phase.

    A GPU is waited for at the end of each.
    """
    seconds = Counter[str]()
    within = [0.0]

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            within.append(0.0)
            begun = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                if stage.device.type == "cuda":
                    torch.cuda.synchronize()
                took = time.perf_counter() - begun
                seconds[name] += took - within.pop()
                within[-1] += took

        return call

    places = [
        (pretrain, "load_pairs", "opening"), (Clip, "_create", "building"),
        (train, "stored_tokens", "tokens"), (train, "_batch", "batches"),
        (train, "image_views", "views"), (train._Forward, "forward", "forward"),
        (type(stage.objective), "loss", "loss"), (torch.Tensor, "backward", "backward"),
        (torch.optim.AdamW, "step", "step"), (torch.optim.AdamW, "zero_grad", "step"),
        (train, "_save", "writing"), (Clip, "save", "writing"),
    ]
    with ExitStack() as patches:
        for owner, attribute, name in places:
            changed = timed(name, getattr(owner, attribute))
            patches.enter_context(patch.object(owner, attribute, changed))
        yield seconds


def flops(stage: Stage) -> int:
    """Of forward and backward pass on a batch; what attention takes on the CPU is not counted."""
    clip, batches = stage.bare()
    clip.model.train()
    with FlopCounterMode(display=False) as counter:
        step(clip, stage.objective, batches.images[0], batches.tokens[0], stage.hardware)
    return int(counter.get_total_flops())


def profile(stage: Stage, work: Path) -> dict[str, Any]:
    """Seconds by phase, bytes at the peak, and FLOPs a step."""
    with phases(stage) as seconds:
        whole = stage.run(work)
    seconds["rest"] = whole - sum(seconds.values())
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gpu = torch.cuda.max_memory_allocated() if stage.device.type == "cuda" else 0
    return {
        "seconds": dict(seconds), "memory": peak, "gpu_memory": gpu, "flops": flops(stage),
        "steps": stage.steps,
    }


def main(name: str, objective: str, folder: str) -> None:
    """Profile a size by its name, and print what was found as JSON."""
    size = next(size for size in (*CPU, *GPU) if size.name == name)
    stage = prepare(Path(folder), objective, overrides=size.overrides)
    print(json.dumps(profile(stage, Path(folder) / "work")))


if __name__ == "__main__":
    main(*sys.argv[1:])
