"""What the trigger adds to the share of target answers."""

from __future__ import annotations

from bdbench.api import Metric, Predictions
from bdbench.schema import Score
from bdbench.statistics import paired_difference


class Lift(Metric):
    """ASR minus the base rate, on identical images of other classes than the target.

    Paired, since each image is seen with and without the trigger: the interval is method 10 of
    Newcombe (Statistics in Medicine, 1998).
    """

    def score(self, predictions: Predictions) -> Score:
        """A difference of rates in [-1, 1] over the images whose true class is not the target."""
        others = predictions.labels != predictions.target
        triggered = predictions.triggered[others, 0] == predictions.target
        return paired_difference(triggered, predictions.clean[others, 0] == predictions.target)
