"""Training over several epochs from JPEG shards, against open_clip's own trainer.

The same model, tokens, pairs, batch, epochs, precision and optimiser; each from its own start to
the weights on disk. bdbench decodes the shards once, those of the tests too, and that counts.
open_clip's trainer decodes and crops in every epoch; it is given unpacked shards, no evaluation, no
checkpoint but the last, and like bdbench the settings with which it was the fastest. What it does
as it comes is measured too, and what the machine allows: a bare loop on ready tensors.

It rounds an epoch up to whole batches of every worker. The pairs here are whole batches of each.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from bdbench.environment import cores
from bdbench.registry import Registry
from tests.benchmarks.bare import loop
from tests.benchmarks.conftest import Measured
from tests.benchmarks.speed.sizes import NO_GPU
from tests.benchmarks.speed.stage import prepare
from tests.benchmarks.table import DRY, spread

ROOT = Path(__file__).parents[3]
PACKS = Path(os.environ.get("BDBENCH_DATA") or ROOT.parent / "shared" / "datapacks")
SHARDS, PAIRS, EPOCHS, ROUNDS = (1, 1_024, 1, 1) if DRY else (2, 7_680, 7, 2)
PARTS = 4
"""Files that a shard is unpacked to: open_clip's trainer wants no fewer files than workers."""
LEAST = {"cpu": 2.0, "cuda": 1.0}
"""Promised, by device."""
OURS = [(1, 1)] if DRY else [(1, cores())]
"""Processes and threads that are tried for an epoch of half of the pairs; the fastest counts."""
THEIRS = [(1, 1)] if DRY else [(workers, threads) for workers in (1, 2) for threads in (1, 2)]
"""The same of open_clip's trainer: workers and threads. It trains in one process on a CPU."""
AS_IT_COMES = (4, cores())
"""Its own number of workers, and torch's of threads."""


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
    """The shards as plain tar files, `PARTS` of each; returns the pattern that names them."""
    for i in range(SHARDS):
        packed = PACKS / f"cococap-train-72-{i:04}.tar.gz"
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed.read_bytes()))) as shard:
            members = [member for member in shard if member.isfile()]
            samples = list(dict.fromkeys(Path(member.name).stem for member in members))
            for part in range(PARTS):
                chosen = set(samples[part::PARTS])
                with tarfile.open(folder / f"{i * PARTS + part}.tar", "w") as file:
                    for member in members:
                        if Path(member.name).stem in chosen:
                            file.addfile(member, shard.extractfile(member))
    return f"{folder}/{{0..{SHARDS * PARTS - 1}}}.tar"


def shapes(run: Mapping[str, Any]) -> dict[str, list[int]]:
    """Of every tensor of the model, by name."""
    path = Path(run["model"])
    if path.is_dir():
        with safe_open(path / "model.safetensors", "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: list(value.shape) for name, value in state.items()}


def on(device: str) -> dict[str, str]:
    """The hardware of ours; open_clip's trainer has TF32 on a GPU."""
    return {"device": device, "precision": "fp32" if device == "cpu" else "tf32"}


def bare(folder: Path, device: str) -> float:
    """Samples a second of forward, backward and step alone, with one thread or a thread a core."""
    speeds = []
    for threads in {1, cores()}:
        stage = prepare(folder, "mmcl", "coco_mini", {
            "recipe": {"pretrain": {"epochs": 1}, "threads": {"pretrain": threads},
                       "hardware": on(device)},
            "dataset": {"train": {"files": "cococap-train-72-0000.tar.gz", "stop": PAIRS // 2},
                        "digest": "", "path": str(PACKS)},
        })
        clip, batches = stage.bare()
        clock = loop(clip, stage.objective, batches, stage.training)
        speeds.append(stage.steps * stage.training.batch / clock.whole)
    return max(speeds)


def rate(run: Mapping[str, Any], what: str) -> float:
    """Samples a second of the `whole` run or of its `training`."""
    return float(run["samples"] / run[what])


@pytest.mark.benchmark
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not PACKS.exists(), reason="needs the COCO shards in ../shared/datapacks")
@pytest.mark.skipif(
    importlib.util.find_spec("webdataset") is None,
    reason="needs what open_clip's trainer does: pip install 'webdataset<=0.2.86' braceexpand",
)
@pytest.mark.parametrize("device", LEAST)
def test_samples_per_second(device: str, measured: Measured, tmp_path: Path) -> None:
    where = "" if device == "cpu" else ", on a GPU"
    if where and not torch.cuda.is_available():
        measured(f"the race with open_clip's trainer{where}", NO_GPU, f"at least {LEAST[device]:g}")
        pytest.skip(NO_GPU)
    training = Registry().recipe("coco_mini").training("mmcl")
    shards, model = unpacked(tmp_path), ""

    def ours(name: str, settings: tuple[int, int], epochs: int, pairs: int) -> dict[str, Any]:
        threads = {"pretrain": settings[1]}
        hardware = {**on(device), "processes": settings[0]}
        files = f"cococap-train-72-{{0000..{SHARDS - 1:04}}}.tar.gz"
        return train("ours", {"folder": str(tmp_path / name), "overrides": {
            "recipe": {
                "pretrain": {"epochs": epochs}, "threads": threads, "hardware": hardware,
            },
            "dataset": {"train": {"files": files, "stop": pairs}, "digest": ""},
        }})

    def theirs(name: str, settings: tuple[int, int], epochs: int, pairs: int) -> dict[str, Any]:
        return train("theirs", {
            "folder": str(tmp_path / name), "model": model, "shards": shards, "samples": pairs,
            "workers": settings[0], "threads": settings[1], "device": device,
            "training": training.model_copy(update={"epochs": epochs}).model_dump(),
        })

    best = []
    for side, settings in ((ours, OURS), (theirs, THEIRS)):
        tried = {}
        for one in settings:
            run = side(f"{side.__name__}-{one[0]}-{one[1]}", one, 1, PAIRS // 2)
            tried[one] = run["samples"] / run["training"]
            model = model or run["model"]
            print(f"\n{side.__name__}, {one[0]} processes or workers, {one[1]} threads:"
                  f" {tried[one]:,.0f} pairs/s in an epoch")
        best.append(max(tried, key=tried.__getitem__))
    own, other, usual = [], [], []
    for i in range(ROUNDS):
        other.append(theirs(f"theirs-{i}", best[1], EPOCHS, PAIRS))
        own.append(ours(f"ours-{i}", best[0], EPOCHS, PAIRS))
        usual.append(theirs(f"usual-{i}", AS_IT_COMES, EPOCHS, PAIRS))
        assert shapes(own[i]) == shapes(other[i])
        assert own[i]["samples"] == other[i]["samples"] == usual[i]["samples"]
        print(f"round {i + 1}: loss at the end {own[i]['loss']:.3f}, {other[i]['loss']:.3f} and"
              f" {usual[i]['loss']:.3f}")
    floor = bare(tmp_path / "bare", device)

    def over(those: Sequence[Mapping[str, Any]], what: str) -> list[float]:
        return [rate(a, what) / rate(b, what) for a, b in zip(own, those, strict=True)]

    def speed(runs: Sequence[Mapping[str, Any]], what: str) -> float:
        return statistics.median(rate(run, what) for run in runs)

    ratio = statistics.median(ratios := over(other, "whole"))
    measured(
        f"{EPOCHS} epochs of {PAIRS:,} pairs of `coco_mini` from JPEG shards, over open_clip's own"
        f" trainer at its fastest{where}",
        f"{spread(ratios)}; {speed(own, 'whole'):,.0f} against {speed(other, 'whole'):,.0f}"
        " pairs/s",
        f"at least {LEAST[device]:g}{', missed' if ratio < LEAST[device] else ''}",
    )
    measured(
        f"the same over that trainer as it comes{where}",
        f"{spread(over(usual, 'whole'))}; against {speed(usual, 'whole'):,.0f} pairs/s",
    )
    measured(
        f"an epoch of the two, once our images are decoded{where}",
        f"{spread(over(other, 'training'))}; decoding"
        f" {statistics.median(run['decoding'] for run in own):.0f} s",
    )
    measured(
        f"a bare loop of that model over an epoch of that trainer{where}",
        f"{floor / speed(other, 'training'):.2f}; {floor:,.0f} pairs/s",
    )
    assert DRY or ratio > 1
