"""A pre-training stage with all that it reads, timed step by step or as a whole."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bdbench import train
from bdbench.api import Objective
from bdbench.clip import Clip
from bdbench.data import DataCache
from bdbench.execute import execute
from bdbench.group import device_of
from bdbench.plan import Node, Plan, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Hardware, Recipe, Training
from bdbench.stages import Context, Inputs
from bdbench.stages.pretrain import run
from bdbench.store import RESUME, Store
from tests.benchmarks.bare import Batches, Clock, ready

GPUS = [0]


@dataclass(frozen=True)
class Stage:
    """What `prepare` made."""

    registry: Registry
    recipe: Recipe
    node: Node
    inputs: Inputs
    objective: Objective
    hardware: Hardware
    training: Training

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return device_of(self.hardware, GPUS)

    @property
    def steps(self) -> int:
        """Of all epochs."""
        pairs = DataCache(self.inputs["data"].path).file.sizes["train"]
        return pairs // self.training.batch * self.training.epochs

    def bare(self) -> tuple[Clip, Batches]:
        """A model, and an epoch of ready batches."""
        data = DataCache(self.inputs["data"].path)
        pairs = data.pairs("train")
        torch.set_num_threads(self.recipe.threads.pretrain)
        clip = Clip.build(self.recipe.model, pairs.captions, 0, resolution=data.file.resolution)
        return clip.to(self.device), ready(clip, self.objective, pairs, self.training.batch)

    def run(self, work: Path) -> float:
        """Run all of it; returns the seconds."""
        (work / RESUME).mkdir(parents=True)
        context = Context(self.registry, lambda progress: None, gpus=GPUS)
        begun = time.perf_counter()
        run(self.node.spec, self.inputs, work, context)
        return time.perf_counter() - begun

    def clocked(self, work: Path, warm: int) -> Clock:
        """Run all of it, and tell when its steps began."""
        clock, steps = Clock(self.device, warm), self.steps
        batch, clamp = train._batch, Clip.clamp_scale

        def begin(*given: Any) -> Any:
            clock.step()
            return batch(*given)

        def end(clip: Clip) -> None:
            clamp(clip)
            if len(clock.begun) == steps:
                clock.end()

        with patch.object(train, "_batch", begin), patch.object(Clip, "clamp_scale", end):
            self.run(work)
        return clock


def prepare(
    folder: Path, objective: str, recipe: str = "tiny",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Stage:
    """The stage of a cell, with its data and its poison in a store below `folder`."""
    registry, store = Registry(), Store(folder / "store")
    wanted = cells(registry, recipe=recipe, attacks=["badnet"], objectives=[objective],
                   defenses=["none"], seeds=[0])
    changes = {kind: dict(values) for kind, values in (overrides or {}).items()}
    whole = plan(registry, wanted, changes)
    first = {key: node for key, node in whole.nodes.items() if node.stage in ("data", "poison")}
    execute(Plan(first, whole.stages), store)
    (node,) = (node for node in whole.nodes.values() if node.stage == "pretrain")
    built = registry.build("objective", node.spec["objective"])
    assert isinstance(built, Objective)
    return Stage(
        registry, registry.recipe(recipe, changes.get("recipe")), node,
        {role: store.open(whole.stages[key], key) for role, key in node.inputs.items()}, built,
        Hardware(**node.spec.get("hardware", {})), Training(**node.spec["train"]),
    )
