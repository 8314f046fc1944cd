"""Plugin files: a file the user names is executed and its tagged classes are collected."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

from bdbench.api import Component, Tag
from bdbench.errors import BdbenchError
from bdbench.hashing import file_digest
from bdbench.registry.entry import Entry
from bdbench.schema import KINDS


def plugin_entries(path: Path) -> Iterator[Entry]:
    """The tagged classes of a file the user named; the file is executed."""
    if not path.is_file():
        raise BdbenchError(f"there is no plugin file `{path}`", "name a file that exists")
    source = file_digest(path)
    name = f"bdbench_plugin_{source[:16]}"
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise BdbenchError(f"plugin `{path}` is not a Python file", "its name must end in .py")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            # What a plugin prints is talk: standard output is for results.
            with redirect_stdout(sys.stderr):
                spec.loader.exec_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            del sys.modules[name]
            hint = f"`{shlex.join(['python', str(path)])}` shows the whole traceback"
            if isinstance(error, ModuleNotFoundError):
                hint = "a plugin is one file, or an installed package with entry points; " + hint
            raise BdbenchError(
                f"plugin `{path}`, line {_line(error, path)}: {type(error).__name__}: {error}", hint
            ) from error
    tagged = [
        cls for cls in vars(module).values()
        if isinstance(cls, type) and cls.__module__ == name and "__bdbench__" in vars(cls)
    ]
    if not tagged:
        raise BdbenchError(
            f"plugin `{path}` registers nothing",
            'put `@bdbench.register("name")` above the class',
        )
    for cls in tagged:
        kind = getattr(cls, "kind", None)
        if kind not in KINDS:
            raise BdbenchError(
                f"plugin `{path}`: `{cls.__name__}` is no attack, objective, defense, metric or"
                " dataset", "derive it from a class of `bdbench.api`",
            )
        tag: Tag = vars(cls)["__bdbench__"]
        yield Entry(
            kind=kind, name=tag.name, use=f"{path.name}:{cls.__name__}", origin=str(path),
            find=_constant(cls), version=tag.version, summary=tag.summary, paper=tag.paper,
            params=tag.params, sweep=tag.sweep, source=source,
        )


def _constant(cls: type[Component]) -> Callable[[], type[Component]]:
    return lambda: cls


def _line(error: BaseException, path: Path) -> int | str:
    if isinstance(error, SyntaxError) and error.lineno:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
    return (lines[-1] if lines else None) or "?"
