"""Plain fine-tuning on clean pairs."""

from __future__ import annotations

from bdbench.api import FineTuning, Objective
from bdbench.objectives.mmcl import Mmcl


class FineTune(FineTuning):
    """Fine-tuning with the contrastive loss of CLIP: the baseline of every repair.

    With `lr=0` only the running statistics of batch norm adapt to the clean pairs.
    """

    def objective(self) -> Objective:
        """MMCL."""
        return Mmcl()
