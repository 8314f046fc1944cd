"""How often the target is answered without any trigger."""

from __future__ import annotations

from bdbench.api import Metric, Predictions
from bdbench.schema import Score
from bdbench.statistics import rate


class BaseRate(Metric):
    """Of the untriggered images of other classes than the target, the share called the target.

    What ASR would be if the trigger did nothing.
    """

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over the images whose true class is not the target."""
        others = predictions.labels != predictions.target
        hits = predictions.clean[others, 0] == predictions.target
        return rate(int(hits.sum()), len(hits))
