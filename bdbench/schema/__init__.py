"""Data that crosses a disk or process boundary."""

from bdbench.schema.card import (
    CARD_VERSION,
    Card,
    Cost,
    Point,
    Poison,
    Provenance,
    Score,
    Selections,
    Stage,
    Status,
    Verdict,
)
from bdbench.schema.recipe import (
    Augment,
    CleanBudget,
    Defaults,
    Gate,
    Model,
    Recipe,
    Selection,
    Threads,
)
from bdbench.schema.refs import KINDS, Cell, Kind, Ref, Strict, Training

__all__ = [
    "CARD_VERSION", "KINDS", "Augment", "Card", "Cell", "CleanBudget", "Cost", "Defaults", "Gate",
    "Kind", "Model", "Point", "Poison", "Provenance", "Recipe", "Ref", "Score", "Selection",
    "Selections", "Stage", "Status", "Strict", "Threads", "Training", "Verdict",
]
