"""A package offers methods through entry points, without a change here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from bdbench.schema import KINDS

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Install = Callable[..., None]
EXAMPLE = Path(__file__).parent / "plugins" / "bdbench-example"
OFFERED = {
    "attack": "white_corner", "objective": "image_to_text", "defense": "shrink",
    "metric": "third_class", "dataset": "plain",
}


def project() -> dict[str, object]:
    return dict(tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a package visible to the processes that are started, as pip would.

    Without arguments it is the example as its pyproject.toml has it.
    """
    site = tmp_path / "site"
    site.mkdir()
    path = os.pathsep.join(filter(None, [str(site), str(EXAMPLE), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)

    def write(
        name: str | None = None, version: str = "1.0",
        points: dict[str, dict[str, str]] | None = None,
    ) -> None:
        example = project()
        if name is None or points is None:
            name, version = str(example["name"]), str(example["version"])
            points = example["entry-points"]  # type: ignore[assignment]
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("\n".join(
            "\n".join([f"[{group}]", *(f"{at} = {value}" for at, value in offered.items())])
            for group, offered in points.items()  # type: ignore[union-attr]
        ))

    return write


def listed(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], str]:
    """The origin of each entry of `bdbench list --json`."""
    assert done.returncode == 0, done.stderr
    return {(row["kind"], row["name"]): row["origin"] for row in json.loads(done.stdout)}


def test_the_example_offers_a_method_of_every_kind() -> None:
    points = project()["entry-points"]
    assert set(points) == {f"bdbench.{kind}s" for kind in KINDS}  # type: ignore[call-overload]
    assert {kind: [*points[f"bdbench.{kind}s"]] for kind in KINDS} == {  # type: ignore[index]
        kind: [name] for kind, name in OFFERED.items()
    }


def test_list_names_package_and_version(bdbench: Command, install: Install) -> None:
    before = listed(bdbench("list", "--json"))
    install()
    after = listed(bdbench("list", "--json"))
    assert {at: after[at] for at in after.keys() - before.keys()} == {
        at: "bdbench-example 0.3.0" for at in OFFERED.items()
    }
    text = bdbench("list", "attack").stdout
    (line,) = (line for line in text.splitlines() if "white_corner" in line)
    assert line.split() == ["attack", "white_corner", "bdbench-example", "0.3.0"]


def test_listing_imports_nothing_of_the_package(install: Install) -> None:
    install()
    code = (
        "import sys; from bdbench.registry import Registry; found = Registry().entries();"
        "print('white_corner' in [e.name for e in found], 'bdbench_example' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_show_prints_parameters_and_sweep(bdbench: Command, install: Install) -> None:
    install()
    done = bdbench("show", "attack/white_corner")
    assert done.returncode == 0, done.stderr
    assert "from: bdbench-example 0.3.0" in done.stdout
    assert "class: bdbench_example.attack:WhiteCorner" in done.stdout
    assert "Side of the square, in pixels." in done.stdout
    assert "sweep of share: 0.01, 0.1" in bdbench("show", "defense/shrink").stdout


def test_a_cell_runs_with_methods_of_the_package(bdbench: Command, install: Install) -> None:
    """Workers find the classes again from their references alone, past entries that are broken."""
    install()
    install("rival", "2.1", {
        f"bdbench.{kind}s": {"a_lost": "nowhere_at_all:Lost"} for kind in KINDS if kind != "metric"
    })
    done = bdbench(
        "run", "--recipe", "smoke", "--attack", "white_corner", "--objective", "image_to_text",
        "--defense", "shrink", "--set", "recipe.dataset=\"plain\"", "--set",
        "recipe.target=\"red\"", "--set", "recipe.pretrain.epochs=1", "--json",
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    card = result["card"]
    used = {kind: ref["use"] for kind, ref in card["components"].items()}
    assert used == {
        "attack": "bdbench_example.attack:WhiteCorner",
        "objective": "bdbench_example.objective:ImageToText",
        "defense": "bdbench_example.defense:Shrink", "dataset": "bdbench_example.dataset:Plain",
    }
    assert card["poison"]["poisoned"] == round(0.05 * 128)
    assert [point["sweep"] for point in card["trajectory"]] == [{}, {"share": 0.01}, {"share": 0.1}]
    assert all("third_class" in point["scores"] for point in card["trajectory"])


@pytest.mark.heavy
def test_the_example_keeps_the_contract(install: Install, tmp_path: Path) -> None:
    install()
    code = (
        "import sys; from bdbench.contracts import check; from bdbench.registry import Registry;"
        "r = Registry(); found = [(e.name, c) for e in r.entries() if e.origin != 'built-in'"
        " for c in check(r, e.kind, e.name)];"
        "print(len({name for name, _ in found}), [f for f in found if not f[1].passed])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "5 []"


def test_a_name_of_ours_is_an_error_that_names_both(bdbench: Command, install: Install) -> None:
    points = {"bdbench.attacks": {"badnet": "bdbench_example.attack:WhiteCorner"}}
    install("rival", "2.1", points)
    done = bdbench("list")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(
        "error: attack `badnet` is registered twice: by built-in and by rival 2.1\n\nhint: "
    )


def test_two_packages_of_one_name_are_both_named(bdbench: Command, install: Install) -> None:
    install()
    points = {"bdbench.attacks": {"white_corner": "somewhere:Else"}}
    install("rival", "2.1", points)
    done = bdbench("list")
    assert done.returncode == 2
    assert "attack `white_corner` is registered twice" in done.stderr
    assert "bdbench-example 0.3.0" in done.stderr
    assert "rival 2.1" in done.stderr


BROKEN = [
    ("nowhere_at_all:Lost", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ("bdbench_example.attack:Lost", "module 'bdbench_example.attack' has no attribute 'Lost'"),
    ("raising_on_import:Lost", "ImportError: needs the compiler"),
]


@pytest.mark.parametrize(("value", "reason"), BROKEN)
def test_a_broken_entry_is_told_when_it_is_used(
    value: str, reason: str, bdbench: Command, install: Install, tmp_path: Path
) -> None:
    install("rival", "2.1", {"bdbench.attacks": {"lost": value}})
    module = tmp_path / "site" / "raising_on_import.py"
    module.write_text("raise ImportError('needs the compiler')")
    assert listed(bdbench("list", "--json"))["attack", "lost"] == "rival 2.1"
    assert bdbench("show", "attack/badnet").returncode == 0
    for words in (
        ("show", "attack/lost"), ("run", "--recipe", "smoke", "--attack", "lost", "--plan")
    ):
        done = bdbench(*words)
        assert done.returncode == 2
        assert f"attack `lost` (rival 2.1) cannot be imported from `{value}`" in done.stderr
        assert reason in done.stderr
        assert "\n\nhint: " in done.stderr
        assert "Traceback" not in done.stderr


def test_a_class_of_another_kind_is_refused(bdbench: Command, install: Install) -> None:
    install("rival", "2.1", {"bdbench.defenses": {"odd": "bdbench_example.attack:WhiteCorner"}})
    done = bdbench("show", "defense/odd")
    assert done.returncode == 2
    assert "`bdbench_example.attack:WhiteCorner` (rival 2.1) is no defense" in done.stderr
