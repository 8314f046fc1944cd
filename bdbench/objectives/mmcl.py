"""MMCL: the contrastive loss of CLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdbench.api import Features, Objective
from bdbench.contrast import contrast

if TYPE_CHECKING:
    from torch import Tensor, nn


class Mmcl(Objective):
    """1/2 [CE(s I T^t) + CE(s T I^t)] (Radford et al. 2021, arXiv 2103.00020, figure 3)."""

    def loss(self, features: Features, heads: nn.Module | None, scale: Tensor) -> dict[str, Tensor]:
        """`clip`: scalar. `features`: float [1 or more, n, d]; only view 0 is used."""
        images, texts = features.images[0], features.texts[0]
        return {"clip": (contrast(images, texts, scale) + contrast(texts, images, scale)) / 2}
