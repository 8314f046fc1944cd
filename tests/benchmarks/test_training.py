"""The pretrain stage against the bare loop; run with `pytest -m benchmark -s`.

Both are timed in turn, so that a machine that drifts slows both.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
import torch

from bdbench.api import Objective
from bdbench.clip import Clip
from bdbench.data import DataCache
from bdbench.execute import execute
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Training
from bdbench.stages import Context
from bdbench.stages.pretrain import run as pretrain
from bdbench.store import RESUME, Store
from tests.benchmarks.bare import loop, ready

EPOCHS, ROUNDS = 2, 5


@pytest.mark.benchmark
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "limit"), [("mmcl", 1.10), ("mmcl_ssl", 1.15)])
def test_overhead_of_the_pretrain_stage(name: str, limit: float, tmp_path: Path) -> None:
    registry, store = Registry(), Store(tmp_path)
    wanted = cells(registry, recipe="tiny", attacks=["badnet"], objectives=[name],
                   defenses=["none"], seeds=[0])
    whole = plan(registry, wanted, {"recipe": {"pretrain": {"epochs": EPOCHS}}})
    first = Plan({k: n for k, n in whole.nodes.items() if n.stage in ("data", "poison")},
                 whole.stages)
    execute(first, store)
    (node,) = (n for n in whole.nodes.values() if n.stage == "pretrain")
    inputs = {role: store.open(whole.stages[key], key) for role, key in node.inputs.items()}
    recipe = registry.recipe("tiny")
    training = Training(**node.spec["train"])
    objective = registry.build("objective", node.spec["objective"])
    assert isinstance(objective, Objective)
    pairs = DataCache(inputs["data"].path).pairs("train")
    torch.set_num_threads(recipe.threads.pretrain)
    clip = Clip.build(recipe.model, pairs.captions, 0)
    batches = ready(clip, objective, pairs, training.batch)
    ratios, speeds = [], []
    for round_ in range(ROUNDS):
        work = tmp_path / f"work{round_}"
        (work / RESUME).mkdir(parents=True)
        floor = loop(clip, objective, batches, training)
        begun = time.perf_counter()
        samples = pretrain(node.spec, inputs, work, Context(registry, lambda progress: None))
        ours = time.perf_counter() - begun
        ratios.append(ours / floor)
        speeds.append(samples / ours)
    print(f"\n{name}: pretrain stage / bare loop, median {statistics.median(ratios):.3f}"
          f" ({min(ratios):.3f} to {max(ratios):.3f}) of {ROUNDS}, limit {limit};"
          f" {statistics.median(speeds):,.0f} pairs/s")
    assert statistics.median(ratios) <= limit
