"""Zero-shot accuracy on untriggered images."""

from __future__ import annotations

from pydantic import Field

from bdbench.api import TOP, Metric, Predictions
from bdbench.schema import Score
from bdbench.statistics import rate


class CleanTopK(Metric):
    """Share of all untriggered test images whose true class is among the `k` best answers."""

    k: int = Field(1, ge=1, le=TOP)
    """Answers that count, best first."""

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over all n images, the target class included."""
        hits = (predictions.clean[:, : self.k] == predictions.labels[:, None]).any(axis=1)
        return rate(int(hits.sum()), len(hits))
