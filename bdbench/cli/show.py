"""`bdbench show`: a component, a recipe or a card."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bdbench.cards.text import clean, summary
from bdbench.errors import BdbenchError
from bdbench.hashing import KEY_DIGITS
from bdbench.registry import Registry, near
from bdbench.registry.entry import Entry
from bdbench.schema import KINDS, Card
from bdbench.store import Store, disk_errors

_ABOVE = ("summary", "needs")
"""What a recipe says of itself, above the table."""
_KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")


def show(
    what: Annotated[
        str, typer.Argument(help="A name, `kind/name`, `recipe/name`, a card's key or its file.")
    ],
    plugin: Annotated[list[Path] | None, typer.Option(help="Also load a plugin file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a component with its parameters, a recipe, or a result card."""
    registry = Registry(plugin or ())
    console = Console(highlight=False, emoji=False)
    kind, _, name = what.rpartition("/")
    if kind == "recipe" or (not kind and name in registry.recipes()):
        recipe = registry.recipe(name)
        if as_json:
            typer.echo(recipe.model_dump_json(indent=1))
        else:
            console.print(f"recipe [bold]{_plain(name)}[/]: {_plain(recipe.summary)}\n")
            if recipe.needs:
                console.print(escape(recipe.needs), soft_wrap=True)
            console.print(_fields(recipe, expand=True))
        return
    card = None if kind in KINDS else _card(what)
    if card is not None:
        if as_json:
            typer.echo(card.model_dump_json(indent=1))
        else:
            console.print(summary(card))
        return
    found = _entries(registry, kind, name)
    if as_json and len(found) > 1:
        raise BdbenchError(
            f"`{name}` names {' and '.join(f'the {e.kind}' for e in found)}",
            " or ".join(f"`bdbench show {e.kind}/{name} --json`" for e in found),
        )
    for entry in found:
        _show_entry(registry, entry, console, as_json)


def _card(what: str) -> Card | None:
    listed = "`bdbench store ls` lists the keys of the cards"
    path = Path(what)
    # os.path, unlike pathlib, calls a name that is too long no file instead of raising.
    if not os.path.isfile(path):  # noqa: PTH113
        if path.suffix == ".json":
            raise BdbenchError(f"there is no file `{what}`", listed)
        if not _KEY.fullmatch(what):
            return None
        store = Store()
        with disk_errors(store.root):
            artifact = store.find("card", what)
        for note in store.notes:
            typer.echo(f"note: {clean(note)}", err=True)
        if artifact is None:
            raise BdbenchError(f"the store `{store.root}` has no card `{what}`", listed)
        path = artifact.file("card.json")
    try:
        return Card.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BdbenchError(f"`{what}` cannot be read: {error.strerror}", listed) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BdbenchError(
            f"`{what}` is not a result card: {f'`{where}`: ' if where else ''}{first['msg']}",
            listed,
        ) from error


def _entries(registry: Registry, kind: str, name: str) -> list[Entry]:
    if kind:
        if kind not in KINDS:
            raise BdbenchError(f"there is no kind `{kind}`", near(kind, [*KINDS, "recipe"]))
        return [registry.entry(kind, name)]
    found = [entry for entry in registry.entries() if entry.name == name]
    if not found:
        names = {entry.name for entry in registry.entries()} | set(registry.recipes())
        raise BdbenchError(f"nothing is called `{name}`", near(name, names))
    return found


def _show_entry(registry: Registry, entry: Entry, console: Console, as_json: bool) -> None:
    ref, sweep = registry.resolve(entry.kind, entry.name)
    cls = registry.load(entry)
    if as_json:
        data = ref.model_dump(mode="json") | {"origin": entry.origin, "sweep": sweep}
        typer.echo(json.dumps(data, indent=1))
        return
    console.print(f"{entry.kind} [bold]{_plain(entry.name)}[/]: {_plain(entry.summary)}")
    about = {"from": entry.origin, "class": entry.use, "paper": entry.paper,
             "threat model": entry.threat_model}
    for title, text in about.items():
        if text:
            console.print(f"  {title}: {_plain(text)}")
    for field, values in sweep.items():
        console.print(f"  sweep of {_plain(field)}: {', '.join(f'{v:g}' for v in values)}")
    console.print()
    component = cls.model_validate_json(json.dumps(ref.params))
    console.print(_fields(component))
    tables = [(name, value) for name, value in component if isinstance(value, BaseModel)]
    for kind in dict.fromkeys(type(value) for _, value in tables):
        names = ", ".join(name for name, value in tables if type(value) is kind)
        console.print(f"\nin each of {_plain(names)}\n")
        console.print(_fields(kind.model_construct()))


def _fields(model: BaseModel, expand: bool = False) -> Table:
    """Every parameter with its meaning; `expand`: also those of tables within the model."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("parameter", "value", "meaning"):
        table.add_column(column, overflow="fold")
    _add_fields(table, model, "", expand)
    return table


def _add_fields(table: Table, model: BaseModel, prefix: str, expand: bool) -> None:
    for name, field in type(model).model_fields.items():
        value: Any = getattr(model, name, "")
        if isinstance(value, BaseModel) and expand:
            _add_fields(table, value, f"{prefix}{name}.", expand)
        elif value is not PydanticUndefined and not (expand and (value == {} or name in _ABOVE)):
            shown = json.dumps(value, default=lambda item: item.model_dump(exclude_defaults=True))
            table.add_row(prefix + name, _plain(shown), _plain(field.description or ""))


def _plain(text: str) -> str:
    """What a plugin says must not reach the terminal as markup or control codes."""
    return escape(clean(text))
