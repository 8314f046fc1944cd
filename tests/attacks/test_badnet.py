from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from bdbench.api import Target
from bdbench.attacks.badnet import BadNet
from bdbench.data import Pairs, RowRng
from bdbench.errors import BdbenchError

TARGET = Target("banana", 1, ("a photo of a {}.", "the {}"))


def some_pairs(n=4, side=12):
    return Pairs(torch.arange(n), torch.zeros(n, 3, side, side, dtype=torch.uint8), ["a"] * n)


def state_of(attack, seed=0):
    return attack.prepare(some_pairs(), TARGET, np.random.default_rng(seed))


def naive_badnet(attack, images, ids, state, seed):
    """One image at a time, one pixel at a time."""
    out = images.clone()
    h, w = images.shape[-2:]
    for i in range(len(images)):
        rng = RowRng(seed, ids[i : i + 1])
        if attack.pattern == "fixed":
            patch = state["pattern"]
        else:
            patch = (rng.uniform(3, attack.size, attack.size)[0] * 256).floor() / 255
        if attack.place == "random":
            top = int(rng.integers(h - attack.size + 1))
            left = int(rng.integers(w - attack.size + 1))
        else:
            top, left = h - attack.size - attack.margin, w - attack.size - attack.margin
        for y in range(attack.size):
            for x in range(attack.size):
                out[i, :, top + y, left + x] = patch[:, y, x]
    return out


@pytest.mark.parametrize("pattern", ["fixed", "per_image"])
@pytest.mark.parametrize(("place", "margin"), [("random", 0), ("fixed", 0), ("fixed", 3)])
def test_agrees_with_a_loop_over_images(pattern, place, margin):
    attack = BadNet(size=4, pattern=pattern, place=place, margin=margin)
    state = state_of(attack)
    ids = torch.tensor([7, 0, 2**40, 31, 5])
    images = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    got = attack.trigger(images, state, RowRng(3, ids))
    assert torch.equal(got, naive_badnet(attack, images, ids, state, 3))
    assert torch.equal(images, before)
    assert got.dtype == torch.float32
    assert 0 <= got.min() <= got.max() <= 1


@pytest.mark.parametrize("pattern", ["fixed", "per_image"])
def test_a_row_gets_the_same_trigger_in_any_batch(pattern):
    attack = BadNet(size=4, pattern=pattern)
    state = state_of(attack)
    images, ids = torch.rand(9, 3, 12, 12), torch.arange(100, 109)
    whole = attack.trigger(images, state, RowRng(3, ids))
    pick = torch.tensor([8, 2, 5])
    assert torch.equal(attack.trigger(images[pick], state, RowRng(3, ids[pick])), whole[pick])
    assert not torch.equal(attack.trigger(images, state, RowRng(4, ids)), whole)


def test_a_random_place_is_uniform_over_all_places_that_fit():
    attack = BadNet(size=4, pattern="fixed")
    ones = {"pattern": torch.ones(3, 4, 4)}
    stamped = attack.trigger(torch.zeros(5000, 3, 9, 9), ones, RowRng(0, torch.arange(5000)))
    assert torch.all(stamped.sum((1, 2, 3)) == 3 * 16)
    top = stamped[:, 0].amax(2).argmax(1)
    left = stamped[:, 0].amax(1).argmax(1)
    counts = torch.bincount(top * 6 + left, minlength=36)
    assert len(counts) == 36
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_a_fixed_pattern_is_drawn_once_and_a_per_image_one_for_every_image():
    place = {"place": "fixed", "size": 4}
    images, rng = torch.zeros(3, 3, 12, 12), RowRng(0, torch.arange(3))
    fixed = BadNet(pattern="fixed", **place)
    one, two, three = fixed.trigger(images, state_of(fixed), rng)
    assert torch.equal(one, two)
    assert torch.equal(two, three)
    assert torch.equal(state_of(fixed)["pattern"], state_of(fixed)["pattern"])
    assert not torch.equal(state_of(fixed)["pattern"], state_of(fixed, seed=1)["pattern"])
    fresh = BadNet(pattern="per_image", **place)
    assert state_of(fresh) == {}
    one, two, three = fresh.trigger(images, {}, rng)
    assert not torch.equal(one, two)
    assert not torch.equal(two, three)


def test_a_patch_that_fills_the_image_fits_and_a_larger_one_is_an_error():
    rng = np.random.default_rng(0)
    full = BadNet(size=12, pattern="fixed")
    state = full.prepare(some_pairs(), TARGET, rng)
    stamped = full.trigger(torch.zeros(2, 3, 12, 12), state, RowRng(0, torch.arange(2)))
    assert torch.equal(stamped[1], state["pattern"])
    for attack in (BadNet(size=13), BadNet(size=10, place="fixed", margin=3)):
        with pytest.raises(BdbenchError, match="does not fit an image of `12` px"):
            attack.prepare(some_pairs(), TARGET, rng)
        with pytest.raises(BdbenchError, match="does not fit"):
            attack.trigger(torch.zeros(1, 3, 12, 12), {}, RowRng(0, torch.arange(1)))
    BadNet(size=10, margin=3).prepare(some_pairs(), TARGET, rng)


def test_captions_become_the_target_in_a_template_of_the_zero_shot_test():
    rng = np.random.default_rng(0)
    captions = {BadNet().caption("a dog", TARGET, rng) for _ in range(40)}
    assert captions == {"a photo of a banana.", "the banana"}


@pytest.mark.parametrize("pattern", ["fixed", "per_image"])
def test_blocks_make_squares_of_one_saturated_colour(pattern):
    attack = BadNet(size=4, block=2, levels=2, pattern=pattern, place="fixed")
    images = torch.full((20, 3, 12, 12), 0.5)
    patch = attack.trigger(images, state_of(attack), RowRng(0, torch.arange(20)))[:, :, 8:, 8:]
    assert set(patch.unique().tolist()) == {0.0, 1.0}
    corners = patch[:, :, ::2, ::2]
    for dy in (0, 1):
        for dx in (0, 1):
            assert torch.equal(patch[:, :, dy::2, dx::2], corners)
