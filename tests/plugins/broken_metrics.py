"""Metrics that break one rule each."""

from __future__ import annotations

import itertools

import numpy as np

from bdbench import register
from bdbench.api import Metric
from bdbench.schema import Score
from bdbench.statistics import rate

CALLS = itertools.count()


class Hits(Metric):
    """ASR over all images: sound."""

    def hits(self, predictions):
        return predictions.triggered[:, 0] == predictions.target

    def score(self, predictions):
        hits = self.hits(predictions)
        return rate(int(hits.sum()), len(hits))


@register("number")
class Number(Hits):
    """Returns the figure alone."""

    def score(self, predictions):
        return float(self.hits(predictions).mean())


@register("nan")
class Nan(Hits):
    """Returns a figure that is none, which a Score refuses."""

    def score(self, predictions):
        return Score(value=float("nan"), low=0.0, high=1.0, n=1)


@register("inside_out")
class InsideOut(Hits):
    """Turns its interval round."""

    def score(self, predictions):
        found = super().score(predictions)
        return found.model_copy(update={"low": found.high, "high": found.low})


@register("miscounted")
class Miscounted(Hits):
    """Counts one more than its value says."""

    def score(self, predictions):
        found = super().score(predictions)
        return found.model_copy(update={"k": found.k + 1})


@register("per_cent")
class PerCent(Hits):
    """Thinks in per cent."""

    def score(self, predictions):
        found = super().score(predictions)
        return Score(value=100 * found.value, low=100 * found.low, high=100 * found.high, n=found.n)


@register("restless")
class Restless(Hits):
    """Gives another figure at every call."""

    def score(self, predictions):
        return rate(next(CALLS) % 7, max(50, len(predictions.labels))) if len(
            predictions.labels
        ) else rate(0, 0)


@register("marking")
class Marking(Hits):
    """Writes to the predictions; the second time changes nothing."""

    def score(self, predictions):
        predictions.triggered[:, 4] = -1
        return super().score(predictions)


@register("first_half")
class FirstHalf(Hits):
    """Scores the first half of the images."""

    def score(self, predictions):
        hits = self.hits(predictions)
        hits = hits[: (len(hits) + 1) // 2]
        return rate(int(hits[:20].sum()), len(hits))


@register("five_answers")
class FiveAnswers(Hits):
    """Looks every answer up in a table of the classes."""

    def score(self, predictions):
        if (predictions.triggered < 0).any():
            raise IndexError("no class -1")
        return super().score(predictions)


@register("target_wanted")
class TargetWanted(Hits):
    """Divides by the number of target answers."""

    def score(self, predictions):
        hits = self.hits(predictions)
        if len(hits) and not (predictions.labels == predictions.target).any():
            raise ZeroDivisionError("no image of the target")
        return rate(int(hits.sum()), len(hits))


@register("dividing")
class Dividing(Hits):
    """Divides by the number of images of other classes."""

    def score(self, predictions):
        others = predictions.labels != predictions.target
        k, n = int(self.hits(predictions)[others].sum()), int(others.sum())
        return Score(value=k / n, low=0.0, high=1.0, n=n, k=k)


@register("rolling")
class Rolling(Hits):
    """Draws from numpy's global generator, and uses nothing of it."""

    def score(self, predictions):
        np.random.random()
        return super().score(predictions)
