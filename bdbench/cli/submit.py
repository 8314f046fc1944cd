"""`bdbench submit`: the cards of a method on a track, from the store into one file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bdbench.cards.text import clean
from bdbench.errors import CheckFailed
from bdbench.submit import in_checkout
from bdbench.submit import submit as collect


def submit(
    name: Annotated[str, typer.Argument(help="An attack, objective or defense, or `kind/name`.")],
    track: Annotated[str, typer.Option(help="The leaderboard's track.")],
    author: Annotated[list[str], typer.Option(help="Repeat for several.")],
    plugin: Annotated[list[Path] | None, typer.Option(help="Also load a plugin file.")] = None,
    summary: Annotated[
        str | None, typer.Option(help="One line; by default the method's own.")
    ] = None,
    url: Annotated[str, typer.Option(help="Where code and description are, https://...")] = "",
    evidence: Annotated[
        bool, typer.Option("--evidence", help="The cells of the track's declared statistic.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The file to write; NAME.json here.")] = None,
) -> None:
    """Write the cards of all cells of a track, which have run, into one file; computes nothing."""
    done = collect(
        name, track, authors=author, summary=summary, url=url, plugins=plugin or (),
        evidence=evidence, out=out,
    )
    path = shlex.quote(str(done.path))
    for check in done.report.checks:
        if check.outcome != "yes":
            text = f"{check.outcome}: {check.claim}: {check.reason}"
            typer.echo(clean(text), err=True)
    if done.report.failed:
        raise CheckFailed(
            f"`{done.path}` is written, and {len(done.report.failed)} checks say no",
            f"bdbench verify {path}",
        )
    typer.echo(str(done.path))
    typer.echo(
        f"{len(done.submission.cards)} cards, all {len(done.report.checks)} checks passed", err=True
    )
    if in_checkout():
        typer.echo(f"put it at {done.place} and open a pull request", err=True)
    else:
        typer.echo(f"propose it as {done.place} in a checkout of bdbench", err=True)
