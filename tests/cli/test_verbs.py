"""The set of verbs and flags, their help, and what each writes to stdout."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import bdbench as package
from bdbench.cli.main import app
from bdbench.schema import KINDS, Card
from tests.cli.conftest import Cli
from tests.conftest import Command

FLAGS = {
    "": ["--version"],
    "run": ["--attack", "--objective", "--defense", "--recipe", "--seed", "--track", "--checkpoint",
            "--set", "--plugin", "--on", "--keep-going", "--strict", "--plan", "--json"],
    "list": ["kind", "--plugin", "--json"],
    "show": ["what", "--plugin", "--json"],
    "new": ["kind", "path", "--name"],
    "check": ["file", "--json"],
    "compare": ["name", "--track", "--plugin", "--json"],
    "submit": ["name", "--track", "--author", "--plugin", "--summary", "--url", "--evidence",
               "--out"],
    "verify": ["file", "--replay", "--reproduce", "--held-out", "--seed", "--plugin", "--badge",
               "--out", "--root", "--json"],
    "leaderboard": [],
    "leaderboard show": ["--track", "--json"],
    "leaderboard build": ["--check"],
    "store": [],
    "store ls": ["--json"],
    "store gc": ["--dry-run"],
    "store export": ["key", "folder", "--step"],
    "store push": ["url", "keys", "--track", "--json"],
    "store pull": ["url", "keys", "--track", "--json"],
}
"""A new knob belongs into a component or a recipe; a new flag is a decision, taken here."""


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    for name, child in getattr(command, "commands", {}).items():
        yield from verbs(child, (*path, name))


VERBS = dict(verbs(typer.main.get_command(app)))


def test_the_verbs_and_their_flags_are_these() -> None:
    found = {
        name: [p.opts[0] for p in command.params if p.name != "help"]
        for name, command in VERBS.items()
    }
    assert found == FLAGS


@pytest.mark.parametrize("verb", FLAGS)
def test_each_help_names_every_flag_and_what_it_does(verb: str, cli: Cli) -> None:
    done = cli(*verb.split(), "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"Usage: {' '.join(['bdbench', *verb.split()])} ")
    shown = " ".join(done.out.split())
    for param in VERBS[verb].params:
        assert param.opts[0] in shown
        assert param.help
        assert param.help in shown


@pytest.mark.parametrize("verb", [verb for verb in FLAGS if VERBS[verb].callback])
def test_no_flag_is_ignored_by_the_code(verb: str) -> None:
    function = inspect.unwrap(VERBS[verb].callback)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    read = {node.id for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    acted = {p.name for p in VERBS[verb].params if p.is_eager}  # the parser calls them itself
    assert set(inspect.signature(function).parameters) - acted <= read


def test_the_version_is_the_packages(bdbench: Command) -> None:
    done = bdbench("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0, f"bdbench {package.__version__}\n", "")


@pytest.mark.parametrize("words", [[], ["store"]])
def test_nothing_asked_for_is_answered_with_help_as_talk(words: list[str], cli: Cli) -> None:
    done = cli(*words)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Usage: bdbench")


def test_listing_is_quick_and_imports_no_torch() -> None:
    """At most three times what Python takes to import the libraries that any listing needs."""
    listing = (
        "import sys; sys.argv[1:] = ['list']\n"
        "from bdbench.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'torchvision', 'open_clip', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    bare = (
        "import filelock, platformdirs, pydantic, rich.console, rich.table, sys, typer\n"
        "class Model(pydantic.BaseModel): field: int\n"
        "print([], file=sys.stderr)"
    )
    seconds: dict[str, float] = {}
    for code in (listing, bare) * 4:
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        after = os.times()
        # Seconds on a core, not on the wall, where whatever else runs would count.
        took = (after.children_user + after.children_system
                - before.children_user - before.children_system)
        seconds[code] = min(took, seconds.get(code, took))
        assert done.stderr == "[]\n"
    assert seconds[listing] < 3 * seconds[bare]


@pytest.mark.parametrize("kind", [None, *KINDS, "recipe"])
def test_list_as_json_and_for_people_name_the_same(kind: str | None, cli: Cli) -> None:
    words = ["list", *filter(None, [kind])]
    found = json.loads(cli(*words, "--json").out)
    assert found
    assert {row["kind"] for row in found} == ({kind} if kind else {*KINDS, "recipe"})
    shown = cli(*words)
    assert (shown.status, shown.err) == (0, "")
    rows = [line.split()[:2] for line in shown.out.splitlines()[1:] if line.strip()]
    assert rows == [[row["kind"], row["name"]] for row in found]
    for row in found:
        assert row["summary"]
        assert row["summary"] in shown.out


@pytest.mark.usefixtures("smoke_card")
def test_all_human_output_is_free_of_escape_codes(cli: Cli) -> None:
    for words in (["list"], ["show", "badnet"], ["show", "recipe/smoke"], ["store", "ls"],
                  ["run", "--recipe", "smoke", "--plan"], ["run", "--recipe", "smoke"]):
        done = cli(*words)
        assert done.status == 0
        assert done.out
        assert "\x1b" not in done.out + done.err


@pytest.mark.usefixtures("smoke_card")
def test_store_ls_counts_what_the_files_hold(bdbench: Command, shared_store: Path) -> None:
    found = json.loads(bdbench("store", "ls", "--json", home=shared_store).stdout)
    done = bdbench("store", "ls", home=shared_store)
    assert done.returncode == 0
    folders = [path.parent for path in shared_store.glob("objects/*/*/manifest.json")]
    assert {(item["stage"], item["key"]) for item in found} == {
        (folder.parent.name, folder.name) for folder in folders
    }
    size = sum(
        path.stat().st_size for folder in folders for path in folder.iterdir()
        if path.name != "manifest.json"
    )
    assert sum(item["bytes"] for item in found) == size
    assert f"{len(folders)} artifacts, {size / 1e6:.1f} MB in {shared_store}\n" in done.stderr
    assert all(folder.name in done.stdout for folder in folders)


def test_store_gc_says_what_would_go_and_then_deletes_it(cli: Cli, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDBENCH_HOME", str(tmp_path))
    left = tmp_path / "work" / "0123456789abcdef"
    left.mkdir(parents=True)
    (tmp_path / "locks").mkdir()
    dry = cli("store", "gc", "--dry-run")
    assert (dry.status, dry.out, dry.err) == (0, f"{left}\n", "would delete 1 folder\n")
    assert left.exists()
    done = cli("store", "gc")
    assert (done.status, done.out, done.err) == (0, f"{left}\n", "deleted 1 folder\n")
    assert not left.exists()


def test_a_reader_that_stops_reading_is_no_mistake(smoke_card: Card) -> None:
    code = "import sys; sys.argv[1:] = ['show', 'recipe/smoke']; " \
           "from bdbench.cli.main import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE,
                          text=True, check=False)
    os.close(writer)
    assert "Traceback" not in done.stderr
