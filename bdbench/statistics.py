"""Rates and paired differences of rates, with their 95 % intervals."""

from __future__ import annotations

from math import sqrt
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
