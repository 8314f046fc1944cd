"""Pairs and labelled images in batches, clean or with the trigger stamped on as they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from bdbench.api import Attack
from bdbench.data.captions import Captions
from bdbench.data.pixels import Pixels, decoded, read
from bdbench.data.randomness import RowRng

_KEPT = 2**31
"""Bytes of stamped images that are kept: 3,000 of 224 px."""
_STAMPED = 256
"""Images that are stamped at a time for that."""


class Images:
    """uint8 images with row ids, read as floats.

    `pixels` may be memory-mapped: only the rows asked for are touched.
    """

    device = torch.device("cpu")
    """Where the floats are wanted."""

    def __init__(self, ids: Tensor, pixels: Pixels) -> None:
        """`ids`: int64 [n]; `pixels`: uint8 [n, 3, h, w]."""
        self.ids = ids
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def resolution(self) -> int:
        """Side of the images, in pixels."""
        return self.pixels.shape[-1]

    def decoded(self, path: Path) -> Self:
        """Itself, after JPEG files are decoded once and for all into the file `path`."""
        self.pixels = decoded(self.pixels, path)
        return self

    def images(self, index: Tensor) -> Tensor:
        """float32 [b, 3, h, w] in [0, 1] of the positions `index`, int64 [b]."""
        return read(self.pixels, index, self.device).to(torch.float32).div_(255)


class Labelled(Images):
    """Images with the class each shows."""

    def __init__(
        self, ids: Tensor, pixels: Pixels, labels: Tensor, classes: Sequence[str],
        templates: Sequence[str],
    ) -> None:
        """`labels`: int64 [n], indices into `classes`; `templates` have one `{}` each."""
        super().__init__(ids, pixels)
        self.labels = labels
        self.classes = list(classes)
        self.templates = list(templates)


class Pairs(Images):
    """Images with captions."""

    def __init__(self, ids: Tensor, pixels: Pixels, captions: Sequence[str]) -> None:
        """`captions`: n strings."""
        super().__init__(ids, pixels)
        self.captions = captions if isinstance(captions, Captions) else Captions.of(captions)


class Trigger:
    """An attack's trigger with its state and seed: a function of image and row id."""

    def __init__(self, attack: Attack, state: Mapping[str, Tensor], seed: int) -> None:
        self._attack, self._state, self._seed = attack, state, seed

    def __call__(self, images: Tensor, ids: Tensor) -> Tensor:
        """Stamp float [b, 3, h, w] images of the rows `ids`; the result stays within [0, 1].

        It is done on the CPU, so that every model meets the same bits.
        """
        rng = RowRng(self._seed, ids)
        stamped = self._attack.trigger(images.cpu(), self._state, rng).clamp_(0, 1)
        return stamped.to(images.device)


class PoisonedPairs(Pairs):
    """Pairs of which some carry a trigger and another caption; nothing is written to disk."""

    def __init__(
        self, pairs: Pairs, positions: Tensor, captions: Sequence[str], trigger: Trigger
    ) -> None:
        """`positions`: int64 [p] poisoned positions in `pairs`, with their p new captions."""
        changed = dict(zip(positions.tolist(), captions, strict=True))
        super().__init__(pairs.ids, pairs.pixels, pairs.captions.replaced(changed))
        self.device = pairs.device
        self._poisoned = torch.zeros(len(pairs), dtype=torch.bool)
        self._poisoned[positions] = True
        self._positions = positions.sort().values
        self._trigger = trigger
        self._kept: Tensor | None = None

    def images(self, index: Tensor) -> Tensor:
        """float32 [b, 3, h, w] in [0, 1], the trigger on the poisoned positions."""
        images = super().images(index)
        hit = self._poisoned[index].nonzero().squeeze(1)
        if len(hit):
            images[hit] = self._stamped(index[hit])
        return images

    def _stamped(self, index: Tensor) -> Tensor:
        """The images of poisoned positions, all of them stamped once where they can be kept.

        It takes as long as the rest of a small batch, and on a GPU would wait for it in every step.
        """
        if 4 * math.prod(self.pixels.shape[1:]) * len(self._positions) > _KEPT:
            return self._trigger(Images.images(self, index), self.ids[index])
        if self._kept is None:
            self._kept = torch.cat([
                self._trigger(Images.images(self, at), self.ids[at])
                for at in self._positions.split(_STAMPED)  # type: ignore[no-untyped-call]
            ])
        return self._kept[torch.searchsorted(self._positions, index)]
