"""Objectives that break one rule each."""

from __future__ import annotations

import itertools

import torch

from bdbench import register
from bdbench.api import Objective
from bdbench.contrast import contrast

CALLS = itertools.count()


class Plain(Objective):
    """One direction of the contrastive loss: sound."""

    def value(self, features, scale):
        return contrast(features.images[0], features.texts[0], scale)

    def loss(self, features, heads, scale):
        return {"plain": self.value(features, scale)}


@register("three_views")
class ThreeViews(Plain):
    """Asks for more views than there are."""

    views = 3


@register("bare")
class Bare(Plain):
    """Returns the loss itself."""

    def loss(self, features, heads, scale):
        return self.value(features, scale)


@register("per_pair")
class PerPair(Plain):
    """Forgets the mean."""

    def loss(self, features, heads, scale):
        return {"all": (features.images[0] * features.texts[0]).sum(-1) * scale}


@register("log_of_zero")
class LogOfZero(Plain):
    """Is infinite."""

    def loss(self, features, heads, scale):
        return {"infinite": self.value(features, scale) / 0}


@register("constant")
class Constant(Plain):
    """Returns a number that nothing learns from."""

    def loss(self, features, heads, scale):
        return {"item": torch.tensor(self.value(features, scale).item())}


@register("headless")
class Headless(Plain):
    """Trains the temperature and nothing else."""

    def loss(self, features, heads, scale):
        return {"plain": contrast(features.images[0].detach(), features.texts[0].detach(), scale)}


@register("cold")
class Cold(Plain):
    """Uses the temperature without training it."""

    def loss(self, features, heads, scale):
        return {"plain": self.value(features, scale.detach())}


@register("drifting")
class Drifting(Plain):
    """Weighs the loss by the number of calls."""

    def loss(self, features, heads, scale):
        return {"plain": self.value(features, scale) * (1 + next(CALLS))}


@register("first_pair")
class FirstPair(Plain):
    """Looks at the first pair alone."""

    def loss(self, features, heads, scale):
        return {"plain": (features.images[0, 0] * features.texts[0, 0]).sum() * scale}


@register("overwriting")
class Overwriting(Plain):
    """Changes the features in place, where autograd does not notice."""

    def loss(self, features, heads, scale):
        value = self.value(features, scale)
        features.images.data.mul_(0.5)
        return {"plain": value}


@register("noisy")
class Noisy(Plain):
    """Draws from torch's global generator, and uses nothing of it."""

    def loss(self, features, heads, scale):
        torch.rand(1)
        return {"plain": self.value(features, scale)}
