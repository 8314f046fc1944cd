"""Attack success rate over all images, as Perturb and Recover reports it."""

from __future__ import annotations

from bdbench.api import Metric, Predictions
from bdbench.schema import Score
from bdbench.statistics import rate


class AsrAll(Metric):
    """Of all triggered images, the target class included, the share called the target.

    The definition of Perturb and Recover, whose figures this makes comparable: a model without a
    backdoor scores about 1 / classes here. Rank by `asr_top1` instead.
    """

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over all n images."""
        hits = predictions.triggered[:, 0] == predictions.target
        return rate(int(hits.sum()), len(hits))
