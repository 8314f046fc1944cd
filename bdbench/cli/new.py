"""`bdbench new`: a commented template of a method, which runs as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from bdbench.errors import BdbenchError
from bdbench.registry import ALL, Registry, near
from bdbench.schema import KINDS, Kind

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RUN: dict[Kind, str] = {
    "attack": "--attack {name}", "objective": "--objective {name}", "defense": "--defense {name}",
    "metric": "--defense none", "dataset": "--set 'recipe.dataset=\"{name}\"'",
}


def new(
    kind: Annotated[str, typer.Argument(help="attack, objective, defense, metric or dataset.")],
    path: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    name: Annotated[
        str | None, typer.Option(help="The registered name; by default the file's.")
    ] = None,
) -> None:
    """Write a template of a new method and say how to check and run it."""
    found = next((k for k in KINDS if k == kind), None)
    if found is None:
        raise BdbenchError(f"there is no kind `{kind}`", near(kind, KINDS))
    name = path.stem if name is None else name
    quoted = shlex.quote(str(path))
    if not _NAME.fullmatch(name):
        raise BdbenchError(
            f"`{name}` is no name: lower-case letters, digits and underscores, a letter first",
            f"bdbench new {kind} {quoted} --name my_{kind}",
        )
    if name == ALL:
        raise BdbenchError(
            f"`{name}` stands for every {kind}", f"bdbench new {kind} {quoted} --name my_{name}"
        )
    taken = {entry.name: entry for entry in Registry().entries(found)}
    if name in taken:
        raise BdbenchError(
            f"{kind} `{name}` is registered already ({taken[name].origin})",
            f"bdbench new {kind} {quoted} --name my_{name}",
        )
    if path.suffix != ".py":
        raise BdbenchError(
            f"`{path}` must end in .py",
            f"bdbench new {kind} {shlex.quote(f'{path}.py')} --name {name}",
        )
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("bdbench", "templates/new"), keep_trailing_newline=True,
        autoescape=False,
    )
    # With the kind, no class takes the place of what the template imports, or of a keyword.
    title = "".join(part.capitalize() for part in [*name.split("_"), found])
    text = environment.get_template(f"{kind}.py.j2").render(name=name, title=title)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise BdbenchError(f"`{path}` exists", "choose another file name") from None
    except OSError as error:
        raise BdbenchError(f"`{path}` cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {path}")
    typer.echo(f"check: bdbench check {quoted}")
    typer.echo(
        f"run:   bdbench run --plugin {quoted} {_RUN[found].format(name=name)} --recipe smoke"
    )
