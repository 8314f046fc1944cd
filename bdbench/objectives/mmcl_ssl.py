"""MMCL + SSL: contrast across and within the modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bdbench.api import Features, Objective
from bdbench.contrast import contrast

if TYPE_CHECKING:
    from torch import Tensor, nn


class MmclSsl(Objective):
    """clip_weight MMCL + ssl_weight SSL (Bansal et al. 2023, arXiv 2303.03323, L_CleanCLIP).

    MMCL = 1/2 [CE(s I T^t) + CE(s T I^t)] on the clean views; SSL = 1/2 [CE(s I I'^t) +
    CE(s T T'^t)] with the clean view as anchor and the augmented views as candidates. One
    temperature and one projection serve both. Verma et al. pre-train with it (arXiv 2311.14948).
    """

    views: ClassVar[int] = 2
    clip_weight: float = Field(1.0, ge=0)
    """Weight of the term across the modalities."""
    ssl_weight: float = Field(1.0, ge=0)
    """Weight of the term within the modalities."""

    def loss(self, features: Features, heads: nn.Module | None, scale: Tensor) -> dict[str, Tensor]:
        """`clip` and `ssl`: scalars, weights included. `features`: float [2, n, d]."""
        images, texts = features.images, features.texts
        across = contrast(images[0], texts[0], scale) + contrast(texts[0], images[0], scale)
        within = contrast(images[0], images[1], scale) + contrast(texts[0], texts[1], scale)
        return {"clip": self.clip_weight * across / 2, "ssl": self.ssl_weight * within / 2}
