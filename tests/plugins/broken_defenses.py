"""Defenses that break one rule each."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from bdbench import register
from bdbench.api import Filter, Repair
from bdbench.objectives.mmcl import Mmcl
from bdbench.schema import Training

CALLS = itertools.count()
ONE_EPOCH = Training(epochs=1, batch=32, lr=1e-3)


def weight(clip):
    return next(iter(clip.model.parameters()))


class Tune(Repair):
    """One epoch of fine-tuning: sound."""

    def repair(self, clip, budget):
        return budget.fit(clip, Mmcl(), ONE_EPOCH)


@register("sieve")
class Sieve(Filter):
    """Another role."""

    def score(self, pairs, clip, rng):
        return np.zeros(len(pairs))


@register("returns_nothing")
class ReturnsNothing(Tune):
    """Forgets to return the model."""

    def repair(self, clip, budget):
        super().repair(clip, budget)


@register("out_of_range")
class OutOfRange(Tune):
    """Raises."""

    def repair(self, clip, budget):
        return [clip][1]


@register("grown")
class Grown(Tune):
    """Adds a tensor to the model."""

    def repair(self, clip, budget):
        clip.model.register_buffer("extra", torch.zeros(1))
        return clip


@register("half")
class Half(Tune):
    """Changes the type of the weights."""

    def repair(self, clip, budget):
        clip.model.half()
        return clip


@register("blown")
class Blown(Tune):
    """Ends in infinity."""

    def repair(self, clip, budget):
        weight(clip).data /= 0
        return clip


@register("from_zero")
class FromZero(Tune):
    """Counts its steps from 0."""

    def repair(self, clip, budget):
        budget.snapshot(clip, 0)
        return clip


@register("afterthought")
class Afterthought(Tune):
    """Changes the model after the last snapshot."""

    def repair(self, clip, budget):
        clip = super().repair(clip, budget)
        weight(clip).data *= 0.5
        return clip


@register("counting")
class Counting(Tune):
    """Does something else at every call."""

    def repair(self, clip, budget):
        weight(clip).data += next(CALLS) + 1
        return super().repair(clip, budget)


@register("litter")
class Litter(Tune):
    """Leaves a log."""

    def repair(self, clip, budget):
        Path("litter.log").write_text("was here")
        return super().repair(clip, budget)


@register("litter_below")
class LitterBelow(Tune):
    """Leaves a log in a folder below the current one."""

    def repair(self, clip, budget):
        Path("logs").mkdir(exist_ok=True)
        with Path("logs/litter.log").open("a") as log:
            log.write("was here")
        return super().repair(clip, budget)


@register("litter_native")
class LitterNative(Tune):
    """Leaves a file that is written by native code, which Python does not see."""

    def repair(self, clip, budget):
        save_file({"x": torch.ones(1)}, "litter.safetensors")
        return super().repair(clip, budget)


@register("seeding")
class Seeding(Tune):
    """Seeds torch for the whole process."""

    def repair(self, clip, budget):
        torch.manual_seed(budget.seed)
        return super().repair(clip, budget)
