"""Fixtures shared by the tests: a store that the whole session fills, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bdbench.environment import cores
from bdbench.execute import run
from bdbench.schema import Card
from tests.inline import inlined

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process for what is timed or fills the machine by itself; else one per core."""
    return 0 if config.option.markexpr in ("benchmark", "heavy") else cores()


def invoke(*words: str) -> str:
    """Standard output of a command run in this process; what the command raises is raised here."""
    from typer.testing import CliRunner

    from bdbench.cli.main import app

    done = CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests fill and read, so that each stage runs once per session."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def smoke_card(shared_store: Path) -> Card:
    """The card of badnet x mmcl_ssl x cleanclip on the recipe `smoke`."""
    return run("badnet", "mmcl_ssl", "cleanclip", recipe="smoke", store=shared_store)


@pytest.fixture(scope="module")
def inline() -> Iterator[None]:
    """Run without worker processes: for tests that are about what is computed, and not how."""
    with inlined():
        yield


@pytest.fixture
def bdbench(tmp_path: Path) -> Command:
    """Run the command line in a process of its own; `home` is its store."""

    def command(*words: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ, "BDBENCH_HOME": str(home or tmp_path / "home"), "COLUMNS": "120",
            "NO_COLOR": "1",
        }
        return subprocess.run(
            [sys.executable, "-c", "from bdbench.cli.main import main; main()", *words],
            capture_output=True, text=True, env=environment, check=False, timeout=250,
        )

    return command
