"""Means, paired tests and corrections against scipy, closed forms and brute force."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bdbench.errors import BdbenchError
from bdbench.statistics import holm, mcnemar, mean, t_test

FIGURES = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=30)


@given(FIGURES)
@settings(deadline=None)
def test_mean_against_scipy(values):
    found = mean(values)
    assert found.value == pytest.approx(np.mean(values))
    assert found.n == len(values)
    low, high = found.low, found.high
    assert low is not None
    assert high is not None
    assert low <= found.value <= high
    spread = stats.sem(values)
    if spread > 1e-12:
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), spread)
        assert (low, high) == pytest.approx(expected, abs=1e-12)


def test_mean_by_hand():
    found = mean([0.1, 0.2, 0.3])
    # t(2) at 97.5 % is 4.3027; the standard error is 0.1 / sqrt(3).
    assert found.value == pytest.approx(0.2)
    assert found.high == pytest.approx(0.2 + 4.302653 * 0.1 / 3**0.5, abs=1e-7)
    single = mean([0.25])
    assert (single.value, single.low, single.high, single.n) == (0.25, None, None, 1)


@given(FIGURES)
@settings(deadline=None)
def test_t_test_against_scipy(values):
    if np.std(values) > 1e-9:
        against_zero = [0.0] * len(values)
        assert t_test(values) == pytest.approx(stats.ttest_rel(values, against_zero).pvalue)


def test_t_test_where_there_is_no_spread():
    assert t_test([0.2]) == 1.0
    assert t_test([]) == 1.0
    assert t_test([0.0, 0.0, 0.0]) == 1.0
    # Two that agree say nothing of the spread, also where they agree but for rounding.
    assert t_test([0.1, 0.1]) == t_test([0.3 - 0.2, 0.4 - 0.3]) == 1.0
    assert t_test([0.1, 0.1, 0.1]) == t_test([0.3 - 0.2, 0.4 - 0.3, 0.1]) == 0.0


def test_t_test_by_hand():
    # Mean 2, standard error 1 / sqrt(3); at two degrees of freedom p = 1 - t / sqrt(2 + t^2).
    t = 2 * 3**0.5
    assert t_test([1.0, 2.0, 3.0]) == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert t_test([-1.0, -2.0, -3.0]) == t_test([1.0, 2.0, 3.0])


def hits(both: int, first: int, second: int, neither: int):
    one = [True] * (both + first) + [False] * (second + neither)
    two = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(one, dtype=bool), np.array(two, dtype=bool)


@given(st.integers(0, 30), st.integers(0, 25), st.integers(0, 25), st.integers(0, 30))
@settings(deadline=None)
def test_mcnemar_is_a_fair_coin_on_the_images_that_differ(both, first, second, neither):
    n = first + second
    tail = sum(comb(n, k) for k in range(min(first, second) + 1)) / 2**n
    assert mcnemar(*hits(both, first, second, neither)) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_by_hand():
    # 8 against 1: both tails of 9 coins, 2 * (1 + 9) / 512.
    assert mcnemar(*hits(40, 8, 1, 51)) == pytest.approx(20 / 512)
    assert mcnemar(*hits(3, 0, 0, 4)) == 1.0
    with pytest.raises(BdbenchError, match="differ in number"):
        mcnemar(np.array([True]), np.array([True, False]))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None)
def test_holm_against_its_definition(values):
    """The adjusted p is the smallest level at which the step-down procedure rejects."""
    found = holm(values)
    for level in (0.01, 0.05, 0.2, 0.7):
        left = sorted(range(len(values)), key=lambda i: values[i])
        rejected = set()
        while left and values[left[0]] * len(left) <= level:
            rejected.add(left.pop(0))
        certain = [i for i in range(len(values)) if abs(found[i] - level) > 1e-9]
        assert {i for i in certain if found[i] <= level} == {i for i in certain if i in rejected}
    # Never below Benjamini and Hochberg, never above Bonferroni.
    least = stats.false_discovery_control(values, method="bh")
    for i, value in enumerate(found):
        assert value >= least[i] - 1e-9
        assert value <= min(1.0, values[i] * len(values)) + 1e-9
