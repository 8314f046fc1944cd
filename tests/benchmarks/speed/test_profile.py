"""Where the time of training goes, its peak memory, and how much of a GPU it uses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.conftest import Measured
from tests.benchmarks.speed.phases import ONCE
from tests.benchmarks.speed.sizes import CPU, GPU, LEAST, NO_GPU, Size
from tests.benchmarks.speed.stage import prepare
from tests.benchmarks.table import DRY

ROOT = Path(__file__).parents[3]
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12}
"""FLOP/s of dense bf16 products, as the maker states them, by what is in the card's name."""


def profiled(size: Size, objective: str, folder: Path) -> dict[str, Any]:
    """In a process of its own, so that its peak of memory is its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.speed.phases", size.name, objective, str(folder)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.benchmark
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("objective", LEAST)
@pytest.mark.parametrize("size", [*CPU, *GPU], ids=lambda size: size.name)
def test_where_time_and_memory_go(
    size: Size, objective: str, measured: Measured, tmp_path: Path
) -> None:
    if size in GPU and not torch.cuda.is_available():
        measured("the same on a GPU, and its FLOP utilisation", NO_GPU)
        pytest.skip(NO_GPU)
    found = profiled(size, objective, tmp_path)
    seconds, steps = found["seconds"], found["steps"]
    once = sum(seconds.get(name, 0.0) for name in ONCE)
    each = {name: took / steps for name, took in seconds.items() if name not in ONCE}
    whole = sum(each.values())
    shares = sorted(each.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {took / whole:.1%}" for name, took in shares)
    what = f"a step of `{objective}`, {size.name}"
    large = [f"{name} {took / whole:.0%}" for name, took in shares if took / whole >= 0.015]
    figure = f"{', '.join(large)}; peak of memory {found['memory'] / 1e9:.1f} GB"
    if size in GPU:
        use = utilisation(size, objective, found["flops"], tmp_path / "again")
        figure += f", {found['gpu_memory'] / 1e9:.1f} GB of the GPU's, of whose FLOP/s {use}"
    measured(what, figure)
    giga = found["flops"] / 1e9
    print(f"\n{objective}, {size.name}: {1e3 * whole:.1f} ms a step, {told}; {giga:,.1f} GFLOP a"
          f" step, {giga / whole:,.0f} GFLOP/s; besides {once:.1f} s once: "
          + ", ".join(f"{name} {seconds.get(name, 0.0):.2f}" for name in ONCE))
    assert seconds["forward"] + seconds["backward"] > 0
    assert DRY or each["rest"] < 0.05 * whole


def utilisation(size: Size, objective: str, flops: int, folder: Path) -> str:
    """Share of the GPU's stated speed that training reaches when no phase is waited for."""
    stage = prepare(folder, objective, overrides=size.overrides)
    each = stage.clocked(folder / "work", size.warm).each
    card = torch.cuda.get_device_name()
    peak = next((peak for name, peak in PEAK.items() if name in card), None)
    speed = f"{flops / each / 1e12:.0f} TFLOP/s"
    return f"{speed} ({card})" if peak is None else f"{flops / each / peak:.0%}, {speed} ({card})"
