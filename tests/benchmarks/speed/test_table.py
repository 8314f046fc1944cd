"""The table of README.md takes what was measured, and keeps the rest."""

from __future__ import annotations

import pytest

from tests.benchmarks.conftest import README
from tests.benchmarks.table import Row, merged, render, spread

OLD = [Row("a `x`", "1.00 (0.90 to 1.10, 3 rounds)", "at least 0.9"), Row("b", "2 GB")]


def page(rows: list[Row]) -> str:
    return f"# Speed\n\n<!-- speed -->\n{render(rows)}\nAnd more.\n\n| a `x` | no row | of it |\n"


def test_a_row_takes_the_place_of_the_one_of_its_name() -> None:
    new = Row("a `x`", "1.05 (1.00 to 1.10, 3 rounds)", "at least 0.9")
    assert merged(page(OLD), [new, Row("c", "3 s")]) == page([new, OLD[1], Row("c", "3 s")])
    assert merged(page(OLD), []) == page(OLD)


def test_a_text_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table after"):
        merged("# Speed\n\n| what | measured |\n", OLD)


def test_the_readme_has_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert merged(text, []) == text
    assert "| a new row | 1 |  |\n" in merged(text, [Row("a new row", "1")])


def test_a_spread_is_the_median_between_the_lowest_and_the_highest() -> None:
    assert spread([3.0, 1.0, 2.5]) == "2.50 (1.00 to 3.00, 3 rounds)"
    assert spread([1234.0], ",.0f") == "1,234 (1,234 to 1,234, 1 round)"
