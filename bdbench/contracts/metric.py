"""What a metric must be: a pure function of predictions, with a sound interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bdbench.api import PROBES, TOP, Answers, Metric, Predictions, Retrieval
from bdbench.contracts.effects import UNTOUCHED, untouched
from bdbench.contracts.property import BrokenError, Property
from bdbench.contracts.sample import SEED
from bdbench.errors import BdbenchError
from bdbench.schema import Recipe, Score

IMAGES, CLASSES, TARGET = 60, 10, 2
_ROUNDING = 1e-9

SCORES, REPEATS = "score is a Score", "score is deterministic"


def properties(metric: Metric, recipe: Recipe) -> Iterator[Property]:
    """The properties of a metric."""
    trial = _Trial(metric)
    yield Property(SCORES, trial.score_is_a_score)
    yield Property("counts and interval agree", trial.counts_and_interval_agree, (SCORES,))
    yield Property(REPEATS, trial.score_is_deterministic, (SCORES,))
    yield Property("predictions are left alone", trial.predictions_are_left_alone, (SCORES,))
    yield Property("order of the images is nothing", trial.order_is_nothing, (SCORES, REPEATS))
    yield Property("few classes are enough", trial.few_classes_are_enough, (SCORES,))
    yield Property("the target may be absent", trial.the_target_may_be_absent, (SCORES,))
    yield Property("nothing to count is told", trial.nothing_to_count_is_told, (SCORES,))
    usual = predictions()
    yield Property(UNTOUCHED, lambda: untouched(lambda: metric.score(usual), "score"), (SCORES,))


def predictions(classes: int = CLASSES, images: int = IMAGES) -> Predictions:
    """Random answers, of which the triggered ones often name the target; -1 fills up."""
    rng = np.random.default_rng(SEED)
    labels = rng.integers(classes, size=images)
    order = [np.argsort(rng.random((images, classes)), axis=1)[:, :TOP] for _ in range(2)]
    clean, triggered = (
        np.pad(found, ((0, 0), (0, TOP - found.shape[1])), constant_values=-1) for found in order
    )
    clean[::2, 0], triggered[::3, 0] = labels[::2], TARGET
    ranked = Retrieval(
        image=np.arange(images), names_target=labels == TARGET,
        **{name: rng.integers(images, size=images)
           for name in ("captions", "images", "clean", "triggered")},
    )
    answers = {probe: Answers(clean[:, 0], triggered[:, 0]) for probe in PROBES}
    return Predictions(
        labels=labels, clean=clean, triggered=triggered, target=TARGET, retrieval=ranked,
        probes=answers,
    )


def _part(whole: Predictions, at: NDArray[Any]) -> Predictions:
    assert whole.retrieval is not None
    return Predictions(
        labels=whole.labels[at], clean=whole.clean[at], triggered=whole.triggered[at],
        target=whole.target,
        retrieval=Retrieval(**{k: values[at] for k, values in vars(whole.retrieval).items()}),
        probes={
            probe: Answers(one.clean[at], one.triggered[at]) for probe, one in whole.probes.items()
        },
    )


def _alike(first: Score, second: Score) -> bool:
    """Sums in another order may round differently."""
    return (first.k, first.n) == (second.k, second.n) and all(
        math.isclose(a, b, abs_tol=_ROUNDING) for a, b in (
            (first.value, second.value), (first.low, second.low), (first.high, second.high)
        )
    )


class _Trial:
    def __init__(self, metric: Metric) -> None:
        self.metric = metric

    def scored(self, given: Predictions) -> Score:
        score = self.metric.score(given)
        if not isinstance(score, Score):
            raise BrokenError(
                f"`score` returns `{score!r}`: a card stores value, counts and interval; return"
                " `bdbench.statistics.rate(k, n)`"
            )
        return score

    def score_is_a_score(self) -> None:
        self.scored(predictions())

    def counts_and_interval_agree(self) -> None:
        score = self.metric.score(predictions())
        sound = score.low <= score.value <= score.high and score.n <= IMAGES
        counted = score.k is None or math.isclose(score.k / score.n, score.value)
        if not sound or not counted or not -1 <= score.value <= 1:
            raise BrokenError(
                f"`{score!r}` is not sound: `low <= value <= high` in [-1, 1], `n` at most the"
                f" `{IMAGES}` images and `value = k / n` must hold; `bdbench.statistics.rate(k, n)`"
                " makes it so"
            )

    def score_is_deterministic(self) -> None:
        given = predictions()
        first, second = self.metric.score(given), self.metric.score(given)
        if first != second:
            raise BrokenError(
                f"`score` returns `{first!r}`, then `{second!r}` for the same predictions: a card"
                " could not be checked; compute it from the predictions alone"
            )

    def predictions_are_left_alone(self) -> None:
        given, kept = predictions(), predictions()
        self.metric.score(given)
        for name in ("labels", "clean", "triggered"):
            if not np.array_equal(getattr(given, name), getattr(kept, name)):
                raise BrokenError(
                    f"`score` writes to `predictions.{name}`: the other metrics read the same"
                    " arrays; write to a copy"
                )

    def order_is_nothing(self) -> None:
        given = predictions()
        first = self.metric.score(given)
        second = self.metric.score(_part(given, np.arange(IMAGES)[::-1]))
        if not _alike(first, second):
            raise BrokenError(
                f"`score` returns `{first!r}`, and `{second!r}` for the same images in another"
                " order: it means nothing; treat all images alike"
            )

    def few_classes_are_enough(self) -> None:
        self.scored(predictions(classes=TARGET + 1))

    def the_target_may_be_absent(self) -> None:
        whole = predictions()
        named = (whole.labels == TARGET) | (whole.clean == TARGET).any(1)
        self.scored(_part(whole, ~named & (whole.triggered != TARGET).all(1)))

    def nothing_to_count_is_told(self) -> None:
        whole = predictions()
        for at in (whole.labels == TARGET, np.zeros(IMAGES, bool)):
            try:
                self.scored(_part(whole, at))
            except BdbenchError:
                continue
            except Exception as error:
                raise BrokenError(
                    f"`score` raises `{type(error).__name__}: {error}` on `{at.sum()}` images, all"
                    " of the target: users need to read what is missing; raise BdbenchError, as"
                    " `bdbench.statistics.rate(0, 0)` does"
                ) from error
