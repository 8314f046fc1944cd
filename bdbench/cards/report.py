"""What a run of many cells leaves as files: a table, a heat map per attack, frontiers."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from bdbench.cards import frontiers, heat
from bdbench.cards.escape import clean, markdown
from bdbench.cards.matrix import PICKS, matrix, worked
from bdbench.files import settle
from bdbench.schema import Card

VERSION = 2
"""Raised when the same cards give other files."""
METRICS = ("clean_top1", "asr_top1", "lift")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would execute at the beginning of a field."""


def write(cards: Mapping[str, Card], folder: Path) -> list[Path]:
    """Write the files of the cards, which are given by their keys; returns their paths.

    `matrix.csv` has a row per card with rates in [0, 1], `matrix.md` the table of the terminal,
    `heat-<attack>.png` and `frontier-<objective>.png` what their modules say; a control has no
    frontier, nor an objective on which no attack worked. The same cards give the same bytes. Each
    file is whole or not there, `matrix.csv` is the last, and where it is there nothing is written
    again.
    """
    files: dict[str, Callable[[Path], object]] = {}
    every = list(cards.values())
    for kind, name, chosen in _parts(every):
        draw = heat.draw if kind == "heat" else frontiers.draw
        files[f"{kind}-{name}.png"] = partial(draw, chosen)
    files["matrix.md"] = lambda path: path.write_text(_markdown(every), "utf-8")
    files["matrix.csv"] = lambda path: path.write_text(_table(cards), "utf-8", newline="")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "matrix.csv").exists():
        for name, make in files.items():
            aside = folder / f".{os.getpid()}-{name}"  # two runs may end together
            make(aside)
            settle(aside, folder / name)
    return [folder / name for name in files]


def _parts(cards: Sequence[Card]) -> Iterator[tuple[str, str, list[Card]]]:
    """The cards of each attack and of each objective, with a name that is safe for a file."""
    attacked = [card for card in cards if card.verdict.status != "control"]
    for kind, axis, some in (("heat", "attack", cards), ("frontier", "objective", attacked)):
        for name in dict.fromkeys(getattr(card.cell, axis) for card in some):
            chosen = [card for card in some if getattr(card.cell, axis) == name]
            if kind == "heat" or worked(chosen):
                yield kind, re.sub(r"[^\w.-]", "_", name), chosen


def _table(cards: Mapping[str, Card]) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    bounds = list(dict.fromkeys(b for card in cards.values() for b in card.selections.oracle))
    picks: dict[str, Callable[[Card], int | None]] = {
        name: pick for name, pick in PICKS.items() if not name.startswith("oracle")
    } | {f"oracle {bound}": lambda card, b=bound: card.selections.oracle.get(b) for bound in bounds}
    rows.writerow([
        "key", "recipe", "attack", "objective", "defense", "seed", "status", "blind point",
        "seconds", *(f"{name} {metric}" for name in picks for metric in METRICS),
    ])
    for key, card in cards.items():
        cell, blind = card.cell, card.trajectory[card.selections.blind]
        point = " ".join(f"{name}={value:g}" for name, value in blind.sweep.items())
        rows.writerow([
            *map(_field, (key, cell.recipe, cell.attack, cell.objective, cell.defense)),
            cell.seed, card.verdict.status, _field(f"{point} epoch={blind.step}".strip()),
            round(sum(cost.seconds for cost in card.cost.values()), 1),
            *(figure for pick in picks.values() for figure in _figures(card, pick(card))),
        ])
    return out.getvalue()


def _figures(card: Card, place: int | None) -> list[float | str]:
    if place is None:
        return [""] * len(METRICS)
    return [card.trajectory[place].scores[metric].value for metric in METRICS]


def _field(text: str) -> str:
    """A name as a field that no spreadsheet takes for a formula."""
    text = clean(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _markdown(cards: Sequence[Card]) -> str:
    return markdown().from_string(
        '{% from "board_table.md.j2" import show %}{{ show(table) }}'
    ).render(table=matrix(cards))
