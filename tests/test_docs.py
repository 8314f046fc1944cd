"""The commands and the Python of README.md and CONTRIBUTING.md do what they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def commands(path: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", path.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def marked(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n+```console\n\$ (.*?)\n", README.read_text())
    assert found, f"README.md has no {name}"
    return found[1]


# The path through `mine` needs its commands in order: tests/test_contributing.py walks it.
BDBENCH = [c for c in commands(README) + commands(CONTRIBUTING)
           if c.startswith("bdbench ") and "mine" not in c and "leaderboard build" not in c]


def write_examples(folder: Path) -> None:
    """The files that the documents tell the reader to write: blocks that begin `# file: NAME`."""
    text = README.read_text() + CONTRIBUTING.read_text()
    for block in re.findall(r"```python\n(# file: .*?)```", text, re.DOTALL):
        name = block.splitlines()[0].removeprefix("# file: ")
        (folder / name).write_text(block)


@pytest.mark.parametrize("line", dict.fromkeys(BDBENCH))
def test_each_bdbench_command_works(
    line: str, bdbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that take minutes are planned; `smoke` runs and the other verbs are carried out."""
    monkeypatch.chdir(tmp_path)
    write_examples(tmp_path)
    words = shlex.split(line)[1:]
    if words[0] == "run" and "smoke" not in words:
        words.append("--plan")
    done = bdbench(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_python_examples_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(import bdbench.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        code = block.replace(")", ', recipe="smoke")', 1)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False,
            env={**os.environ, "BDBENCH_HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_file_tree_of_the_readme_is_the_tree() -> None:
    """Every path in the tree exists, and every module of the package is in it."""
    block = re.search(r"<!-- tree -->\n+```\n(.*?)```", README.read_text(), re.DOTALL)
    assert block
    stack: list[str] = []
    named = set()
    for line in block[1].splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        stack = [*stack[:depth], name.rstrip("/")]
        named.add("/".join(stack))
        assert (ROOT / "/".join(stack)).exists(), line
        assert len(line.split()) > 1, f"`{name}` has no description"
    modules = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "bdbench").rglob("*.py")
        if path.name != "__init__.py" and "_share" not in path.parts
    }
    assert modules - named == set()


def test_links_of_the_documents_exist() -> None:
    for path in (README, CONTRIBUTING):
        for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", path.read_text()):
            link = next(filter(None, target))
            if not link.startswith("http"):
                assert (path.parent / link).exists(), link


def test_contributing_lists_the_checks_that_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    for tool in ("ruff check .", "mypy", "lint-imports"):
        assert tool in commands(CONTRIBUTING)
        assert f".venv/bin/{tool}\n" in script
    assert "<!-- test command -->" in script


def test_ci_finds_the_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    line = next(line for line in script.splitlines() if line.startswith("tests="))
    done = subprocess.run(
        ["bash", "-c", f'{line}\nprintf %s "$tests"'], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )
    assert done.stdout == marked("test command")
    assert done.stdout.endswith(".venv/bin/pytest")


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_the_first_command_on_a_clean_copy(tmp_path: Path) -> None:
    """A clean checkout, nothing installed: install and run the main job, word for word."""
    copy = tmp_path / "bdbench"
    copy.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, files.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment["BDBENCH_HOME"] = str(tmp_path / "home")
    done = subprocess.run(
        ["bash", "-c", marked("run command")], cwd=copy, env=environment, capture_output=True,
        text=True, check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "card: " in done.stdout
    again = subprocess.run(
        [".venv/bin/bdbench", *shlex.split(marked("run command").split("/bdbench ")[1])],
        cwd=copy, env=environment, capture_output=True, text=True, check=True,
    )
    lines = [line for line in again.stderr.splitlines() if line.startswith("[")]
    assert lines
    assert all(line.endswith("reused") for line in lines)


def test_the_figures_of_the_readme_are_of_the_recipe_as_it_is() -> None:
    from bdbench.registry import Registry

    recipe, text = Registry().recipe("tiny"), README.read_text()
    rates = dict(re.findall(r"^\| `(\w+)` \((\d+) %\)", text, re.MULTILINE))
    assert rates.keys() == {"badnet", "badnet_fixed", "blended"}
    for name, rate in rates.items():
        assert float(rate) == pytest.approx(100 * recipe.attacks[name].params["rate"])
    assert f"(gate {recipe.gate.lift:g})" in text
    assert f"(gate {recipe.gate.clean_top1:g})" in text
