"""The control: no defense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdbench.api import Budget, Repair

if TYPE_CHECKING:
    from bdbench.clip import Clip


class NoDefense(Repair):
    """Leaves the model as it is: what every defense is compared with."""

    def repair(self, clip: Clip, budget: Budget) -> Clip:
        """`clip` itself."""
        return clip
