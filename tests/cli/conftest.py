"""The command line in this process: its status, its data and its talk."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bdbench.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command answered."""

    status: int
    out: str
    err: str

    def commands(self) -> list[list[str]]:
        """The commands in backticks in its talk, as words."""
        found = re.findall(r"`(bdbench [^`]*)`", self.err)
        return [shlex.split(command) for command in found]


Cli = Callable[..., Done]


@pytest.fixture
def cli(
    shared_store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """Run `bdbench WORDS` here, on the shared store unless BDBENCH_HOME is set later."""
    monkeypatch.setenv("BDBENCH_HOME", str(shared_store))
    monkeypatch.setenv("COLUMNS", "400")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["bdbench", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        return Done(int(caught.value.code or 0), told.out, told.err)

    return call
