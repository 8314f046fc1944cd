"""The control: no pair is poisoned and no image is stamped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from bdbench.api import Attack

if TYPE_CHECKING:
    from torch import Tensor

    from bdbench.data import RowRng


class NoAttack(Attack):
    """Leaves everything as it is: the clean ceiling, and the false alarms of a defense."""

    rate: float = Field(0.0, ge=0, le=0)
    """Poison rate: nothing is poisoned."""

    def trigger(self, images: Tensor, state: Mapping[str, Tensor], rng: RowRng) -> Tensor:
        """`images`, float [b, 3, h, w] in [0, 1], themselves."""
        return images
