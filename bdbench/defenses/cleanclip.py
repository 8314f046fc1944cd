"""CleanCLIP: fine-tuning on clean pairs, across and within the modalities."""

from __future__ import annotations

from pydantic import Field

from bdbench.api import FineTuning, Objective
from bdbench.objectives.mmcl_ssl import MmclSsl


class CleanClip(FineTuning):
    """MMCL + ssl_weight SSL on clean pairs (Bansal et al. 2023, arXiv 2303.03323)."""

    ssl_weight: float = Field(1.0, ge=0)
    """Weight of the term within the modalities; the paper's lambda_2 over lambda_1."""

    def objective(self) -> Objective:
        """MMCL + SSL."""
        return MmclSsl(ssl_weight=self.ssl_weight)
