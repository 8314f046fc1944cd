"""Entries of all kinds, from TOML files, entry points and plugin files; classes load on first use.

A name is registered once. Listing imports no method, and so no torch.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import json
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from bdbench.api import Component, Tag
from bdbench.errors import BdbenchError
from bdbench.registry.entry import Entry
from bdbench.registry.merge import changed_recipe, merge
from bdbench.registry.plugin import plugin_entries
from bdbench.schema import KINDS, Defaults, Kind, Recipe, Ref

ALL = "all"
"""What stands for every registered name."""


def share_dir(name: str) -> Path:
    """The `registry` or `leaderboards` folder: inside an installed package or beside a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_share" / name
    return installed if installed.is_dir() else package.parent / name


class _File(BaseModel):
    """The keys of `registry/<kind>s/<name>.toml`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    use: str
    version: int = 1
    summary: str
    paper: str = ""
    threat_model: str = ""
    params: dict[str, Any] = {}
    sweep: dict[str, list[float]] = {}


def describe(error: ValidationError, prefix: str) -> str:
    """A pydantic error in one line per field: the dotted name, the value and what is wrong."""
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join([prefix, *map(str, item["loc"])])
        if item["type"] == "extra_forbidden":
            lines.append(f"`{where}` is not a field")
        else:
            lines.append(f"`{where}` = `{item['input']}`: {item['msg']}")
    return "\n".join(lines)


def near(name: str, names: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known ones, or all of them."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return "did you mean " + " or ".join(f"`{c}`" for c in close) + "?" if close else (
        "known: " + ", ".join(f"`{k}`" for k in known)
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BdbenchError(f"`{path}` is not valid TOML: {error}", "fix the file") from error


def _import(use: str) -> type[Component]:
    module, _, name = use.partition(":")
    return cast(type[Component], getattr(importlib.import_module(module), name))


class Registry:
    """All entries, built-in ones, those of installed packages, and those of `plugins`."""

    def __init__(self, plugins: Iterable[Path] = (), root: Path | None = None) -> None:
        """`root`: another `registry` folder than the shipped one."""
        self._root = root or share_dir("registry")
        self.plugins = tuple({path.absolute(): path for path in plugins}.values())

    @cached_property
    def _entries(self) -> dict[tuple[Kind, str], Entry]:
        entries: dict[tuple[Kind, str], Entry] = {}
        for entry in [*self._from_toml(), *self._from_packages(), *self._from_plugins()]:
            if entry.name == ALL:
                raise BdbenchError(
                    f"{entry.kind} `{ALL}` ({entry.origin}): the name stands for every method",
                    "choose another name",
                )
            other = entries.setdefault((entry.kind, entry.name), entry)
            if other is not entry:
                raise BdbenchError(
                    f"{entry.kind} `{entry.name}` is registered twice:"
                    f" by {other.origin} and by {entry.origin}",
                    "rename one of the two",
                )
        return entries

    def _from_toml(self) -> Iterable[Entry]:
        for kind in KINDS:
            for path in sorted((self._root / f"{kind}s").glob("*.toml")):
                try:
                    file = _File.model_validate(_read_toml(path))
                except ValidationError as error:
                    raise BdbenchError(f"`{path}`:\n{describe(error, path.stem)}") from error
                about = file.model_dump()
                yield Entry(
                    kind=kind, name=path.stem, origin="built-in",
                    find=partial(_import, file.use), **about,
                )

    def _from_packages(self) -> Iterable[Entry]:
        for kind in KINDS:
            for point in importlib.metadata.entry_points(group=f"bdbench.{kind}s"):
                dist = point.dist
                origin = f"{dist.name} {dist.version}" if dist else point.value
                # The version is part of every key, so that an upgrade is another method.
                yield Entry(
                    kind, point.name, point.value, origin, find=point.load, source=origin
                )

    def _from_plugins(self) -> Iterable[Entry]:
        for path in self.plugins:
            yield from plugin_entries(path)

    def entries(self, kind: Kind | None = None) -> list[Entry]:
        """Entries of one kind or of all, by kind and name."""
        order = {kind: i for i, kind in enumerate(KINDS)}
        found = [e for e in self._entries.values() if kind in (None, e.kind)]
        return sorted(found, key=lambda e: (order[e.kind], e.name))

    def entry(self, kind: Kind, name: str) -> Entry:
        """One entry; BdbenchError with near names when there is none."""
        try:
            return self._entries[kind, name]
        except KeyError:
            names = [e.name for e in self.entries(kind)]
            raise BdbenchError(
                f"there is no {kind} `{name}`", f"{near(name, names)} See `bdbench list {kind}`"
            ) from None

    def load(self, entry: Entry) -> type[Component]:
        """Import the class of an entry and check that it is a component of its kind."""
        try:
            cls = entry.find()
        except Exception as error:
            raise BdbenchError(
                f"{entry.kind} `{entry.name}` ({entry.origin}) cannot be imported from"
                f" `{entry.use}`: {type(error).__name__}: {error}",
                "fix or uninstall what registers it",
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, Component)):
            raise BdbenchError(f"`{entry.use}` ({entry.origin}) is not a bdbench component")
        if getattr(cls, "kind", None) != entry.kind:
            raise BdbenchError(f"`{entry.use}` ({entry.origin}) is no {entry.kind}")
        return cls

    def resolve(
        self, kind: Kind, name: str, defaults: Defaults | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> tuple[Ref, dict[str, tuple[float, ...]]]:
        """The reference with all parameters filled in, and the declared sweep.

        Later wins: class, entry, recipe, `--set`. Setting a swept parameter ends its sweep.
        """
        entry = self.entry(kind, name)
        cls = self.load(entry)
        tag = cls.__dict__.get("__bdbench__", Tag(name))
        own = dict(tag.params if entry.params is None else entry.params)
        sweep = dict(tag.sweep if entry.sweep is None else entry.sweep)
        recipe = defaults or Defaults()
        sweep.update(recipe.sweep)
        given = dict(overrides or {})
        swept = given.pop("sweep", {})
        if not isinstance(swept, dict) or not all(
            isinstance(values, list) and values for values in swept.values()
        ):
            raise BdbenchError(
                f"`{kind}.sweep` = `{swept}` is not a list of values per field",
                f"--set '{kind}.sweep.lr=[1e-5, 1e-4]'",
            )
        for field in given:
            sweep.pop(field, None)
        sweep.update(swept)
        changed = merge(recipe.params, given)
        component = self._validated(cls, kind, name, merge(own, changed))
        params = keyed(component)
        ref = Ref(
            kind=kind, name=name, use=entry.use, params=params, source=entry.source,
            version=entry.version if entry.params is not None else tag.version,
            overridden={field: params[field] for field in sorted(changed) if field in params},
        )
        # TOML and recipes hold floats; the field says whether a whole one is an integer.
        return ref, {
            field: tuple(
                getattr(self._validated(cls, kind, name, {**params, field: _whole(value)}), field)
                for value in values
            )
            for field, values in sweep.items()
        }

    def _validated(
        self, cls: type[Component], kind: Kind, name: str, params: Mapping[str, Any]
    ) -> Component:
        try:
            return cls.model_validate_json(json.dumps(params, default=str))
        except ValidationError as error:
            raise BdbenchError(
                describe(error, kind),
                f"`{self._shown(kind, name)}` lists the parameters",
            ) from error

    def _shown(self, kind: Kind, name: str) -> str:
        """The command that shows a component, wherever it comes from."""
        entry = self.entry(kind, name)
        words = ["--plugin", entry.origin] if entry.source else []
        return shlex.join(["bdbench", "show", f"{kind}/{name}", *words])

    def build(
        self, kind: Kind, identity: Mapping[str, Any], local: Mapping[str, Any] | None = None
    ) -> Component:
        """The component that `Ref.identity()` describes; `local`: what is not in it."""
        params = {**identity["params"], **(local or {})}
        for entry in self.entries(kind):
            if (entry.use, entry.source) == (identity["use"], identity["source"]):
                return self._validated(self.load(entry), kind, entry.name, params)
        raise BdbenchError(
            f"{kind} `{identity['use']}` is not registered here, or its file has changed",
            "install its package, or pass its file with `--plugin`",
        )

    def recipes(self) -> list[str]:
        """Names of the shipped recipes."""
        return sorted(path.stem for path in (self._root / "recipes").glob("*.toml"))

    def recipe_summaries(self) -> dict[str, str]:
        """What each shipped recipe is, by name."""
        folder = self._root / "recipes"
        return {
            name: str(_read_toml(folder / f"{name}.toml").get("summary", ""))
            for name in self.recipes()
        }

    def recipe(self, name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """A recipe with overrides merged in section by section."""
        if name not in self.recipes():
            raise BdbenchError(f"there is no recipe `{name}`", near(name, self.recipes()))
        data = changed_recipe(
            _read_toml(self._root / "recipes" / f"{name}.toml"), overrides or {}
        )
        try:
            return Recipe.model_validate_json(json.dumps(data, default=str))
        except ValidationError as error:
            raise BdbenchError(
                describe(error, "recipe"), f"`bdbench show recipe/{name}` lists the settings"
            ) from error


def keyed(component: Component) -> dict[str, Any]:
    """The parameters that keys hold: all but the local ones, and those that are None unless set.

    So a later version can add a field to a component without making new results of the old ones.
    """
    fields = type(component).model_fields
    unset = {name for name, value in component if value is None and fields[name].default is None}
    return component.model_dump(mode="json", exclude=unset | set(getattr(component, "local", ())))


def _whole(value: float) -> float:
    return int(value) if isinstance(value, float) and value.is_integer() else value
