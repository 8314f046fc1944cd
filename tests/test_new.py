"""`bdbench new` and `check`: templates run as they are, and broken methods are told so."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bdbench.cli.main import app
from bdbench.errors import BdbenchError, CheckFailed
from bdbench.plan import cells, plan
from bdbench.registry import Registry
from bdbench.schema import KINDS
from tests.conftest import Command, invoke


@pytest.fixture
def home(shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BDBENCH_HOME", str(shared_store))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [
    kind if kind in ("defense", "metric") else pytest.param(kind, marks=pytest.mark.heavy)
    for kind in KINDS
])
def test_a_template_passes_its_check(kind: str, home: Path) -> None:
    out = invoke("new", kind, f"my_{kind}.py")
    assert f"check: bdbench check my_{kind}.py" in out
    told = invoke("check", f"my_{kind}.py")
    passed = re.search(r"all (\d+) checks passed", told)
    assert passed
    assert int(passed[1]) == told.count("\nok ")
    assert "ok   runs in a cell" in told


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_command_it_suggests_can_be_planned(kind: str, home: Path) -> None:
    out = invoke("new", kind, "x.py", "--name", f"our_{kind}")
    line = next(line for line in out.splitlines() if line.startswith("run:"))
    words = shlex.split(line.removeprefix("run:"))
    assert words[0] == "bdbench"
    assert "1 cell, " in invoke(*words[1:], "--plan")


@pytest.mark.heavy
def test_a_file_may_be_called_like_a_module(home: Path) -> None:
    invoke("new", "defense", "random.py")
    assert "all " in invoke("check", "random.py")


def test_a_template_is_short() -> None:
    """What a reader must fill in fits on a screen."""
    folder = Path(__file__).parent.parent / "bdbench" / "templates" / "new"
    for kind in KINDS:
        assert len((folder / f"{kind}.py.j2").read_text().splitlines()) <= 60


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (("defence", "a.py"), "there is no kind `defence`", "`defense`"),
        (("defense", "a.py", "--name", "My-Own"), "`My-Own` is no name", "--name my_defense"),
        (("defense", "a.py", "--name", "cleanclip"), "defense `cleanclip` is registered already",
         "--name my_cleanclip"),
        (("defense", "a.txt", "--name", "x"), "`a.txt` must end in .py", "a.txt.py"),
        (("attack", "all.py"), "`all` stands for every attack", "--name my_all"),
        (("defense", "a b.py"), "`a b` is no name", "new defense 'a b.py' --name my_defense"),
        (("defense", "no/such/a.py"), "`no/such/a.py` cannot be written", ""),
    ],
)
def test_bad_requests_are_explained(
    words: tuple[str, ...], says: str, hint: str, home: Path
) -> None:
    with pytest.raises(BdbenchError) as caught:
        invoke("new", *words)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_a_file_is_never_overwritten(home: Path) -> None:
    (home / "mine.py").write_text("precious")
    with pytest.raises(BdbenchError, match=r"`mine\.py` exists"):
        invoke("new", "defense", "mine.py")
    assert (home / "mine.py").read_text() == "precious"


BROKEN = """
from bdbench import register
from bdbench.api import Metric
from bdbench.schema import Score

@register("odd")
class Odd(Metric):
    \"\"\"Counts wrongly.\"\"\"

    def score(self, predictions):
        predictions.labels[:] = 0
        return Score(value=0.5, low=0.4, high=0.6, n=10, k=5)
"""


def test_a_broken_method_fails_with_the_reason(home: Path) -> None:
    (home / "odd.py").write_text(BROKEN)
    with pytest.raises(CheckFailed, match="checks failed") as caught:
        invoke("check", "odd.py")
    assert caught.value.exit_code == 3
    done = CliRunner().invoke(app, ["check", "odd.py", "--json"])
    results = json.loads(done.stdout)
    failed = [result for result in results if not result["passed"]]
    assert failed
    assert all(result["detail"] for result in failed)
    assert not any(result["check"] == "runs in a cell" for result in results)


def test_a_method_that_fails_only_in_a_cell_is_told_so(home: Path) -> None:
    text = BROKEN.replace("predictions.labels[:] = 0", "assert len(predictions.labels) != 128")
    (home / "odd.py").write_text(text)
    done = CliRunner().invoke(app, ["check", "odd.py", "--json"])
    (failed,) = [result for result in json.loads(done.stdout) if not result["passed"]]
    assert failed["check"] == "runs in a cell"
    assert "AssertionError" in failed["detail"]


@pytest.mark.parametrize("kind", ["attack", "objective", "defense"])
def test_a_track_fills_in_what_is_not_given(kind: str, home: Path) -> None:
    from bdbench.leaderboard.folder import load_track

    invoke("new", kind, "mine.py")
    track = load_track("tiny")
    planned = json.loads(invoke(
        "run", "--plugin", "mine.py", "--track", "tiny", f"--{kind}", "mine", "--plan", "--json"
    ))
    cards = {node["key"] for node in planned if node["stage"] == "card"}
    registry = Registry([home / "mine.py"])
    wanted = track.cells(kind, "mine")  # type: ignore[arg-type]
    assert cards == set(plan(registry, wanted).cards.values())
    assert len(cards) == len(wanted) == 24 if kind == "defense" else len(wanted)


def test_a_track_does_not_run_another_recipe(home: Path) -> None:
    with pytest.raises(BdbenchError, match="the track `tiny` runs the recipe `tiny`, not `smoke`"):
        invoke("run", "--track", "tiny", "--recipe", "smoke", "--plan")
    with pytest.raises(BdbenchError, match="there is no track `tinny`") as caught:
        invoke("run", "--track", "tinny", "--plan")
    assert "`tiny`" in caught.value.hint


def test_all_names_are_planned_at_once(home: Path) -> None:
    registry = Registry()
    wanted = cells(registry, recipe="smoke", attacks=["all"], objectives=["all"],
                   defenses=["none"], seeds=[0])
    found = json.loads(invoke(
        "run", "--recipe", "smoke", "--attack", "all", "--objective", "all", "--defense", "none",
        "--plan", "--json",
    ))
    keys = [node["key"] for node in found]
    assert len(set(keys)) == len(keys)
    assert set(keys) == set(plan(registry, wanted).nodes)


@pytest.mark.parametrize(
    ("kind", "name"), [("metric", "none"), ("defense", "mmcl"), ("dataset", "rows"),
                       ("objective", "none"), ("attack", "tensor"), ("metric", "score")],
)
def test_names_that_could_hide_what_a_template_uses(kind: str, name: str, home: Path) -> None:
    invoke("new", kind, f"{name}.py")
    registry = Registry([home / f"{name}.py"])
    (entry,) = (e for e in registry.entries() if e.source)
    assert (entry.kind, entry.name) == (kind, name)
    registry.build(kind, registry.resolve(kind, name)[0].identity())


def test_a_file_that_ends_the_process_does_not_pass(home: Path, bdbench: Command) -> None:
    invoke("new", "defense", "mine.py")
    path = home / "mine.py"
    path.write_text(path.read_text() + "import os\nos._exit(0)\n")
    done = bdbench("check", str(path), home=home)
    assert done.returncode == 3, done
    assert f"the process that loads `{path}` ends with status `0`" in done.stderr
