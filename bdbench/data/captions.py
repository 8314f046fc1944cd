"""Captions as a sequence over Arrow memory: a Python string exists while it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import pyarrow as pa

_CHUNK = 65_536
"""Captions that are Python strings at a time."""


class Captions(Sequence[str]):
    """A column of strings, of which some are replaced."""

    def __init__(self, column: pa.ChunkedArray, changed: Mapping[int, str] | None = None) -> None:
        """`changed`: new captions by position."""
        self._column = column
        self._changed = dict(changed or {})

    @classmethod
    def of(cls, captions: Sequence[str]) -> Captions:
        """The captions of a list."""
        return cls(pa.chunked_array([pa.array(captions, pa.string())]))

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return [self[i] for i in range(start, stop, step)]
            found: list[str] = self._column.slice(start, max(0, stop - start)).to_pylist()
            for i, text in self._changed.items():
                if start <= i < stop:
                    found[i - start] = text
            return found
        i = range(len(self))[index]
        return self._changed[i] if i in self._changed else str(self._column[i].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]

    def replaced(self, changed: Mapping[int, str]) -> Captions:
        """The same captions with others at some positions."""
        return Captions(self._column, {**self._changed, **changed})
