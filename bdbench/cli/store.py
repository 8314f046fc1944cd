"""`bdbench store`: look at the artifacts, move them, export models, delete what no card needs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bdbench.cards.text import clean, counted
from bdbench.errors import BdbenchError
from bdbench.export import export
from bdbench.plan import STAGE_VERSIONS, cells, plan
from bdbench.registry import Registry
from bdbench.store import Store, disk_errors
from bdbench.store.remote import Moved, Remote
from bdbench.store.remote import pull as pulled
from bdbench.store.remote import push as pushed

_URL = "A folder, or an address that fsspec opens, as `s3://BUCKET/FOLDER`."
_TRACK = "The undefended models of a leaderboard's track, which cost the most."

app = typer.Typer(
    no_args_is_help=True,
    help="Look at the artifacts; push and pull them; export a model; delete what no card needs.",
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


@app.command("push")
def push(
    url: Annotated[str, typer.Argument(help=_URL)],
    keys: Annotated[list[str] | None, typer.Argument(
        help="Of artifacts; by default all but the data, which others may own.")] = None,
    track: Annotated[str | None, typer.Option(help=_TRACK)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Copy artifacts to a remote that others pull from; what is there stays."""
    store, remote = _store(), Remote(url)
    here = [(a.manifest.stage, a.manifest.key) for a in store.artifacts()]
    if track is not None:
        chosen = set(_undefended(track))
        wanted = [at for at in here if at in chosen]
    elif keys:
        wanted = [at for at in here if at[1] in keys]
        _none_missing(keys, wanted, f"the store `{store.root}`", "`bdbench store ls` lists them")
    else:
        wanted = [at for at in here if at[0] != "data"]
    _tell(pushed(store, remote, wanted), "pushed", as_json)


@app.command("pull")
def pull(
    url: Annotated[str, typer.Argument(help=_URL)],
    keys: Annotated[list[str] | None, typer.Argument(help="Of artifacts.")] = None,
    track: Annotated[str | None, typer.Option(help=_TRACK)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Copy artifacts from a remote, so that a run need not make them; every byte is checked."""
    store, remote = _store(), Remote(url)
    if track is not None:
        wanted = _undefended(track)
    elif keys:
        wanted = [(stage, key) for key in keys for stage in remote.stages(key)]
        _none_missing(keys, wanted, f"`{url}`", "`bdbench run --plan --json` lists those of a run")
    else:
        raise BdbenchError("neither keys nor a track are named", f"--track tiny, after `{url}`")
    versions = {str(stage): version for stage, version in STAGE_VERSIONS.items()}
    _tell(pulled(store, remote, wanted, versions), "pulled", as_json)


def _undefended(track: str) -> list[tuple[str, str]]:
    """Poison, pre-training and first evaluation of a track's models, by stage and key."""
    from bdbench.leaderboard.folder import load_track

    found, registry = load_track(track), Registry()
    todo = plan(registry, cells(
        registry, recipe=found.recipe, attacks=found.attacks, objectives=found.objectives,
        defenses=["none"], seeds=found.seeds,
    ))
    models = {key for key, stage in todo.stages.items() if stage in ("pretrain", "checkpoint")}
    return [
        (node.stage, key) for key, node in todo.nodes.items()
        if key in models or node.stage == "poison"
        or (node.stage == "evaluate" and node.inputs["model"] in models)
    ]


def _none_missing(
    keys: list[str], found: list[tuple[str, str]], where: str, hint: str
) -> None:
    missing = [key for key in keys if key not in {at[1] for at in found}]
    if missing:
        raise BdbenchError(f"`{missing[0]}` is not in {where}", hint)


def _tell(moves: Iterator[Moved], verb: str, as_json: bool) -> None:
    done = []
    for one in moves:
        done.append(one)
        if one.outcome == "moved":
            typer.echo(clean(
                f"{one.stage} {one.key}  {one.label}  {one.bytes / 1e6:.1f} MB"
            ), err=True)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in done], indent=1))
    count = Counter(one.outcome for one in done)
    typer.echo(
        f"{counted(count['moved'], 'artifact')} {verb}, {count['present']} there already,"
        f" {count['missing']} not found", err=as_json,
    )
