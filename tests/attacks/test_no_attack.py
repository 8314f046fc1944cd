from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bdbench.api import Target
from bdbench.attacks.none import NoAttack
from bdbench.data import Pairs, RowRng, Trigger


def test_poisons_nothing_and_stamps_nothing():
    images, ids = torch.rand(4, 3, 6, 6), torch.arange(4)
    assert NoAttack().rate == 0
    assert torch.equal(NoAttack().trigger(images, {}, RowRng(0, ids)), images)
    before = images.clone()
    assert torch.equal(Trigger(NoAttack(), {}, 0)(images, ids), before)
    pairs = Pairs(ids, torch.zeros(4, 3, 6, 6, dtype=torch.uint8), ["a"] * 4)
    target = Target("banana", 0, ("{}",))
    assert NoAttack().prepare(pairs, target, np.random.default_rng(0)) == {}


def test_cannot_be_told_to_poison():
    with pytest.raises(ValidationError):
        NoAttack(rate=0.1)
