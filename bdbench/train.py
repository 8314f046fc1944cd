"""The training loop: pre-training and every fine-tuning defense run this one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bdbench.api import Features, Objective
from bdbench.augment import image_views, text_views
from bdbench.clip import Clip
from bdbench.data import Pairs, stored_tokens
from bdbench.errors import CellFailed
from bdbench.files import settle
from bdbench.group import Group, global_norms
from bdbench.hashing import derive_seed
from bdbench.schema import Augment, Hardware, Training
from bdbench.tensors import save_tensors

REPORT_EVERY = 0.5
"""Seconds between progress reports."""

EpochLog = dict[str, float]


@dataclass(frozen=True)
class Progress:
    """How far a run of the loop is."""

    epoch: int
    epochs: int
    done: int
    """Pairs that went through the model in this process."""
    total: int
    """Pairs of the whole run."""
    seen: int
    """Pairs of the whole run that are behind it, those before a restart included."""


Report = Callable[[Progress], None]


def learning_rate(step: int, steps: int, training: Training) -> float:
    """The rate of the 0-based `step` of `steps`: linear warm-up, then a cosine to zero.

    Step w-1 of w warm-up steps has the full rate; step `steps` would have rate 0.
    """
    warmup = min(training.warmup_steps, steps)
    if step >= steps:
        return 0.0
    if step < warmup:
        return training.lr * (step + 1) / warmup
    return training.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def _optimizer(modules: list[nn.Module], training: Training) -> torch.optim.AdamW:
    """A fresh AdamW; biases, norm gains and the temperature are not decayed."""
    named = [item for module in modules for item in module.named_parameters()]
    trained = [(name, p) for name, p in named if p.requires_grad]
    groups = [
        {"params": [p for _, p in trained if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for _, p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=training.lr, betas=(training.beta1, training.beta2), eps=training.eps, fused=True
    )


def fit(
    clip: Clip,
    objective: Objective,
    pairs: Pairs,
    training: Training,
    augment: Augment,
    *,
    seed: int,
    state: Path,
    after_epoch: Callable[[int], None] = lambda epoch: None,
    report: Report = lambda progress: None,
    hardware: Hardware | None = None,
) -> list[EpochLog]:
    """Train `clip` in place; one log entry per epoch.

    `state` is a file that keeps weights, optimiser and log after every epoch: where it exists, the
    run goes on from there and ends with the same bits. `after_epoch` gets the 1-based epoch.
    In a group of processes every one calls this with the same arguments.
    """
    group, hardware = Group.current(), hardware or Hardware()
    steps_per_epoch = len(pairs) // training.batch
    if steps_per_epoch == 0:
        raise CellFailed(
            f"a batch of `{training.batch}` is larger than the `{len(pairs)}` training pairs",
            "set a smaller batch",
        )
    width = clip.width()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "heads"))
        heads = objective.heads(width)
    modules = [clip.model] if heads is None else [clip.model, heads.to(clip.device)]
    if group.size > 1 and hardware.batch_norm == "global":
        global_norms(clip.model, clip.device)
    forward = group.wrap(_Forward(clip, heads))
    if hardware.compile:
        forward = cast(nn.Module, torch.compile(forward))
    autocast = torch.autocast(
        clip.device.type, torch.bfloat16, enabled=hardware.precision == "bf16"
    )
    optimizer = _optimizer(modules, training)
    first, log = _resume(state, modules, optimizer)
    texts: list[Iterable[str]] = [pairs.captions]
    if objective.views == 2:
        rng = np.random.default_rng(derive_seed(seed, "text"))
        texts.append(text_views(pairs.captions, augment, rng))
    stored = state.with_suffix(".tokens")
    if group.rank > 0:
        group.wait()
    tokens = stored_tokens(stored, clip.tokenize, len(pairs), texts)
    if group.rank == 0:
        group.wait()
    steps = steps_per_epoch * training.epochs
    pairs_per_epoch = steps_per_epoch * training.batch
    done, told = 0, time.monotonic()
    clip.model.train()
    for epoch in range(first, training.epochs):
        order = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
        views = torch.Generator().manual_seed(derive_seed(seed, "views", epoch))
        chosen = objective.begin_epoch(epoch, clip, pairs)
        pool = torch.arange(len(pairs)) if chosen is None else torch.as_tensor(chosen)
        index = pool[torch.randperm(len(pool), generator=order)]
        sums: dict[str, Tensor] = {}
        batches = index[: len(index) // training.batch * training.batch].split(training.batch)  # type: ignore[no-untyped-call]
        for i, batch in enumerate(batches):
            step = epoch * steps_per_epoch + i
            for parameters in optimizer.param_groups:
                parameters["lr"] = learning_rate(step, steps, training)
            images, text = _batch(objective, pairs, tokens, batch, augment, views, group)
            with autocast:
                features = forward(images, clip.trim(text).to(clip.device))
            shape = (objective.views, len(batch) // group.size, -1)
            terms = objective.loss(
                Features(*(group.gather(one.view(shape)) for one in features)), heads, clip.scale
            )
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            clip.clamp_scale()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach()
            done += training.batch
            if time.monotonic() - told > REPORT_EVERY:
                told = time.monotonic()
                seen = epoch * pairs_per_epoch + (i + 1) * training.batch
                report(Progress(epoch + 1, training.epochs, done, steps * training.batch, seen))
        means = {name: float(total) / max(1, len(batches)) for name, total in sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise CellFailed(
                f"the loss is not finite in epoch {epoch + 1} at learning rate `{training.lr:g}`",
                "lower the learning rate",
            )
        log.append({"epoch": epoch + 1, **means, "scale": float(clip.scale.detach())})
        if group.rank == 0:
            after_epoch(epoch + 1)
            _save(state, modules, optimizer, log)
    return log


class _Forward(nn.Module):
    """Both encoders in one call, around every parameter that is trained."""

    def __init__(self, clip: Clip, heads: nn.Module | None) -> None:
        super().__init__()
        self.model, self.heads, self._clip = clip.model, heads, clip

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return self._clip.encode_image(images), self._clip.encode_text(texts)


def _batch(
    objective: Objective, pairs: Pairs, tokens: Tensor, batch: Tensor, augment: Augment,
    generator: torch.Generator, group: Group,
) -> tuple[Tensor, Tensor]:
    """Images and tokens: the clean views first, then the augmented ones, in one concatenation."""
    index = group.share(batch)
    images, texts = pairs.images(index), tokens[:, index].flatten(0, 1).long()
    if objective.views == 2:
        images = torch.cat([images, image_views(images, augment, generator, group)])
    return images, texts


def _save(
    path: Path, modules: list[nn.Module], optimizer: torch.optim.AdamW, log: list[EpochLog]
) -> None:
    tensors = {
        f"module.{i}.{name}": value.contiguous().clone()
        for i, module in enumerate(modules) for name, value in module.state_dict().items()
    }
    for i, slot in optimizer.state_dict()["state"].items():
        for name, value in slot.items():
            tensors[f"adam.{i}.{name}"] = value.contiguous().clone()
    aside = path.with_suffix(".new")
    save_tensors(tensors, aside, metadata={"log": json.dumps(log)})
    settle(aside, path)


def _resume(
    path: Path, modules: list[nn.Module], optimizer: torch.optim.AdamW
) -> tuple[int, list[EpochLog]]:
    """Epochs already done and their log; none where a power loss left half a file."""
    if not path.exists():
        return 0, []
    try:
        with safe_open(path, framework="pt") as file:
            log: list[EpochLog] = json.loads(file.metadata()["log"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return 0, []
    state: dict[int, dict[str, Tensor]] = {}
    weights: list[dict[str, Tensor]] = [{} for _ in modules]
    parameters = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        kind, index, rest = name.split(".", 2)
        if kind == "adam":
            # The fused optimiser walks memory, so its moments must lie as their parameters do.
            like = parameters[int(index)]
            laid = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(index), {})[rest] = laid
        else:
            weights[int(index)][rest] = value
    for module, values in zip(modules, weights, strict=True):
        module.load_state_dict(values)
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return len(log), log
