"""pretrain: train a model on the poisoned pairs, from scratch or from given weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from bdbench.api import Objective
from bdbench.clip import Clip
from bdbench.data import DataCache
from bdbench.group import Group, device_of, launch
from bdbench.hashing import derive_seed
from bdbench.schema import Augment, Hardware, Model, Training
from bdbench.stages import Context, Inputs
from bdbench.stages.poison import load_pairs
from bdbench.store import RESUME
from bdbench.train import EpochLog, fit


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write the model and one line per epoch of the loss terms."""
    processes = Hardware(**spec.get("hardware", {})).processes
    if processes == 1:
        return train(spec, inputs, work, context)
    store = inputs["data"].path.parents[2]
    launch({
        "spec": dict(spec), "work": str(work), "store": str(store),
        "plugins": [str(path) for path in context.registry.plugins],
        "inputs": {role: [at.manifest.stage, at.manifest.key] for role, at in inputs.items()},
    }, processes, context.gpus, context.report)
    training = Training(**spec["train"])
    pairs = DataCache(inputs["data"].path).file.sizes["train"]
    return training.epochs * (pairs // training.batch * training.batch)


def train(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Train in this process, which may be one of several."""
    torch.set_num_threads(spec["threads"])
    hardware = Hardware(**spec.get("hardware", {}))
    device = device_of(hardware, context.gpus)
    objective = cast(Objective, context.registry.build("objective", spec["objective"]))
    data = DataCache(inputs["data"].path, device)
    pairs = load_pairs(inputs["poison"], data, context.registry)
    training = Training(**spec["train"])
    if "init" in inputs:
        clip = Clip.load(inputs["init"].path)
    else:
        clip = Clip.build(
            Model(**spec["model"]), pairs.captions, derive_seed(spec["seed"], "init"),
            also=data.pairs("train").captions, resolution=data.file.resolution,
        )
    log = fit(
        clip.to(device), objective, pairs, training, Augment(**spec["augment"]), seed=spec["seed"],
        state=work / RESUME / "fit.safetensors", report=lambda p: context.report(vars(p)),
        hardware=hardware,
    )
    if Group.current().rank == 0:
        _write(clip, log, work)
    return training.epochs * (len(pairs) // training.batch * training.batch)


def _write(clip: Clip, log: list[EpochLog], work: Path) -> None:
    clip.save(work)
    lines = "".join(json.dumps(epoch) + "\n" for epoch in log)
    (work / "train.jsonl").write_text(lines, encoding="utf-8")
