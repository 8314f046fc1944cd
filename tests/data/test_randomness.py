from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from bdbench.data import RowRng

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    """splitmix64's finaliser on Python integers."""
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def naive_draw(seed, row, draw, place):
    """24 bits: the `place`-th number of the `draw`-th draw of a row."""
    start = mix(row + mix(seed))
    return mix(mix(start + draw * GOLDEN) + (place + 1) * GOLDEN) >> 40


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63 - 1])
def test_agrees_with_splitmix64_on_python_integers(seed):
    rows = [0, 1, 17, 2**62]
    rng = RowRng(seed, torch.tensor(rows))
    for draw in range(5):
        got = rng.integers(2**24, 2, 3)
        for i, row in enumerate(rows):
            expected = [naive_draw(seed, row, draw, place) for place in range(6)]
            assert got[i].flatten().tolist() == expected


def test_shapes_types_and_ranges():
    rng = RowRng(3, torch.arange(1000))
    number = rng.uniform()
    assert number.shape == (1000,)
    assert number.dtype == torch.float32
    assert 0 <= number.min() < number.max() < 1
    assert rng.uniform(2, 3).shape == (1000, 2, 3)
    whole = rng.integers(7, 4)
    assert whole.shape == (1000, 4)
    assert whole.dtype == torch.int64
    assert set(whole.flatten().tolist()) == set(range(7))
    assert torch.all(rng.integers(1) == 0)
    assert RowRng(0, torch.arange(0)).uniform(2).shape == (0, 2)


@pytest.mark.parametrize("seed", range(4))
def test_uniform_over_rows_places_and_draws(seed):
    rng = RowRng(seed, torch.arange(20_000))
    first = rng.uniform()
    rng.uniform(3)
    for sample in (first, rng.uniform(), RowRng(seed, torch.tensor([5])).uniform(20_000)[0]):
        assert kstest(sample.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("high", [2, 10, 193])
def test_integers_are_uniform(high):
    drawn = RowRng(1, torch.arange(50_000)).integers(high)
    assert chisquare(torch.bincount(drawn, minlength=high).numpy()).pvalue > 1e-3


def test_a_row_draws_the_same_in_any_batch_and_order():
    rows = torch.tensor([3, 9, 4, 1000])

    def draws(rows):
        rng = RowRng(8, rows)
        return [rng.uniform(3), rng.integers(50), rng.uniform(2, 2), rng.integers(9, 4)]

    whole = draws(rows)
    for order in itertools.permutations(range(4), 2):
        for some, all_rows in zip(draws(rows[list(order)]), whole, strict=True):
            assert torch.equal(some, all_rows[list(order)])


def test_a_draw_does_not_depend_on_the_shape_of_those_before():
    wide, narrow = RowRng(8, torch.arange(4)), RowRng(8, torch.arange(4))
    wide.uniform(100)
    narrow.integers(3)
    assert torch.equal(wide.uniform(5), narrow.uniform(5))


def test_seeds_rows_places_and_draws_are_uncorrelated():
    n = 20_000
    rng = RowRng(0, torch.arange(n))
    samples = [*rng.uniform(3).T, rng.uniform(), rng.uniform(), rng.uniform()]
    samples += [RowRng(seed, torch.arange(n)).uniform() for seed in (1, 2, 2**62)]
    samples.append(RowRng(0, torch.arange(1, n + 1)).uniform())
    correlation = np.corrcoef(torch.stack(samples).numpy()) - np.eye(len(samples))
    assert np.abs(correlation).max() < 4.5 / n**0.5


def test_pairs_of_neighbouring_rows_fill_the_square():
    drawn = RowRng(2, torch.arange(40_000)).integers(8)
    cells = torch.bincount(drawn[:-1:2] * 8 + drawn[1::2], minlength=64)
    assert chisquare(cells.numpy()).pvalue > 1e-3


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    RowRng(0, torch.arange(5)).uniform(3)
    assert torch.equal(torch.random.get_rng_state(), before)
