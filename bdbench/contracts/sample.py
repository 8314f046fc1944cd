"""The few rows that components are checked on."""

from __future__ import annotations

import torch
from torch import Tensor

from bdbench.api import Target
from bdbench.data import Pairs
from bdbench.datasets.shapes import Shapes
from bdbench.schema import Recipe

# Every caption names its class, so that attacks which look for the target find it.
SHAPES = Shapes(
    train=256, budget=128, validation=32, test=32, synonyms=0.0, vague=0.0, mismatched=0.0
)
SEED = 20


def sample(recipe: Recipe) -> tuple[Pairs, Target]:
    """256 drawn pairs at the recipe's resolution, and its target (or a class of theirs)."""
    rows = next(iter(SHAPES.rows("train", recipe.resolution, SEED)))
    classes = SHAPES.classes()
    name = recipe.target if recipe.target in classes else classes[0]
    target = Target(name, classes.index(name), tuple(SHAPES.templates()))
    return Pairs(torch.from_numpy(rows.ids), torch.from_numpy(rows.images), rows.captions), target


def same(first: Tensor, second: Tensor, tolerance: float = 0.0) -> bool:
    """Whether two float tensors agree, NaN with NaN."""
    return first.shape == second.shape and torch.allclose(
        first, second, rtol=0.0, atol=tolerance, equal_nan=True
    )
