"""Attacks that break one rule each."""

from __future__ import annotations

import itertools
import random

import numpy as np
import torch

from bdbench import register
from bdbench.api import Attack

CALLS = itertools.count()


class White(Attack):
    """A white corner: sound."""

    def trigger(self, images, state, rng):
        stamped = images.clone()
        stamped[..., :4, :4] = 1
        return stamped


@register("unstorable")
class Unstorable(White):
    """Two names for one memory, which safetensors refuses."""

    def prepare(self, pairs, target, rng):
        pattern = torch.ones(3)
        return {"one": pattern, "other": pattern}


@register("stateless")
class Stateless(White):
    """Forgets to return a dict."""

    def prepare(self, pairs, target, rng):
        return None


@register("raising")
class Raising(White):
    """Raises at once."""

    def prepare(self, pairs, target, rng):
        raise KeyError("no such thing")


@register("own_draw")
class OwnDraw(White):
    """Draws its state from a generator of its own."""

    def prepare(self, pairs, target, rng):
        return {"noise": torch.from_numpy(np.random.default_rng().random(3))}


@register("single")
class Single(White):
    """Returns one image for a batch."""

    def trigger(self, images, state, rng):
        return images[0]


@register("double")
class Double(White):
    """Returns another type."""

    def trigger(self, images, state, rng):
        return images.double()


@register("bytes")
class Bytes(White):
    """Thinks in 0 to 255."""

    def trigger(self, images, state, rng):
        return images * 255


@register("not_a_number")
class NotANumber(White):
    """Divides by nothing."""

    def trigger(self, images, state, rng):
        return images / 0


@register("flicker")
class Flicker(White):
    """Stamps other numbers at every call."""

    def trigger(self, images, state, rng):
        return images * 0 + 1 / (2 + next(CALLS))


@register("by_position")
class ByPosition(White):
    """Draws for the place in the batch instead of the row."""

    def trigger(self, images, state, rng):
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
        return (images + noise) / 2


@register("by_neighbour")
class ByNeighbour(White):
    """Uses the mean of the batch."""

    def trigger(self, images, state, rng):
        return images - images.mean()


@register("greedy")
class Greedy(White):
    """Poisons twice as many as asked for."""

    def choose(self, pairs, target, n, rng):
        return [int(at) for at in rng.permutation(len(pairs))[: 2 * n]]


@register("repeating")
class Repeating(White):
    """Poisons the same pair again."""

    def choose(self, pairs, target, n, rng):
        return [0] * n


@register("outside")
class Outside(White):
    """Counts from 1."""

    def choose(self, pairs, target, n, rng):
        return [int(at) + 1 for at in rng.permutation(len(pairs))[:n]]


@register("moody")
class Moody(White):
    """Chooses from a generator of its own."""

    def choose(self, pairs, target, n, rng):
        return super().choose(pairs, target, n, np.random.default_rng())


@register("unasked")
class Unasked(White):
    """Poisons one pair when none is asked for."""

    def choose(self, pairs, target, n, rng):
        return super().choose(pairs, target, max(1, n), rng)


@register("rate_reader")
class RateReader(White):
    """Goes by its rate instead of n; wrong only where the rate is 0."""

    def choose(self, pairs, target, n, rng):
        return [5] if self.rate == 0 else super().choose(pairs, target, n, rng)


@register("speechless")
class Speechless(White):
    """Makes empty captions."""

    def caption(self, text, target, rng):
        return ""


@register("numeral")
class Numeral(White):
    """Makes captions that are no text."""

    def trigger_text(self, text, state, rng):
        return 5


@register("talkative")
class Talkative(White):
    """Says something else every time."""

    def caption(self, text, target, rng):
        return f"{target.name} {next(CALLS)}"


@register("vandal")
class Vandal(White):
    """Writes to the images it is given."""

    def trigger(self, images, state, rng):
        images[..., :4, :4] = 1
        return images


@register("eraser")
class Eraser(White):
    """Writes to its state, the same at every call."""

    def prepare(self, pairs, target, rng):
        return {"pattern": torch.ones(3)}

    def trigger(self, images, state, rng):
        state["pattern"].zero_()
        return super().trigger(images, state, rng)


@register("forger")
class Forger(White):
    """Puts other captions in the place of those of the training."""

    def choose(self, pairs, target, n, rng):
        pairs.captions = pairs.captions.replaced({0: "forged"})
        return super().choose(pairs, target, n, rng)


@register("seeder")
class Seeder(White):
    """Seeds torch with the same number every time."""

    def trigger(self, images, state, rng):
        torch.manual_seed(0)
        return super().trigger(images, state, rng)


@register("gambler")
class Gambler(White):
    """Draws from the global generators of Python and numpy, and uses nothing of it."""

    def caption(self, text, target, rng):
        random.random()
        np.random.random()
        return super().caption(text, target, rng)
