"""Randomness addressed by row: the same row draws the same numbers in any batch, in any order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014) on int64 with wrap-around."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


class RowRng:
    """Independent uniform draws for each of n rows.

    A draw depends on the seed, the row id, how many draws came before, and its place in the
    shape; not on which other rows are in the batch.
    """

    def __init__(self, seed: int, rows: Tensor) -> None:
        """`rows`: int64 [n] row ids."""
        self._rows = _mix(rows.to(torch.int64) + _mix(torch.tensor(seed, device=rows.device)))

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        stream = _mix(self._rows)
        self._rows = self._rows + _GOLDEN
        count = torch.arange(1, math.prod(shape) + 1, device=self._rows.device)
        return _mix(stream[:, None] + count * _GOLDEN).view(len(self._rows), *shape)

    def uniform(self, *shape: int) -> Tensor:
        """float32 [n, *shape] in [0, 1)."""
        return ((self._bits(shape) >> 40) & 0xFFFFFF).to(torch.float32) / float(1 << 24)

    def integers(self, high: int, *shape: int) -> Tensor:
        """int64 [n, *shape] in [0, high), for high up to 2**24."""
        return ((self._bits(shape) >> 40) & 0xFFFFFF) * high >> 24
