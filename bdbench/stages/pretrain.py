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
from bdbench.hashing import derive_seed
from bdbench.schema import Augment, Model, Training
from bdbench.stages import Context, Inputs
from bdbench.stages.poison import load_pairs
from bdbench.store import RESUME
from bdbench.train import fit


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write the model and one line per epoch of the loss terms."""
    torch.set_num_threads(spec["threads"])
    objective = cast(Objective, context.registry.build("objective", spec["objective"]))
    data = DataCache(inputs["data"].path)
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
        clip, objective, pairs, training, Augment(**spec["augment"]), seed=spec["seed"],
        state=work / RESUME / "fit.safetensors", report=lambda p: context.report(vars(p)),
    )
    clip.save(work)
    lines = "".join(json.dumps(epoch) + "\n" for epoch in log)
    (work / "train.jsonl").write_text(lines, encoding="utf-8")
    return training.epochs * (len(pairs) // training.batch * training.batch)
