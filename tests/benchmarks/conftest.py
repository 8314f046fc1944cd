"""What the benchmarks measure is one table at the end, the one in README.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.table import MODE, Row, merged, render

README = Path(__file__).parents[2] / "README.md"
_ROWS = pytest.StashKey[list[Row]]()
Measured = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """`measured(what, figure, promise)`: a row of the table."""
    def add(what: str, figure: str, promise: str = "") -> None:
        request.config.stash[_ROWS].append(Row(what, figure, promise))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash[_ROWS]
    if not rows:
        return
    terminalreporter.write_line(f"\n{render(rows)}")
    if MODE == "write":
        README.write_text(merged(README.read_text(encoding="utf-8"), rows), encoding="utf-8")
