"""An objective: one half of CLIP's loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdbench.api import Features, Objective
from bdbench.contrast import contrast

if TYPE_CHECKING:
    from torch import Tensor, nn


class ImageToText(Objective):
    """Each image finds its caption among those of the batch."""

    def loss(self, features: Features, heads: nn.Module | None, scale: Tensor) -> dict[str, Tensor]:
        """`image`: scalar. `features`: float [1, n, d]."""
        return {"image": contrast(features.images[0], features.texts[0], scale)}
