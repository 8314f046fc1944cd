"""The pretrain stage against the bare loop: forward, backward and step on ready tensors.

Both are timed in turn, so that a machine that drifts slows both. Of the large models a few steps
count, and not what a run does once: building the model, and writing 0.6 GB of it.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch

from tests.benchmarks.bare import loop
from tests.benchmarks.conftest import Measured
from tests.benchmarks.speed.sizes import CPU, GPU, LEAST, NO_GPU, Size
from tests.benchmarks.speed.stage import prepare
from tests.benchmarks.table import DRY, spread


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("objective", LEAST)
@pytest.mark.parametrize("size", [*CPU, *GPU], ids=lambda size: size.name)
def test_samples_per_second(
    size: Size, objective: str, measured: Measured, tmp_path: Path
) -> None:
    what = f"training with `{objective}` over its bare loop, {size.name}"
    least = LEAST[objective]
    if size in GPU and not torch.cuda.is_available():
        measured(f"training with `{objective}` over its bare loop, on a GPU", NO_GPU,
                 f"at least {least}")
        pytest.skip(NO_GPU)
    stage = prepare(tmp_path, objective, overrides=size.overrides)
    ratios, speeds = [], []
    for round_ in range(size.rounds):
        clip, batches = stage.bare()
        bare = loop(
            clip, stage.objective, batches, stage.training, stage.hardware, size.warm
        )
        del clip, batches
        floor = bare.each if size.warm else bare.whole / stage.steps
        work = tmp_path / f"work{round_}"
        ours = (
            stage.clocked(work, size.warm).each if size.warm else stage.run(work) / stage.steps
        )
        ratios.append(floor / ours)
        speeds.append(stage.training.batch / ours)
    measured(
        what, f"{spread(ratios)}; {statistics.median(speeds):,.0f} pairs/s", f"at least {least}"
    )
    assert DRY or statistics.median(ratios) >= least
