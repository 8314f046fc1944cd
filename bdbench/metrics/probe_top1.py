"""Accuracy of a classifier on image features."""

from __future__ import annotations

from typing import ClassVar

from bdbench.api import Extra, Metric, Predictions, Probe
from bdbench.schema import Score
from bdbench.statistics import rate


class ProbeTop1(Metric):
    """Share of all untriggered test images that the classifier calls by their class."""

    needs: ClassVar[Extra] = "probe"

    probe: Probe = "linear"
    """`linear`: logistic regression; `knn`: at most 50 nearest neighbours by cosine."""

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over all test images, the target class included."""
        hits = predictions.probes[self.probe].clean == predictions.labels
        return rate(int(hits.sum()), len(hits))
