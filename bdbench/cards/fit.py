"""A table as wide as the terminal in which no word, name or interval is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from bdbench.cards.escape import clean

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

UNTOLD = "≈"
"""Marks a row that is not distinguishable from the best."""
GAP = 2
"""Blank columns between two columns."""
_WHOLE = re.compile(rf"\[[^\]]*\]|\S+(?: [/{UNTOLD}])?")

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Table:
    """Rows of strings; figures of ours are Markup, everything else is to be escaped."""

    title: str
    head: tuple[str, ...]
    """Of ours throughout, or names that are to be escaped as well."""
    right: frozenset[int]
    """Columns of figures."""
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Fitted:
    """Prints a table; too wide, its cells break between words; still too wide, it is split."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self.table
        rows = [[clean(cell) for cell in row] for row in (table.head, *table.rows)]
        # The columns before the first figures, a rank aside, name the row.
        names = next((i for i in sorted(table.right) if i), 1)
        for at, chosen in enumerate(split(rows, names, options.max_width)):
            if at:
                yield ""
            part = [[row[i] for i in chosen] for row in rows]
            right = {place for place, i in enumerate(chosen) if i in table.right}
            yield _grid(part, fit(part, options.max_width), right)


def _grid(rows: Rows, widths: Sequence[int], right: set[int]) -> RenderableType:
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, GAP, 0, 0))
    for i, width in enumerate(widths):
        grid.add_column(justify="right" if i in right else "left", width=width, overflow="fold")
    for row, style in zip(rows, ["bold", *[""] * (len(rows) - 1)], strict=True):
        # As Text: what a submission says must not reach the terminal as markup.
        grid.add_row(*(
            Text("\n".join(lines(cell, width)), style=style)
            for cell, width in zip(row, widths, strict=True)
        ))
    return grid


def split(rows: Rows, names: int, width: int) -> Iterator[list[int]]:
    """The columns of each part of a table, as few parts as fit; all begin with the `names`."""
    rest = list(range(names, len(rows[0])))
    for parts in range(1, len(rest) + 1):
        size = ceil(len(rest) / parts)
        found = [[*range(names), *rest[i : i + size]] for i in range(0, len(rest), size)]
        if size == 1 or all(
            _total(fit([[row[i] for i in chosen] for row in rows], width)) <= width
            for chosen in found
        ):
            yield from found
            return


def fit(rows: Rows, width: int) -> list[int]:
    """The width of each column, heads first in `rows`; the least there is where none fits.

    Heads break first, then the widest column, again and again.
    """
    columns = list(zip(*rows, strict=True))
    widths = [_needed(column, width) for column in columns]
    if _total(widths) > width:
        widths = [
            max(_needed(column[:1], 1), _needed(column[1:] or column, width)) for column in columns
        ]
    while _total(widths) > width:
        smaller = {
            i: less for i, column in enumerate(columns)
            if (less := _needed(column, widths[i] - 1)) < widths[i]
        }
        if not smaller:
            break
        widest = max(smaller, key=lambda i: widths[i])
        widths[widest] = smaller[widest]
    return widths


def _needed(column: Sequence[str], most: int) -> int:
    return max(len(line) for cell in column for line in lines(cell, most))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def lines(text: str, width: int) -> list[str]:
    """The words of a text in lines of at most `width` characters; a longer word is a line."""
    found = [""]
    for word in _WHOLE.findall(text):
        if found[-1] and len(found[-1]) + 1 + len(word) > width:
            found.append("")
        found[-1] += " " * bool(found[-1]) + word
    return found
