"""Attack success rate of a classifier on image features, target class excluded."""

from __future__ import annotations

from typing import ClassVar

from bdbench.api import Extra, Metric, Predictions, Probe
from bdbench.schema import Score
from bdbench.statistics import rate


class ProbeAsr(Metric):
    """Of the triggered images of other classes, the share that the classifier calls the target.

    It was fitted on untriggered images: what it says is whether the trigger moves an image to those
    of the target, or only to its text (protocol of Verma et al., arXiv 2311.14948).
    """

    needs: ClassVar[Extra] = "probe"

    probe: Probe = "linear"
    """`linear`: logistic regression; `knn`: at most 50 nearest neighbours by cosine."""

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over the images whose true class is not the target."""
        others = predictions.labels != predictions.target
        hits = predictions.probes[self.probe].triggered[others] == predictions.target
        return rate(int(hits.sum()), len(hits))
