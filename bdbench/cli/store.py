"""`bdbench store`: look at the artifacts, export models, delete what no card needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bdbench.cards.text import clean, counted
from bdbench.export import export
from bdbench.store import Store, disk_errors

app = typer.Typer(
    no_args_is_help=True,
    help="Look at the artifacts; export a model; delete what no card needs.",
)


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


@app.command("export")
def export_model(
    key: Annotated[str, typer.Argument(help="Of a model: stage pretrain, checkpoint or defend.")],
    folder: Annotated[Path, typer.Argument(help="A new folder for the two files.")],
    step: Annotated[int | None, typer.Option(
        help="Epoch of the defense; by default the last.")] = None,
) -> None:
    """Write a model as a folder that open_clip loads as `local-dir:FOLDER`."""
    store = _store()
    with disk_errors(store.root):
        file = export(store, key, folder, step)
    for note in store.notes:
        typer.echo(f"note: {clean(note)}", err=True)
    typer.echo(str(folder))
    source, name = f"local-dir:{folder}", file.model.name
    typer.echo(
        clean(f"open_clip.create_model({source!r}), open_clip.get_tokenizer({name!r})"), err=True
    )
