"""SSL: contrast within each modality, between a clean and an augmented view."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bdbench.api import Features, Objective
from bdbench.contrast import contrast

if TYPE_CHECKING:
    from torch import Tensor, nn


class Ssl(Objective):
    """1/2 [CE(s I I'^t) + CE(s T T'^t)] (Bansal et al. 2023, arXiv 2303.03323, L_SS).

    As in the code of CleanCLIP and of Verma et al.: the clean view is the anchor, the augmented
    views of the batch are the candidates, and only that direction counts.
    """

    views: ClassVar[int] = 2

    def loss(self, features: Features, heads: nn.Module | None, scale: Tensor) -> dict[str, Tensor]:
        """`ssl`: scalar. `features`: float [2, n, d]."""
        image_term = contrast(features.images[0], features.images[1], scale)
        text_term = contrast(features.texts[0], features.texts[1], scale)
        return {"ssl": (image_term + text_term) / 2}
