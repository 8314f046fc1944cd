"""The training loop against a bare forward-backward-step loop; run with `pytest -m benchmark -s`.

The bare loop sees ready tensors: no poisoning, no augmentation, no shuffling, no logging, no
checkpoint. Both are timed in turn, so that a machine that drifts slows both.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
import torch

from bdbench.api import Features, Objective
from bdbench.clip import Clip
from bdbench.data import DataCache
from bdbench.execute import execute
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Training
from bdbench.stages import Context
from bdbench.stages.pretrain import run as pretrain
from bdbench.store import RESUME, Store
from bdbench.train import _optimizer

EPOCHS, ROUNDS = 2, 3


def bare(clip: Clip, objective: Objective, pairs: torch.Tensor, tokens: torch.Tensor,
         training: Training) -> float:
    optimizer = _optimizer([clip.model], training)
    clip.model.train()
    shape = (objective.views, training.batch, -1)
    begun = time.perf_counter()
    for _ in range(training.epochs):
        for images, texts in zip(pairs, tokens, strict=True):
            features = Features(
                clip.encode_image(images).view(shape), clip.encode_text(texts).view(shape)
            )
            loss = torch.stack(list(objective.loss(features, None, clip.scale).values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return time.perf_counter() - begun


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
    steps = len(pairs) // training.batch
    index = torch.arange(steps * training.batch).view(steps, training.batch)
    torch.set_num_threads(recipe.threads.pretrain)
    clip = Clip.build(recipe.model, pairs.captions, 0)
    once = [pairs.images(batch) for batch in index]
    images = torch.stack([torch.cat([batch] * objective.views) for batch in once])
    tokens = clip.tokenize(pairs.captions)
    texts = torch.stack([torch.cat([tokens[batch]] * objective.views) for batch in index])
    ratios = []
    for round_ in range(ROUNDS):
        work = tmp_path / f"work{round_}"
        (work / RESUME).mkdir(parents=True)
        floor = bare(clip, objective, images, texts, training)
        begun = time.perf_counter()
        pretrain(node.spec, inputs, work, Context(registry, lambda progress: None))
        ours = time.perf_counter() - begun
        ratios.append(ours / floor)
        speed = EPOCHS * steps * training.batch / ours
        print(f"{name}: bare {floor:.2f} s, stage {ours:.2f} s, ratio {ours / floor:.3f},"
              f" {speed:,.0f} pairs/s")
    print(f"{name}: median ratio {statistics.median(ratios):.3f}"
          f" ({min(ratios):.3f} to {max(ratios):.3f}), limit {limit}")
    assert statistics.median(ratios) <= limit
