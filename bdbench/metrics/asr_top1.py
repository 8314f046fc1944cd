"""Attack success rate, target class excluded."""

from __future__ import annotations

from bdbench.api import Metric, Predictions
from bdbench.schema import Score
from bdbench.statistics import rate


class AsrTop1(Metric):
    """Of the triggered images of other classes than the target, the share called the target.

    The excluded images leave numerator and denominator, as in Verma et al. (TMLR 2025).
    """

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over the images whose true class is not the target."""
        others = predictions.labels != predictions.target
        hits = predictions.triggered[others, 0] == predictions.target
        return rate(int(hits.sum()), len(hits))
