"""Fine-tuning on clean pairs with the self-supervised term alone."""

from __future__ import annotations

from bdbench.api import FineTuning, Objective
from bdbench.objectives.ssl import Ssl


class FineTuneSsl(FineTuning):
    """CleanCLIP without its cross-modal term (Verma et al. 2025, arXiv 2311.14948)."""

    def objective(self) -> Objective:
        """SSL."""
        return Ssl()
