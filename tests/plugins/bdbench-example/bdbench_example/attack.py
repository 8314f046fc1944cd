"""An attack: a white square in the lower right corner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from bdbench.api import Attack

if TYPE_CHECKING:
    from torch import Tensor

    from bdbench.data import RowRng


class WhiteCorner(Attack):
    """A white square in the lower right corner."""

    rate: float = Field(0.05, ge=0, le=1)
    """Poison rate: share of the training pairs that are poisoned."""
    size: int = Field(6, ge=1)
    """Side of the square, in pixels."""

    def trigger(self, images: Tensor, state: Mapping[str, Tensor], rng: RowRng) -> Tensor:
        """Paint the square on `images`, float [b, 3, h, w] in [0, 1]; returns the same form."""
        stamped = images.clone()
        stamped[..., -self.size :, -self.size :] = 1
        return stamped
