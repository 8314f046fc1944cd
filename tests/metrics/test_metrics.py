"""Every metric on tables counted by hand, and the intervals against independent computations."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest

from bdbench.api import Metric, Predictions
from bdbench.errors import BdbenchError
from bdbench.metrics.asr_all import AsrAll
from bdbench.metrics.asr_top1 import AsrTop1
from bdbench.metrics.base_rate import BaseRate
from bdbench.metrics.clean_topk import CleanTopK
from bdbench.metrics.lift import Lift
from bdbench.metrics.triggered_top1 import TriggeredTop1
from bdbench.statistics import paired_difference, rate

TARGET = 2
ALL: dict[str, Metric] = {
    "clean_top1": CleanTopK(),
    "clean_top5": CleanTopK(k=5),
    "asr_top1": AsrTop1(),
    "asr_all": AsrAll(),
    "base_rate": BaseRate(),
    "lift": Lift(),
    "triggered_top1": TriggeredTop1(),
}


def table(labels: list[int], clean: list[list[int]], triggered: list[list[int]]) -> Predictions:
    return Predictions(np.array(labels), np.array(clean), np.array(triggered), TARGET)


def ranked(first: int) -> list[int]:
    """A top-5 list over eight classes with the given winner, then the lowest other indices."""
    return [first, *(c for c in range(8) if c != first)][:5]


# label  clean, best first   triggered, best first
EIGHT = table(
    [0, 1, 2, 2, 3, 4, 5, 6],
    [
        [0, 1, 2, 3, 4],  # right
        [2, 1, 0, 3, 4],  # the target unprompted, right second
        [2, 0, 1, 3, 4],  # right, and of the target class
        [0, 2, 1, 3, 4],  # wrong, right second
        [3, 0, 1, 2, 4],  # right
        [0, 1, 2, 3, 4],  # wrong, right fifth
        [0, 1, 2, 3, 4],  # wrong, right not among five
        [2, 6, 0, 1, 3],  # the target unprompted, right second
    ],
    [
        [2, 0, 1, 3, 4],  # hit
        [1, 2, 0, 3, 4],  # no hit although clean was; right
        [2, 0, 1, 3, 4],  # target class, called the target: right
        [2, 0, 1, 3, 4],  # target class, called the target: right
        [2, 3, 0, 1, 4],  # hit
        [4, 2, 0, 1, 3],  # resists: right
        [0, 2, 1, 3, 4],  # neither hit nor right
        [2, 6, 0, 1, 3],  # hit, as without the trigger
    ],
)


@pytest.mark.parametrize(
    ("name", "k", "n"),
    [
        ("clean_top1", 3, 8),  # rows 0, 2, 4
        ("clean_top5", 7, 8),  # all but row 6
        ("asr_top1", 3, 6),  # rows 0, 4, 7 of the six that are not labelled 2
        ("asr_all", 5, 8),  # rows 0, 2, 3, 4, 7
        ("base_rate", 2, 6),  # rows 1 and 7 of the same six
        ("triggered_top1", 4, 8),  # rows 1, 2, 3, 5
    ],
)
def test_eight_rows_counted_by_hand(name, k, n):
    score = ALL[name].score(EIGHT)
    assert (score.k, score.n, score.value) == (k, n, k / n)
    assert score.low < score.value < score.high


def test_lift_of_eight_rows_is_paired():
    # Both: row 7. Trigger only: rows 0, 4. Clean only: row 1. Neither: rows 5, 6.
    score = Lift().score(EIGHT)
    assert (score.k, score.n) == (None, 6)
    assert score.value == pytest.approx((2 - 1) / 6)
    assert score == paired_difference(
        np.array([1, 0, 1, 0, 0, 1], bool), np.array([0, 1, 0, 0, 0, 1], bool)
    )


def simple(clean: list[int], triggered: list[int]) -> dict[str, float]:
    labels = [0, 1, 2, 3, 4, 5, 6, 7]
    rows = table(labels, [ranked(c) for c in clean], [ranked(c) for c in triggered])
    return {name: metric.score(rows).value for name, metric in ALL.items()}


def test_a_model_that_is_always_right():
    labels = list(range(8))
    assert simple(labels, labels) == {
        "clean_top1": 1.0, "clean_top5": 1.0, "asr_top1": 0.0, "asr_all": 1 / 8,
        "base_rate": 0.0, "lift": 0.0, "triggered_top1": 1.0,
    }


def test_a_constant_model_that_never_names_the_target():
    # Always class 0; the five lowest indices are right for labels 0 to 4.
    assert simple([0] * 8, [0] * 8) == {
        "clean_top1": 1 / 8, "clean_top5": 5 / 8, "asr_top1": 0.0, "asr_all": 0.0,
        "base_rate": 0.0, "lift": 0.0, "triggered_top1": 1 / 8,
    }


def test_a_model_that_always_answers_the_target_has_asr_but_no_lift():
    found = simple([TARGET] * 8, [TARGET] * 8)
    assert found["asr_top1"] == found["base_rate"] == found["asr_all"] == 1.0
    assert found["lift"] == 0.0
    assert found["clean_top1"] == found["triggered_top1"] == 1 / 8


def test_a_perfect_backdoor():
    found = simple(list(range(8)), [TARGET] * 8)
    assert found["asr_top1"] == found["lift"] == found["clean_top1"] == 1.0
    assert found["base_rate"] == 0.0


def test_top_k_reads_the_first_k_columns_and_nothing_else():
    rows = table([7], [[0, 1, 7, 3, 4]], [[0, 1, 2, 3, 4]])
    assert [CleanTopK(k=k).score(rows).k for k in range(1, 6)] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["asr_top1", "base_rate", "lift"])
def test_only_target_images_leave_nothing_to_count(name):
    rows = table([TARGET] * 3, [ranked(0)] * 3, [ranked(TARGET)] * 3)
    with pytest.raises(BdbenchError, match="no test image is left"):
        ALL[name].score(rows)


@pytest.mark.parametrize("name", sorted(ALL))
def test_no_images_leave_nothing_to_count(name):
    empty = Predictions(
        np.zeros(0, np.int64), np.zeros((0, 5), np.int64), np.zeros((0, 5), np.int64), TARGET
    )
    with pytest.raises(BdbenchError, match="hint: use a test split"):
        ALL[name].score(empty)


def wilson(k: int, n: int) -> tuple[float, float]:
    """The closed form of Wilson (1927)."""
    z, p = NormalDist().inv_cdf(0.975), k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(centre - half, 0.0), min(centre + half, 1.0)


@pytest.mark.parametrize("n", [1, 7, 50, 1984, 49950])
def test_wilson_closed_form(n):
    for k in {0, 1, n // 3, n - 1, n}:
        score = rate(k, n)
        assert (score.low, score.high) == pytest.approx(wilson(k, n), abs=1e-9)
        assert 0 <= score.low <= score.value <= score.high <= 1


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(k, n, low, high):
    """Newcombe, Statistics in Medicine 17:857 (1998), table I, method 3."""
    score = rate(k, n)
    assert (score.low, score.high) == pytest.approx((low, high), abs=5e-5)


def pairs(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, neither]
    return (
        np.repeat([True, True, False, False], counts),
        np.repeat([True, False, True, False], counts),
    )


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((1, 97, 1, 1), 0.8736, 0.9850),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((0, 30, 0, 0), 0.8395, 1.0),
    ],
)
def test_newcombe_as_published(cells, low, high):
    """Newcombe, Statistics in Medicine 17:2635 (1998), table III, method 10."""
    score = paired_difference(*pairs(*cells))
    assert (score.low, score.high) == pytest.approx((low, high), abs=1e-4)


def naive_newcombe(e: int, f: int, g: int, h: int) -> tuple[float, float, float]:
    """Written from the paper with its own letters: e both, f first only, g second only, h none."""
    n = e + f + g + h
    (l2, u2), (l3, u3) = wilson(e + f, n), wilson(e + g, n)
    p2, p3 = (e + f) / n, (e + g) / n
    a = (e + f) * (g + h) * (e + g) * (f + h)
    b = e * h - f * g
    c = b - n / 2 if b > n / 2 else 0 if b >= 0 else b
    phi = 0 if a == 0 else c / sqrt(a)
    delta = sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u3 - p3) + (u3 - p3) ** 2)
    epsilon = sqrt((p3 - l3) ** 2 - 2 * phi * (p3 - l3) * (u2 - p2) + (u2 - p2) ** 2)
    theta = (f - g) / n
    return theta, theta - delta, theta + epsilon


def test_newcombe_against_a_naive_recomputation():
    rng = np.random.default_rng(0)
    for _ in range(200):
        cells = [int(x) for x in rng.multinomial(rng.integers(1, 300), rng.dirichlet([0.5] * 4))]
        score = paired_difference(*pairs(*cells))
        found = score.value, score.low, score.high
        assert found == pytest.approx(naive_newcombe(*cells), abs=1e-8)
        swapped = paired_difference(*reversed(pairs(*cells)))
        assert (swapped.low, swapped.high) == pytest.approx((-score.high, -score.low), abs=1e-8)
        assert -1 <= score.low <= score.value <= score.high <= 1


def test_newcombe_agrees_with_a_bootstrap():
    first, second = pairs(60, 900, 40, 1000)
    rng = np.random.default_rng(1)
    difference = first.astype(float) - second
    means = rng.choice(difference, size=(4000, len(difference))).mean(axis=1)
    score = paired_difference(first, second)
    assert (score.low, score.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.003)


def test_pairs_must_match():
    with pytest.raises(BdbenchError, match="`3` and `2`"):
        paired_difference(np.ones(3, bool), np.ones(2, bool))
