"""A defense: smaller weights, with a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bdbench import register
from bdbench.api import Budget, Repair

if TYPE_CHECKING:
    from bdbench.clip import Clip


@register("shrink", summary="every matrix shrunk towards zero", sweep={"share": [0.01, 0.1]})
class Shrink(Repair):
    """Takes a share of every weight away; it trains nothing."""

    share: float = Field(0.01, ge=0, le=1)
    """Share that is taken away."""

    def repair(self, clip: Clip, budget: Budget) -> Clip:
        """The same model with smaller matrices."""
        clip.load_state({
            name: value * (1 - self.share) if value.ndim > 1 else value
            for name, value in clip.state().items()
        })
        return clip
