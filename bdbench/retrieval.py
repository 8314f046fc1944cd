"""Where what is looked for comes, when images and captions are ranked by similarity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LARGEST = 2**25
"""Similarities that are in memory at a time; they are four bytes each."""


def places(
    rows: Tensor, columns: Tensor, wanted: Tensor, alike: Tensor | None = None
) -> Tensor:
    """int64 [n], how many columns come before the wanted one, for each row.

    `rows`: float [n, d]; `columns`: float [m, d]; `wanted`: int64 [n], positions in `columns`;
    `alike`: int64 [m], columns of the same number count as one. Columns that tie with the wanted
    one come before it, and all do where a similarity is not a number: a model that says the same of
    everything finds nothing.
    """
    alike = torch.arange(len(columns), device=columns.device) if alike is None else alike
    found = []
    for part in _parts(len(rows), len(columns)):
        similar = rows[part] @ columns.T
        own = similar.gather(1, wanted[part, None])
        before = ~(similar < own) & (alike != alike[wanted[part], None])
        found.append(before.sum(1))
    return torch.cat(found)


def first_places(rows: Tensor, columns: Tensor, wanted: Tensor) -> Tensor:
    """int64 [n], how many other columns come before the first wanted one, for each row.

    `wanted`: bool [m], at least one of them; the rest is as in `places`.
    """
    found = []
    for part in _parts(len(rows), len(columns)):
        similar = rows[part] @ columns.T
        best = similar[:, wanted].amax(1, keepdim=True)
        found.append((~(similar[:, ~wanted] < best)).sum(1))
    return torch.cat(found)


def same_text(captions: Sequence[str], device: torch.device) -> Tensor:
    """int64 [m], a number for each caption that captions of the same words share."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(text.strip().lower(), len(numbers)) for text in captions]
    return torch.tensor(found, device=device)


def _parts(rows: int, columns: int) -> Sequence[slice]:
    size = max(1, _LARGEST // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]
