"""`bdbench check`: the contract tests of a plugin file's methods, and one small cell with each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bdbench.api import Dataset
from bdbench.cards.text import clean
from bdbench.contracts import Check, check
from bdbench.errors import BdbenchError, CheckFailed
from bdbench.execute import run
from bdbench.registry import Registry
from bdbench.registry.entry import Entry

RECIPE = "smoke"
CELL = "runs in a cell"


def check_file(
    file: Annotated[Path, typer.Argument(help="A plugin file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the contract tests on every method of a plugin file, then one `smoke` cell with it."""
    registry = Registry([file])
    _survives(file)
    console = Console(highlight=False, emoji=False)
    found: list[tuple[Entry, Check]] = []

    def told(entry: Entry, result: Check) -> None:
        found.append((entry, result))
        if not as_json:
            mark = "ok  " if result.passed else "FAIL"
            detail = f": {clean(result.detail)}" if result.detail and not result.passed else ""
            console.print(f"{mark} {escape(f'{clean(result.name)}{detail}')}", soft_wrap=True)

    for entry in (e for e in registry.entries() if e.origin == str(file)):
        if not as_json:
            console.print(f"{entry.kind} [bold]{escape(clean(entry.name))}[/]")
        _check_entry(registry, entry, file, told)
    failed = [(entry, result) for entry, result in found if not result.passed]
    if as_json:
        typer.echo(json.dumps([
            {"kind": entry.kind, "name": entry.name, "check": result.name,
             "passed": result.passed, "detail": result.detail} for entry, result in found
        ], indent=1))
    if failed:
        raise CheckFailed(
            f"{len(failed)} of {len(found)} checks failed", f"mend `{file}` and run this again"
        )
    if not as_json:
        console.print(f"all {len(found)} checks passed")


def _survives(file: Path) -> None:
    """Load the file in a process of its own: one that ends this process would look like a pass."""
    words = "import sys; from bdbench.registry import Registry; from pathlib import Path;"
    words += " Registry([Path(sys.argv[1])]).entries(); print('loaded')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", words, str(file)], capture_output=True, text=True,
        check=False,
    )
    # A status of 1 is an error that loading it here tells better.
    if done.stdout.strip() != "loaded" and done.returncode != 1:
        raise CheckFailed(
            f"the process that loads `{file}` ends with status `{done.returncode}`",
            "a plugin defines classes and does nothing else",
        )


def _check_entry(
    registry: Registry, entry: Entry, file: Path, told: Callable[[Entry, Check], None]
) -> None:
    """The contract, and the cell unless the contract is broken: it would fail again, slower."""
    passed = True
    for result in check(registry, entry.kind, entry.name, RECIPE):
        told(entry, result)
        passed = passed and result.passed
    if not passed:
        return
    try:
        run(**_cell(registry, entry), recipe=RECIPE, plugins=[file])
    except BdbenchError as error:
        told(entry, Check(name=CELL, passed=False, detail=str(error)))
    else:
        told(entry, Check(name=CELL, passed=True, detail=""))


def _cell(registry: Registry, entry: Entry) -> dict[str, Any]:
    """The cheapest cell in which the method has its part."""
    cell: dict[str, Any] = {"attack": "badnet", "objective": "mmcl", "defense": "none"}
    if entry.kind in cell:
        cell[entry.kind] = entry.name
    if entry.kind == "dataset":
        ref, _ = registry.resolve("dataset", entry.name)
        dataset = registry.build("dataset", ref.identity())
        assert isinstance(dataset, Dataset)
        cell["overrides"] = {
            "recipe": {"dataset": entry.name, "target": dataset.classes()[0]}
        }
    return cell
