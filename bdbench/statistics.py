"""Rates, means and paired differences with their 95 % intervals; tests for paired data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import fsum, sqrt
from statistics import fmean
from typing import TYPE_CHECKING

from bdbench.errors import BdbenchError
from bdbench.schema import Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def rate(k: int, n: int) -> Score:
    """The rate k / n in [0, 1] with the Wilson (1927) score interval, not continuity-corrected."""
    if n == 0:
        raise BdbenchError(
            "no test image is left to count",
            "use a test split that holds images of classes other than the target",
        )
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(0.95, method="wilson")
    value = k / n
    # Rounding must not push the bound of 0 / n or n / n past the value itself.
    low, high = min(float(interval.low), value), max(float(interval.high), value)
    return Score(value=value, low=max(low, 0.0), high=min(high, 1.0), n=n, k=k)


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Score:
    """The rate of `first` minus that of `second`, in [-1, 1], measured on the same n images.

    Both are [n] hits in the same order. The interval is method 10 of Newcombe, "Improved
    confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 17 (1998): Wilson intervals joined by square-and-add, with the
    correlation phi corrected for continuity.
    """
    if first.shape != second.shape:
        raise BdbenchError(f"paired hits differ in number: `{len(first)}` and `{len(second)}`")
    n = len(first)
    one, two = rate(int(first.sum()), n), rate(int(second.sum()), n)
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second = int((~first & second).sum())
    phi = _correlation(both, only_first, only_second, n - both - only_first - only_second)
    value = one.value - two.value
    below = _joined(one.value - one.low, two.high - two.value, phi)
    above = _joined(one.high - one.value, two.value - two.low, phi)
    return Score(value=value, low=max(value - below, -1.0), high=min(value + above, 1.0), n=n)


@dataclass(frozen=True)
class Mean:
    """A mean over seeds or cells with Student's 95 % interval; a single value has none."""

    value: float
    low: float | None
    high: float | None
    n: int


def mean(values: Sequence[float]) -> Mean:
    """The mean of at least one value; Student's t with n - 1 degrees of freedom."""
    n, value = len(values), fmean(values)
    if n < 2:
        return Mean(value, None, None, n)
    half = _quantile(n - 1) * _error(values)
    return Mean(value, value - half, value + half, n)


def _error(values: Sequence[float]) -> float:
    """The standard error of a mean; in plain Python, faster for the few values that there are."""
    n, value = len(values), fmean(values)
    return sqrt(fsum((one - value) ** 2 for one in values) / (n - 1) / n)


@cache
def _quantile(freedom: int) -> float:
    """Student's t at 97.5 %; a board asks for a few of them thousands of times."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def t_test(differences: Sequence[float]) -> float:
    """Two-sided p of Student's paired test that the mean of the differences is zero.

    1 where the spread cannot be told: for fewer than two differences, and for two that are equal.
    Of three or more that are all equal 1 if they are zero and 0 if not.
    """
    n = len(differences)
    # Differences of rates are equal but for their rounding.
    if n < 2 or max(differences) - min(differences) < 1e-12:
        return float(n < 3 or abs(differences[0]) < 1e-12)
    from scipy.special import stdtr

    return 2 * float(stdtr(n - 1, -abs(fmean(differences)) / _error(differences)))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """The two-sided p of McNemar's exact test: whether two models hit equally often.

    Both are [n] hits on the same images. Only the images on which they differ count: under the
    hypothesis each is a fair coin (McNemar, Psychometrika 12, 1947).
    """
    if first.shape != second.shape:
        raise BdbenchError(f"paired hits differ in number: `{len(first)}` and `{len(second)}`")
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    n = only_first + only_second
    return float(binomtest(only_first, n).pvalue) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p adjusted for their number, so that all hold together (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """The corrected phi of a paired 2 x 2 table; 0 where a margin is empty."""
    n = both + only_first + only_second + neither
    margins = (both + only_first) * (only_second + neither)
    margins *= (both + only_second) * (only_first + neither)
    cross = float(both * neither - only_first * only_second)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    return cross / sqrt(margins) if margins else 0.0


def _joined(a: float, b: float, phi: float) -> float:
    """The length of the side opposite to the angle arccos(phi), hence never negative."""
    return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))
