"""`bdbench store`: look at the artifacts and delete what no card needs."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bdbench.cards.text import clean, counted
from bdbench.store import Store, disk_errors

app = typer.Typer(no_args_is_help=True, help="Look at the artifacts; delete what no card needs.")


def _store() -> Store:
    store = Store()
    with disk_errors(store.root):
        if store.root.exists():
            next(store.root.iterdir(), None)
    return store


@app.command("ls")
def ls(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the artifacts: stage, key, size, what they took, what they are."""
    store = _store()
    found = [
        {"stage": a.manifest.stage, "key": a.manifest.key, "bytes": a.size,
         "seconds": round(a.manifest.seconds, 1), "label": a.manifest.label}
        for a in store.artifacts()
    ]
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("stage", "left"), ("key", "left"), ("MB", "right"),
                          ("seconds", "right"), ("what", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for item in found:
        table.add_row(
            Text(clean(item["stage"])), Text(clean(item["key"])),
            f"{int(str(item['bytes'])) / 1e6:.1f}", str(item["seconds"]),
            Text(clean(item["label"])),
        )
    Console(highlight=False).print(table)
    total = sum(int(str(item["bytes"])) for item in found)
    typer.echo(f"{counted(len(found), 'artifact')}, {total / 1e6:.1f} MB in {store.root}", err=True)


@app.command("gc")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete artifacts that no card was made from, unfinished work and corrupt artifacts."""
    store = _store()
    doomed = store.gc(dry_run=dry_run)
    for path in doomed:
        typer.echo(str(path))
    typer.echo(
        f"{'would delete' if dry_run else 'deleted'} {counted(len(doomed), 'folder')}", err=True
    )
