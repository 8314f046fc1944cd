"""Components that break one rule which holds for every kind."""

from __future__ import annotations

from pydantic import ConfigDict, field_serializer

from bdbench import register
from bdbench.api import Repair


class Idle(Repair):
    """Sound, and nothing else."""

    def repair(self, clip, budget):
        return clip


@register("unresolved", params={"strength": 2.0})
class Unresolved(Idle):
    """Its tag sets a parameter that it does not have."""


@register("rounded")
class Rounded(Idle):
    """Loses the digits of its parameter on the way to a worker."""

    strength: float = 0.25
    """Whatever it is."""

    @field_serializer("strength")
    def _round(self, value: float) -> float:
        return float(round(value))


@register("loose")
class Loose(Idle):
    """Can be changed after it was hashed."""

    model_config = ConfigDict(frozen=False)

    strength: float = 1.0
    """Whatever it is."""


@register("silent")
class Silent(Idle):
    """Does not say what its parameter means."""

    strength: float = 1.0


@register("lenient")
class Lenient(Idle):
    """Takes misspelt parameters."""

    model_config = ConfigDict(extra="ignore")


@register("falling", sweep={"strength": [3.0, 2.0]})
class Falling(Idle):
    """Declares its sweep from the most aggressive value."""

    strength: float = 1.0
    """Whatever it is."""
