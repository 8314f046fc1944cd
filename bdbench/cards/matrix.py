"""Many cards in one table: a row per cell."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from bdbench.cards.text import clean, percent
from bdbench.schema import Card, Point


def matrix(cards: Sequence[Card]) -> Table:
    """Clean accuracy and ASR of each cell's start and selections, in per cent."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("attack", "objective", "defense", "seed", "status"):
        table.add_column(name, no_wrap=True)
    for name in ("start", "blind", "last", "oracle 5 %"):
        table.add_column(f"{name}\nacc / ASR", justify="right", no_wrap=True)
    for card in cards:
        picks = card.selections
        chosen: list[int | None] = [0, picks.blind, picks.last, picks.oracle.get("0.05")]
        table.add_row(
            *(Text(clean(part)) for part in (
                card.cell.attack, card.cell.objective, card.cell.defense, card.cell.seed,
                card.verdict.status,
            )),
            *("none" if i is None else _pair(card.trajectory[i]) for i in chosen),
        )
    return table


def _pair(point: Point) -> str:
    return " / ".join(percent(point.scores[name].value) for name in ("clean_top1", "asr_top1"))
