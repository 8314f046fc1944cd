from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from bdbench.api import Attack, Target
from bdbench.data import Images, Labelled, Pairs, PoisonedPairs, Trigger
from bdbench.registry import Registry


class Mark(Attack):
    """Writes a number of the row's own into the corner pixel."""

    strength: float = 1.0

    def trigger(self, images, state, rng):
        images = images.clone()
        images[:, :, 0, 0] = self.strength * rng.uniform(3)
        return images


def some_pairs(n=10, side=4):
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, side, side), generator=g, dtype=torch.uint8)
    return Pairs(torch.arange(100, 100 + n), pixels, [f"caption {i}" for i in range(n)])


def poisoned_pairs(pairs, positions=(2, 5, 9)):
    trigger = Trigger(Mark(), {}, 7)
    captions = [f"banana {i}" for i in positions]
    return PoisonedPairs(pairs, torch.tensor(positions), captions, trigger)


def test_images_are_pixels_over_255():
    pairs = some_pairs()
    got = pairs.images(torch.tensor([4, 4, 0]))
    assert got.dtype == torch.float32
    for image, position in zip(got, (4, 4, 0), strict=True):
        for value, pixel in zip(
            image.flatten().tolist(), pairs.pixels[position].flatten().tolist(), strict=True
        ):
            assert value == pytest.approx(pixel / 255, abs=1e-7)
    assert len(pairs) == 10
    assert pairs.resolution == 4


def test_only_the_poisoned_positions_carry_the_trigger():
    pairs = some_pairs()
    poisoned = poisoned_pairs(pairs)
    clean, got = pairs.images(torch.arange(10)), poisoned.images(torch.arange(10))
    for position in range(10):
        assert torch.equal(clean[position], got[position]) == (position not in (2, 5, 9))
    assert torch.equal(clean[:, :, 1:], got[:, :, 1:])
    assert torch.equal(clean[:, :, :, 1:], got[:, :, :, 1:])


def test_only_the_captions_of_the_poisoned_positions_change():
    poisoned = poisoned_pairs(some_pairs())
    assert list(poisoned.captions) == [
        f"banana {i}" if i in (2, 5, 9) else f"caption {i}" for i in range(10)
    ]


def test_the_original_is_untouched():
    pairs, untouched = some_pairs(), some_pairs()
    poisoned = poisoned_pairs(pairs)
    poisoned.images(torch.arange(10))
    assert torch.equal(pairs.pixels, untouched.pixels)
    assert list(pairs.captions) == list(untouched.captions)
    assert torch.equal(pairs.images(torch.arange(10)), untouched.images(torch.arange(10)))


def test_a_trigger_is_addressed_by_row_id_in_training_and_in_evaluation():
    pairs = some_pairs()
    poisoned, trigger = poisoned_pairs(pairs), Trigger(Mark(), {}, 7)
    whole = poisoned.images(torch.arange(10))
    assert torch.equal(poisoned.images(torch.tensor([9, 1, 2])), whole[[9, 1, 2]])
    assert torch.equal(trigger(pairs.images(torch.tensor([5])), torch.tensor([105])), whole[[5]])
    other = Trigger(Mark(), {}, 8)
    assert not torch.equal(other(pairs.images(torch.tensor([5])), torch.tensor([105])), whole[[5]])


def test_what_a_trigger_returns_is_clipped():
    trigger = Trigger(Mark(strength=-3.0), {}, 0)
    stamped = trigger(torch.full((2, 3, 4, 4), 0.5), torch.arange(2))
    assert torch.all(stamped[:, :, 0, 0] == 0)
    assert torch.all(stamped[:, :, 1:] == 0.5)


def test_no_poison_at_all():
    pairs = some_pairs()
    poisoned = PoisonedPairs(
        pairs, torch.tensor([], dtype=torch.int64), [], Trigger(Mark(), {}, 0)
    )
    assert torch.equal(poisoned.images(torch.arange(10)), pairs.images(torch.arange(10)))
    assert list(poisoned.captions) == list(pairs.captions)


def test_positions_and_captions_must_match():
    with pytest.raises(ValueError, match="zip"):
        PoisonedPairs(some_pairs(), torch.tensor([1, 2]), ["one"], Trigger(Mark(), {}, 0))


def test_labelled_images_are_images():
    pairs = some_pairs()
    labels = torch.zeros(10, dtype=torch.int64)
    labelled = Labelled(pairs.ids, pairs.pixels, labels, ("a",), ("{}",))
    assert isinstance(labelled, Images)
    assert torch.equal(labelled.images(torch.arange(3)), pairs.images(torch.arange(3)))
    assert labelled.classes == ["a"]


class Counted(Mark):
    """Counts the images that it stamps."""

    stamped: ClassVar[list[int]] = []

    def trigger(self, images, state, rng):
        self.stamped.append(len(images))
        return super().trigger(images, state, rng)


@pytest.mark.parametrize("room", [2**31, 3 * 3 * 4 * 4 * 4 - 1])
def test_each_image_is_stamped_once_where_all_can_be_kept(room, monkeypatch):
    monkeypatch.setattr("bdbench.data.pairs._KEPT", room)
    monkeypatch.setattr("bdbench.data.pairs._STAMPED", 2)
    Counted.stamped.clear()
    trigger, positions = Trigger(Counted(), {}, 7), torch.tensor([9, 2, 5])
    pairs = PoisonedPairs(some_pairs(), positions, ["banana"] * 3, trigger)
    whole = poisoned_pairs(some_pairs()).images(torch.arange(10))
    for index in ([9, 1, 2], [5, 5, 0], [9, 2]):
        assert torch.equal(pairs.images(torch.tensor(index)), whole[index])
    assert Counted.stamped == ([2, 1] if room == 2**31 else [2, 2, 2])


@pytest.mark.parametrize("name", ["badnet", "badnet_fixed", "blended", "label_consistent"])
def test_kept_images_have_the_bits_of_those_stamped_in_any_batch(name, monkeypatch):
    registry = Registry()
    ref, _ = registry.resolve("attack", name, overrides={"size": 4} if name != "blended" else {})
    attack, pairs = registry.build("attack", ref.identity()), some_pairs(300, 16)
    target = Target("banana", 0, ("a {}",))
    state = attack.prepare(pairs, target, np.random.default_rng(0))
    positions, trigger = torch.arange(0, 300, 2), Trigger(attack, state, 7)
    index = torch.randperm(300, generator=torch.Generator().manual_seed(1))

    def read(room):
        monkeypatch.setattr("bdbench.data.pairs._KEPT", room)
        poisoned = PoisonedPairs(pairs, positions, ["banana"] * 150, trigger)
        return torch.cat([poisoned.images(at) for at in index.split(7)])

    assert torch.equal(read(2**31), read(0))
    assert not torch.equal(read(0), pairs.images(index))
