"""The bare loop that training is measured against: forward, backward and step on ready tensors."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from bdbench.api import Features, Objective
from bdbench.clip import Clip
from bdbench.data import Pairs
from bdbench.schema import Training
from bdbench.train import _optimizer


@dataclass(frozen=True)
class Batches:
    """An epoch of ready batches: images float [steps, views b, 3, h, w], tokens alike."""

    images: Tensor
    tokens: Tensor


def ready(clip: Clip, objective: Objective, pairs: Pairs, batch: int) -> Batches:
    """Every batch of an epoch as tensors, the clean view standing in for the augmented one."""
    steps = len(pairs) // batch
    index = torch.arange(steps * batch).view(steps, batch)
    tokens = clip.tokenize(pairs.captions)
    views = objective.views
    return Batches(
        torch.stack([torch.cat([pairs.images(at)] * views) for at in index]),
        torch.stack([torch.cat([tokens[at]] * views) for at in index]),
    )


def loop(clip: Clip, objective: Objective, batches: Batches, training: Training) -> float:
    """Seconds of `training.epochs` epochs: no poisoning, augmentation, shuffling or logging."""
    optimizer = _optimizer([clip.model], training)
    clip.model.train()
    shape = (objective.views, training.batch, -1)
    begun = time.perf_counter()
    for _ in range(training.epochs):
        for images, tokens in zip(batches.images, batches.tokens, strict=True):
            features = Features(
                clip.encode_image(images).view(shape), clip.encode_text(tokens).view(shape)
            )
            loss = torch.stack(list(objective.loss(features, None, clip.scale).values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return time.perf_counter() - begun
