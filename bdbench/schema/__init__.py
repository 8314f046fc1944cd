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
    Hardware,
    Model,
    ModelFile,
    Recipe,
    Selection,
    Threads,
)
from bdbench.schema.refs import KINDS, Cell, Kind, Ref, Strict, Training
from bdbench.schema.track import (
    LARGEST_DIFFERENCE,
    SUBMITTABLE,
    Cleaned,
    Level,
    Reported,
    ReportedRow,
    Statistic,
    Submission,
    Track,
    Verification,
)

__all__ = [
    "CARD_VERSION", "KINDS", "LARGEST_DIFFERENCE", "SUBMITTABLE", "Augment", "Card", "Cell",
    "CleanBudget", "Cleaned", "Cost", "Defaults", "Gate", "Hardware", "Kind", "Level", "Model",
    "ModelFile", "Point", "Poison", "Provenance", "Recipe", "Ref", "Reported", "ReportedRow",
    "Score", "Selection", "Selections", "Stage", "Statistic", "Status", "Strict", "Submission",
    "Threads", "Track", "Training", "Verdict", "Verification",
]
