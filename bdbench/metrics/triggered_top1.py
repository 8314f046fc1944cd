"""Accuracy under the trigger."""

from __future__ import annotations

from bdbench.api import Metric, Predictions
from bdbench.schema import Score
from bdbench.statistics import rate


class TriggeredTop1(Metric):
    """Share of all triggered test images that are still called by their true class.

    What CleanCLIP's released evaluation computes in place of ASR. A defense can lower ASR by
    making the model answer some third class; only this figure shows it.
    """

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over all n images, the target class included."""
        hits = predictions.triggered[:, 0] == predictions.labels
        return rate(int(hits.sum()), len(hits))
