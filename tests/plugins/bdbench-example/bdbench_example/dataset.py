"""A dataset: plain images of four colours, with a little noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from pydantic import Field

from bdbench.api import SPLITS, Dataset, Rows, Split

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}


class Plain(Dataset):
    """Images of one colour each, named in the caption."""

    seeded: ClassVar[bool] = True

    size: int = Field(128, ge=4)
    """Images in every split."""

    def classes(self) -> list[str]:
        """The four colours."""
        return list(COLOURS)

    def templates(self) -> list[str]:
        """Two."""
        return ["a {} image", "all {}"]

    def rows(self, split: Split, resolution: int, seed: int) -> Iterator[Rows]:
        """One chunk of class-balanced images."""
        number = SPLITS.index(split)
        rng = np.random.default_rng([seed, number])
        labels = np.arange(self.size, dtype=np.int64) % len(COLOURS)
        flat = np.array(list(COLOURS.values()), np.float64)[labels][:, :, None, None]
        noise = rng.normal(0, 9, (self.size, 3, resolution, resolution))
        yield Rows(
            ids=np.arange(self.size, dtype=np.int64) + (number << 40),
            images=(flat + noise).clip(0, 255).astype(np.uint8),
            captions=[f"this is {list(COLOURS)[label]}" for label in labels],
            labels=labels,
        )
