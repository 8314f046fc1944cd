from __future__ import annotations

import numpy as np
import pytest
import torch

from bdbench.api import Target
from bdbench.attacks.label_consistent import LabelConsistent
from bdbench.data import Pairs, RowRng
from bdbench.errors import BdbenchError

TARGET = Target("banana", 1, ("a photo of a {}.",))
NAMING = ["a ripe banana", "Banana on a table.", "BANANA", "banana-shaped", "(banana)", "banana"]
OTHERS = ["two bananas", "a red bandana", "bananarama", "ananas", "", "mybanana", "ba nana"]


def pairs_of(captions, side=12):
    n = len(captions)
    return Pairs(torch.arange(n), torch.zeros(n, 3, side, side, dtype=torch.uint8), captions)


@pytest.mark.parametrize("seed", range(3))
def test_chooses_the_captions_that_name_the_target_as_a_word(seed):
    captions = [c for both in zip(OTHERS, [*NAMING, "a dog"], strict=True) for c in both]
    rng = np.random.default_rng(seed)
    chosen = LabelConsistent().choose(pairs_of(captions), TARGET, 100, rng)
    assert sorted(captions[i] for i in chosen) == sorted(NAMING)


def test_chooses_no_more_than_asked_and_no_pair_twice():
    pairs = pairs_of(["banana"] * 20 + ["dog"] * 20)
    attack = LabelConsistent()
    drawn = [attack.choose(pairs, TARGET, 5, np.random.default_rng(seed)) for seed in range(40)]
    assert all(len(set(chosen)) == 5 for chosen in drawn)
    assert set().union(*drawn) == set(range(20))
    assert attack.choose(pairs, TARGET, 0, np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("name", "caption"), [("polar bear", "a Polar bear."), ("c++ (book)", "my C++ (book) here")]
)
def test_names_of_several_words_and_signs(name, caption):
    pairs = pairs_of(["a bear", caption, "c (book)"])
    target = Target(name, 0, ("{}",))
    assert LabelConsistent().choose(pairs, target, 3, np.random.default_rng(0)) == [1]


def test_no_caption_that_names_the_target_is_an_error():
    with pytest.raises(BdbenchError, match="no training caption names the target `banana`") as e:
        LabelConsistent().choose(pairs_of(OTHERS), TARGET, 3, np.random.default_rng(0))
    assert "`badnet`" in e.value.hint


def test_the_caption_is_kept_and_the_patch_sits_at_a_fixed_place():
    attack, rng = LabelConsistent(size=4, margin=2), np.random.default_rng(0)
    assert attack.caption("My Banana!", TARGET, rng) == "My Banana!"
    state = attack.prepare(pairs_of(["a"]), TARGET, rng)
    images = torch.rand(3, 3, 12, 12)
    expected = images.clone()
    expected[:, :, 6:10, 6:10] = state["pattern"]
    assert torch.equal(attack.trigger(images, state, RowRng(0, torch.arange(3))), expected)


def test_a_patch_that_does_not_fit_is_an_error():
    with pytest.raises(BdbenchError, match="a patch of `11` px with a margin of `2` px"):
        LabelConsistent(size=11, margin=2).prepare(
            pairs_of(["a"]), TARGET, np.random.default_rng(0)
        )
