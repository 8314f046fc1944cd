"""Retrieval recall on untriggered pairs."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from bdbench.api import Extra, Metric, Predictions
from bdbench.schema import Score
from bdbench.statistics import rate


class Recall(Metric):
    """Share of the images that find a caption of theirs among the first `k`, or the other way.

    An image may have several captions, and counts once (`bdbench.api.Retrieval`).
    """

    needs: ClassVar[Extra] = "retrieval"

    direction: Literal["i2t", "t2i"] = "i2t"
    """`i2t`: captions for an image; `t2i`: images for a caption."""
    k: int = Field(1, ge=1)
    """Places that count."""

    def score(self, predictions: Predictions) -> Score:
        """A rate in [0, 1] over all images, or captions, of the split."""
        ranked = predictions.retrieval
        assert ranked is not None
        once = np.unique(ranked.image, return_index=True)[1]
        found = ranked.captions[once] if self.direction == "i2t" else ranked.images
        return rate(int((found < self.k).sum()), len(found))
