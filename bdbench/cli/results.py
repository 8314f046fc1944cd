"""What a run shows at its end: the card or the matrix, the files, what failed, what comes next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from rich.console import Console

from bdbench.cards.text import clean, counted
from bdbench.errors import CellFailed, DiskError
from bdbench.execute import Failure, read_card
from bdbench.hashing import key_of
from bdbench.plan import Plan
from bdbench.schema import Card, Cell
from bdbench.store import Store, disk_errors


def read(todo: Plan, store: Store, failures: Sequence[Failure]) -> dict[Cell, Card]:
    """The cards of a run; where nodes failed, those that there are."""
    return {
        cell: read_card(store, key) for cell, key in todo.cards.items()
        if not failures or store.find("card", key) is not None
    }


def print_json(todo: Plan, store: Store, cards: Mapping[Cell, Card]) -> None:
    """The cards with their keys and paths, as a list."""
    typer.echo(json.dumps([
        {"key": todo.cards[cell], "path": str(_path(todo, store, cell)),
         "card": card.model_dump(mode="json")}
        for cell, card in cards.items()
    ]))


def print_cards(
    todo: Plan, store: Store, cards: Mapping[Cell, Card], following: Sequence[str]
) -> None:
    """One card, or the matrix of several; where they lie, and the command that comes next."""
    from bdbench.cards.fit import Fitted
    from bdbench.cards.matrix import matrix
    from bdbench.cards.text import summary

    console = Console(highlight=False)
    if len(todo.cards) == 1:
        console.print(summary(next(iter(cards.values()))))
    else:
        table = matrix(list(cards.values()))
        console.print(Fitted(table))
        typer.echo(table.note)
        try:
            typer.echo(f"matrix: {_report(todo, store, cards)}")
        except DiskError as error:  # the cards are there all the same
            typer.echo(f"note: no figures and no table as files: {clean(error.message)}", err=True)
    for cell in cards:
        typer.echo(f"card: {_path(todo, store, cell)}")
    typer.echo(f"next: {clean(shlex.join(following))}")


def _report(todo: Plan, store: Store, cards: Mapping[Cell, Card]) -> Path:
    """The folder with the table and the figures of these cards."""
    from bdbench.cards.report import VERSION, write

    by_key = {todo.cards[cell]: card for cell, card in cards.items()}
    folder = store.root / "matrices" / key_of([VERSION, *sorted(by_key)])
    with disk_errors(store.root):
        write(by_key, folder)
    return folder


def refuse(todo: Plan, cards: Mapping[Cell, Card], failures: Sequence[Failure]) -> None:
    """CellFailed with all that failed, if anything did."""
    if not failures:
        return
    lost = len(todo.cards) - len(cards)
    hints = dict.fromkeys(failure.error.hint for failure in failures if failure.error.hint)
    raise CellFailed(
        "\n".join([
            f"`{lost}` of {counted(len(todo.cards), 'cell')} failed",
            *(failure.error.message for failure in failures), *hints,
        ]),
        "mend it and run the same command again: it does what is left",
    )


def _path(todo: Plan, store: Store, cell: Cell) -> Path:
    return store.open("card", todo.cards[cell]).file("card.md")
