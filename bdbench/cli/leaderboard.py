"""`bdbench leaderboard`: show the ranked tables; write their pages."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from bdbench.leaderboard import build as pages
from bdbench.leaderboard.standing import standings
from bdbench.leaderboard.text import plain, terminal

app = typer.Typer(no_args_is_help=True, help="Show the ranked tables; write their pages.")


@app.command("show")
def show(
    track: Annotated[str | None, typer.Option(help="One track; all if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the ranking of a track, its declared statistic, and figures reported elsewhere."""
    found = standings(track)
    if as_json:
        typer.echo(json.dumps([plain(one) for one in found], indent=1))
        return
    Console(highlight=False, emoji=False).print(terminal(found))


@app.command("build")
def build(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 3 if a page is out of date.")
    ] = False,
) -> None:
    """Write leaderboards/README.md, the README.md of every track, and index.html."""
    if check:
        pages.check()
        typer.echo("every page is what the submissions make", err=True)
        return
    changed = pages.build()
    for path in changed:
        typer.echo(str(path))
    typer.echo(f"{len(changed)} files changed" if changed else "nothing changed", err=True)
