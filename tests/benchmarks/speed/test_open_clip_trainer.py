"""Training over several epochs from JPEG shards, against open_clip's own trainer.

The same model, tokens, pairs, batch, epochs, precision and optimiser; each from its own start to
the weights on disk. bdbench decodes the shards once, those of the tests too, and that counts.
open_clip's trainer decodes and crops in every epoch; it is given unpacked shards, no evaluation, no
checkpoint but the last, and the workers and threads with which it was the fastest.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from bdbench.environment import cores
from bdbench.registry import Registry
from tests.benchmarks.conftest import Measured
from tests.benchmarks.table import DRY, spread

ROOT = Path(__file__).parents[3]
PACKS = Path(os.environ.get("BDBENCH_DATA") or ROOT.parent / "shared" / "datapacks")
SHARDS, PAIRS, EPOCHS, ROUNDS = (1, 256, 1, 1) if DRY else (4, 16_000, 7, 3)
LEAST = 2.0
SETTINGS = [(1, 1)] if DRY else [(1, 1), (1, 2), (2, 1), (2, 2)]
"""Workers and threads that open_clip's trainer is tried with, for a pass over half of the pairs."""


def train(who: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """A run of `trainers.py`, with the seconds from its start to its end as `whole`."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.speed.trainers", who, json.dumps(job)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "BDBENCH_DATA": str(PACKS)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {"whole": time.perf_counter() - begun, **json.loads(done.stdout.splitlines()[-1])}


def unpacked(folder: Path) -> str:
    """The shards as plain tar files; returns the pattern that names them."""
    for i in range(SHARDS):
        packed = PACKS / f"cococap-train-72-{i:04}.tar.gz"
        (folder / f"{i}.tar").write_bytes(gzip.decompress(packed.read_bytes()))
    return f"{folder}/{{0..{SHARDS - 1}}}.tar"


def shapes(run: Mapping[str, Any]) -> dict[str, list[int]]:
    """Of every tensor of the model, by name."""
    path = Path(run["model"])
    if path.is_dir():
        with safe_open(path / "model.safetensors", "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: list(value.shape) for name, value in state.items()}


@pytest.mark.benchmark
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not PACKS.exists(), reason="needs the COCO shards in ../shared/datapacks")
@pytest.mark.skipif(
    importlib.util.find_spec("webdataset") is None,
    reason="needs open_clip's trainer: pip install 'open_clip_torch[training]'",
)
def test_samples_per_second(measured: Measured, tmp_path: Path) -> None:
    overrides: dict[str, Any] = {
        "recipe": {"pretrain": {"epochs": EPOCHS}, "threads": {"pretrain": cores()}}
    }
    files = f"cococap-train-72-{{0000..{SHARDS - 1:04}}}.tar.gz"
    overrides["dataset"] = {"train": {"files": files, "stop": PAIRS}, "digest": ""}
    training = Registry().recipe("coco_mini", overrides["recipe"]).training("mmcl")
    shards = unpacked(tmp_path)
    first = train("ours", {"folder": str(tmp_path / "first"), "overrides": overrides})
    common = {"model": first["model"], "shards": shards}

    def theirs(name: str, workers: int, threads: int, epochs: int, samples: int) -> dict[str, Any]:
        return train("theirs", {
            **common, "folder": str(tmp_path / name), "workers": workers, "threads": threads,
            "samples": samples,
            "training": training.model_copy(update={"epochs": epochs}).model_dump(),
        })

    tried = {}
    for workers, threads in SETTINGS:
        run = theirs(f"try-{workers}-{threads}", workers, threads, 1, min(PAIRS, 8000))
        tried[workers, threads] = run["samples"] / run["training"]
        print(f"\nopen_clip's trainer, {workers} workers, {threads} threads:"
              f" {tried[workers, threads]:,.0f} pairs/s")
    best = max(tried, key=tried.__getitem__)
    ratios, once, later, speeds = [], [], [], []
    for i in range(ROUNDS):
        other = theirs(f"theirs-{i}", *best, EPOCHS, PAIRS)
        own = train("ours", {"folder": str(tmp_path / f"ours-{i}"), "overrides": overrides})
        assert shapes(own) == shapes(other)
        assert own["samples"] == pytest.approx(other["samples"], rel=0.01)
        ratios.append(own["samples"] / own["whole"] / (other["samples"] / other["whole"]))
        later.append(own["samples"] / own["training"] / (other["samples"] / other["training"]))
        once.append(own["decoding"])
        speeds.append((own["samples"] / own["whole"], other["samples"] / other["whole"]))
        print(f"round {i + 1}: {speeds[-1][0]:,.0f} against {speeds[-1][1]:,.0f} pairs/s; loss at"
              f" the end {own['loss']:.3f} and {other['loss']:.3f}")
    ours, them = (statistics.median(side) for side in zip(*speeds, strict=True))
    measured(
        f"{EPOCHS} epochs of {PAIRS:,} pairs of `coco_mini` from JPEG shards, over open_clip's trainer",
        f"{spread(ratios)}; {ours:,.0f} against {them:,.0f} pairs/s", f"at least {LEAST}",
    )
    measured(
        "the same an epoch, once the images are decoded",
        f"{spread(later)}; decoding {statistics.median(once):.0f} s",
    )
    print(f"with {best[0]} workers and {best[1]} threads for open_clip's trainer")
    assert DRY or statistics.median(ratios) >= LEAST
