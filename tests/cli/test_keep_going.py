"""`run --keep-going`: a defense that fails takes along its own cells, and is told of at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bdbench.schema import Card
from tests.cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("inline")

LATE = """
from pathlib import Path
from bdbench import register
from bdbench.api import Repair

@register("late")
class Late(Repair):
    def repair(self, clip, budget):
        if not Path({flag!r}).exists():
            raise RuntimeError("no luck")
        return clip
"""


def test_the_other_cells_are_run_and_the_same_command_does_the_rest(
    smoke_card: Card, tmp_path: Path, cli: Cli
) -> None:
    plugin, flag = tmp_path / "late.py", tmp_path / "ready"
    plugin.write_text(LATE.format(flag=str(flag)))
    words = ["run", "--recipe", "smoke", "--attack", "badnet", "--objective", "mmcl_ssl",
             "--defense", "late", "--defense", "none", "--plugin", str(plugin)]
    stopped = cli(*words)
    assert (stopped.status, stopped.out) == (1, "")

    done = cli(*words, "--keep-going")
    assert done.status == 1
    assert done.out.count("card: ") == 1
    assert "defend    badnet / mmcl_ssl / late  FAILED\n" in done.err
    assert "card      badnet / mmcl_ssl / late / seed 0  left out: it rests on what failed" \
        in done.err
    end = done.err[done.err.index("error: "):].splitlines()
    assert end[:2] == [
        "error: `1` of 2 cells failed",
        "defend `badnet / mmcl_ssl / late` failed: RuntimeError: no luck",
    ]
    assert end[2].endswith("traceback.txt` has the traceback")
    assert end[3:] == ["", "hint: mend it and run the same command again: it does what is left"]

    as_json = cli(*words, "--keep-going", "--json")
    assert as_json.status == 1
    assert [found["card"]["cell"]["defense"] for found in json.loads(as_json.out)] == ["none"]

    flag.touch()
    again = cli(*words, "--keep-going")
    assert (again.status, again.out.count("card: ")) == (0, 2)


def test_where_every_cell_fails_there_is_nothing_but_the_reason(tmp_path: Path, cli: Cli) -> None:
    plugin = tmp_path / "late.py"
    plugin.write_text(LATE.format(flag=str(tmp_path / "never")))
    done = cli("run", "--recipe", "smoke", "--attack", "badnet", "--objective", "mmcl_ssl",
               "--defense", "late", "--plugin", str(plugin), "--keep-going")
    assert (done.status, done.out) == (1, "")
    assert "error: `1` of 1 cell failed\n" in done.err


def test_an_unknown_place_is_named(cli: Cli) -> None:
    done = cli("run", "--recipe", "smoke", "--on", "slrum")
    assert done.status == 2
    assert done.err == "error: `slrum` is no place to run\n\nhint: did you mean `slurm`?\n"
