from __future__ import annotations

import numpy as np
import pytest
import torch

from bdbench.api import Target
from bdbench.attacks.blended import Blended
from bdbench.data import Pairs, RowRng

TARGET = Target("banana", 1, ("a photo of a {}.",))
SIDE = 10


def state_of(attack):
    pairs = Pairs(torch.arange(2), torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), ["a", "b"])
    return attack.prepare(pairs, TARGET, np.random.default_rng(0))


def naive_blend(attack, images, ids, state, seed):
    """One image at a time, one pixel at a time, in float64."""
    blocks = -(-SIDE // attack.block)
    out = images.double()
    for i in range(len(images)):
        if attack.pattern == "fixed":
            noise = state["pattern"][:, :: attack.block, :: attack.block]
        else:
            noise = RowRng(seed, ids[i : i + 1]).uniform(3, blocks, blocks)[0]
            noise = (noise * 256).floor() / 255
        for y in range(SIDE):
            for x in range(SIDE):
                t = noise[:, y // attack.block, x // attack.block].double()
                out[i, :, y, x] = (1 - attack.alpha) * out[i, :, y, x] + attack.alpha * t
    return out


@pytest.mark.parametrize("pattern", ["fixed", "per_image"])
@pytest.mark.parametrize("block", [1, 2, 4, 16])
@pytest.mark.parametrize("alpha", [0.2, 0.7])
def test_agrees_with_a_loop_over_images(pattern, block, alpha):
    attack = Blended(alpha=alpha, pattern=pattern, block=block)
    state, ids = state_of(attack), torch.tensor([4, 2**40, 0])
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    got = attack.trigger(images, state, RowRng(5, ids))
    expected = naive_blend(attack, images, ids, state, 5)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-7)
    assert torch.equal(images, before)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 1.0])
def test_stays_within_0_and_1(alpha, value):
    images = torch.full((50, 3, SIDE, SIDE), value)
    got = Blended(alpha=alpha).trigger(images, {}, RowRng(0, torch.arange(50)))
    assert 0 <= got.min() <= got.max() <= 1


def test_alpha_0_leaves_the_image_and_alpha_1_shows_the_noise():
    images, rng = torch.rand(2, 3, SIDE, SIDE), RowRng(0, torch.arange(2))
    assert torch.equal(Blended(alpha=0.0).trigger(images, {}, rng), images)
    opaque = Blended(alpha=1.0, pattern="fixed")
    state = state_of(opaque)
    assert torch.equal(opaque.trigger(images, state, rng)[1], state["pattern"])


def test_a_row_gets_the_same_trigger_in_any_batch():
    images, ids = torch.rand(6, 3, SIDE, SIDE), torch.arange(6)
    whole = Blended().trigger(images, {}, RowRng(1, ids))
    pick = torch.tensor([5, 1])
    assert torch.equal(Blended().trigger(images[pick], {}, RowRng(1, ids[pick])), whole[pick])


def test_a_fixed_pattern_is_shared_and_a_per_image_one_is_not():
    images = torch.zeros(2, 3, SIDE, SIDE)
    fixed = Blended(pattern="fixed")
    one, two = fixed.trigger(images, state_of(fixed), RowRng(0, torch.arange(2)))
    assert torch.equal(one, two)
    one, two = Blended().trigger(images, {}, RowRng(0, torch.arange(2)))
    assert not torch.equal(one, two)
