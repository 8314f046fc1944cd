"""`bdbench list`: what is registered, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bdbench.cards.text import clean
from bdbench.errors import BdbenchError
from bdbench.registry import Registry, near
from bdbench.schema import KINDS


def list_entries(
    kind: Annotated[
        str | None, typer.Argument(help="attack, objective, defense, metric, dataset or recipe.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Also list a plugin file's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the registered components and recipes."""
    registry = Registry(plugin or ())
    kinds = [*KINDS, "recipe"]
    if kind is not None and kind not in kinds:
        raise BdbenchError(f"there is no kind `{kind}`", near(kind, kinds))
    rows: list[tuple[str, str, str, str]] = [
        (entry.kind, entry.name, entry.origin, entry.summary)
        for entry in registry.entries() if kind in (None, entry.kind)
    ]
    if kind in (None, "recipe"):
        rows += [("recipe", name, "built-in", summary)
                 for name, summary in registry.recipe_summaries().items()]
    if as_json:
        names = ("kind", "name", "origin", "summary")
        typer.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("kind", "name", "from", "what it is"):
        table.add_column(column, overflow="fold")
    before = ""
    for row in rows:
        if before and row[0] != before:
            table.add_section()
            table.add_row()
        # As Text: what a plugin says must not reach the terminal as markup or control codes.
        table.add_row(*(Text(clean(cell)) for cell in row))
        before = row[0]
    Console(highlight=False).print(table)
