"""Where what is looked for comes, when images and captions are ranked by similarity."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor

_LARGEST = 2**25
"""Similarities that are in memory at a time; they are four bytes each."""


def numbered(items: Iterable[Hashable]) -> Tensor:
    """int64 [m], a number for each item that equal ones share; they rise with the first of each."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(item, len(numbers)) for item in items])


def first_of(numbers: Tensor) -> Tensor:
    """int64 [u], the first position of each number, int64 [m] as `numbered` gives them."""
    count = int(numbers.max()) + 1
    places = torch.arange(len(numbers), device=numbers.device)
    return torch.full((count,), len(numbers), device=numbers.device).scatter_reduce(
        0, numbers, places, "amin"
    )


def matches(images: Tensor, captions: Sequence[str]) -> Tensor:
    """int64 [k, 2], the images (by number) and captions (by position) that belong together, sorted.

    `images`: int64 [m], the number of each caption's image. To an image belong its own captions,
    and all of the same words as one of these.
    """
    words = [text.strip().lower() for text in captions]
    places, own = dict[str, list[int]](), dict[int, set[str]]()
    for place, (image, text) in enumerate(zip(images.tolist(), words, strict=True)):
        places.setdefault(text, []).append(place)
        own.setdefault(image, set()).add(text)
    return torch.tensor([
        (image, place) for image in sorted(own)
        for place in sorted(place for text in own[image] for place in places[text])
    ])


def places(rows: Tensor, columns: Tensor, belong: Tensor) -> Tensor:
    """int64 [n], how many others come before the first column that belongs to it, for each row.

    `rows`: float [n, d]; `columns`: float [m, d]; `belong`: int64 [k, 2], row and column, sorted,
    at least one for each row. Columns that tie with the best that belongs come before it, and all
    do where a similarity is not a number: a model that says the same of everything finds nothing.
    """
    found = []
    for part in _parts(len(rows), len(columns)):
        similar = rows[part] @ columns.T
        first, last = torch.searchsorted(
            belong[:, 0].contiguous(),
            torch.tensor([part.start, part.start + len(similar)], device=belong.device),
        ).tolist()
        row, column = belong[first:last, 0] - part.start, belong[first:last, 1]
        own = similar[row, column]
        best = torch.full_like(similar[:, 0], -torch.inf).scatter_reduce(0, row, own, "amax")
        before = (~(similar < best[:, None])).sum(1)
        found.append(before.index_add(0, row, (~(own < best[row])).long(), alpha=-1))
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


def _parts(rows: int, columns: int) -> Sequence[slice]:
    size = max(1, _LARGEST // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]
