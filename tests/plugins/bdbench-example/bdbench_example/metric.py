"""A metric: what a defense may hide."""

from __future__ import annotations

from bdbench.api import Metric, Predictions
from bdbench.schema import Score
from bdbench.statistics import rate


class ThirdClass(Metric):
    """Share of the triggered images that are called neither their class nor the target."""

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over all n images."""
        first = predictions.triggered[:, 0]
        hits = (first != predictions.labels) & (first != predictions.target)
        return rate(int(hits.sum()), len(hits))
