"""The table of measured speed in README.md: its rows, and how they get there."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MODE = os.environ.get("BDBENCH_SPEED", "")
"""`dry`: sizes of seconds, and no promise is held; `write`: README.md gets what was measured."""
DRY = MODE == "dry"
_HEAD = "| what | measured | promise |\n|---|--:|--:|\n"
_TABLE = re.compile(rf"(?<=<!-- speed -->\n){re.escape(_HEAD)}(?:\|.*\n)*")


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    measured: str
    promise: str = ""

    def __str__(self) -> str:
        return f"| {self.what} | {self.measured} | {self.promise} |\n"


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and between what it lies."""
    low, high = min(values), max(values)
    return (
        f"{statistics.median(values):{form}} ({low:{form}} to {high:{form}},"
        f" {len(values)} round{'s' * (len(values) > 1)})"
    )


def render(rows: Iterable[Row]) -> str:
    """The whole table; of rows of the same name, the last."""
    return _HEAD + "".join(map(str, {row.what: row for row in rows}.values()))


def merged(text: str, rows: Sequence[Row]) -> str:
    """README.md with these rows in place of those of the same name, and new ones at the end."""
    found = _TABLE.search(text)
    if found is None:
        raise ValueError("the text has no table after `<!-- speed -->`")
    lines = {line.split(" | ")[0].removeprefix("| "): line + "\n"
             for line in found[0].removeprefix(_HEAD).splitlines()}
    lines.update({row.what: str(row) for row in rows})
    return text[: found.start()] + _HEAD + "".join(lines.values()) + text[found.end() :]
