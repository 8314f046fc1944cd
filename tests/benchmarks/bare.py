"""The bare loop that training is measured against: forward, backward and step on ready tensors."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdbench.api import Features, Objective
from bdbench.clip import Clip
from bdbench.data import Pairs
from bdbench.schema import Hardware, Training
from bdbench.train import _optimizer


@dataclass
class Clock:
    """When every step began, and when the last one ended.

    A GPU is waited for before the first step that counts and at the end, and not in between.
    """

    device: torch.device
    warm: int = 0
    """Steps before those that count: the first ones pay for memory, kernels and the optimiser."""
    begun: list[float] = field(default_factory=list)
    ended: float = 0.0

    def step(self) -> None:
        """A step begins."""
        if len(self.begun) == self.warm:
            self._wait()
        self.begun.append(time.perf_counter())

    def end(self) -> None:
        """The last step has ended."""
        self._wait()
        self.ended = time.perf_counter()

    @property
    def whole(self) -> float:
        """Seconds of all steps."""
        return self.ended - self.begun[0]

    @property
    def each(self) -> float:
        """Seconds of a step, those that warm up left out."""
        return (self.ended - self.begun[self.warm]) / (len(self.begun) - self.warm)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Batches:
    """An epoch of ready batches: images float [steps, views b, 3, h, w], tokens alike."""

    images: Tensor
    tokens: Tensor


def ready(clip: Clip, objective: Objective, pairs: Pairs, batch: int) -> Batches:
    """Every batch of an epoch as tensors, the clean view standing in for the augmented one."""
    steps = len(pairs) // batch
    index = torch.arange(steps * batch).view(steps, batch)
    tokens = clip.trim(clip.tokenize(pairs.captions))
    views = objective.views
    return Batches(
        torch.stack([torch.cat([pairs.images(at)] * views) for at in index]).to(clip.device),
        torch.stack([torch.cat([tokens[at]] * views) for at in index]).to(clip.device),
    )


def step(
    clip: Clip, objective: Objective, images: Tensor, tokens: Tensor, hardware: Hardware
) -> None:
    """Forward and backward on one batch, images float [views b, 3, h, w]."""
    shape = (objective.views, len(images) // objective.views, -1)
    with torch.autocast(
        clip.device.type, torch.bfloat16, enabled=hardware.precision == "bf16"
    ):
        encoded = clip.encode_image(images), clip.encode_text(tokens)
    features = Features(*(one.view(shape) for one in encoded))
    loss = torch.stack(list(objective.loss(features, None, clip.scale).values())).sum()
    loss.backward()  # type: ignore[no-untyped-call]


def loop(
    clip: Clip, objective: Objective, batches: Batches, training: Training,
    hardware: Hardware | None = None, warm: int = 0,
) -> Clock:
    """`training.epochs` epochs without poisoning, augmentation, shuffling or logging."""
    optimizer = _optimizer([clip.model], training)
    clip.model.train()
    clock = Clock(clip.device, warm)
    for _ in range(training.epochs):
        for images, tokens in zip(batches.images, batches.tokens, strict=True):
            clock.step()
            optimizer.zero_grad(set_to_none=True)
            step(clip, objective, images, tokens, hardware or Hardware())
            optimizer.step()
    clock.end()
    return clock
