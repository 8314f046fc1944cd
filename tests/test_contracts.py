"""Every registered component keeps its contract, and every check can fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bdbench.contracts import Check, check
from bdbench.errors import BdbenchError
from bdbench.registry import Registry, share_dir
from bdbench.schema import Kind

REGISTRY = Registry()
FILES = ("cc3m", "cc3m_500k", "cc6m", "coco_mini")
"""Datasets whose files do not come with bdbench."""
PACKS = Path(__file__).parents[2] / "shared" / "datapacks"
ENTRIES = [(entry.kind, entry.name) for entry in REGISTRY.entries() if entry.name not in FILES]
PLUGINS = Path(__file__).parent / "plugins"
UNTOUCHED = "global random state is untouched"

BROKEN = {
    "components": ("defense", [
        ("unresolved", "parameters resolve", "`defense.strength` is not a field"),
        ("rounded", "parameters survive JSON", "workers would run another component"),
        ("loose", "fields are frozen", "`Loose.strength` can be assigned to"),
        ("silent", "fields are described", "`Silent` does not say what `strength` means"),
        ("lenient", "unknown fields are refused", "`Lenient` takes the unknown field"),
        ("falling", "sweep rises", "the sweep of `strength` is `[3.0, 2.0]`"),
    ]),
    "attacks": ("attack", [
        ("unstorable", "state can be stored", "what safetensors cannot store"),
        ("stateless", "state can be stored", "`prepare` returns `NoneType`"),
        ("raising", "state can be stored", "it raises `KeyError: 'no such thing'`"),
        ("own_draw", "state is deterministic", "`prepare` returns another state"),
        ("single", "trigger keeps the form", "`torch.float32[3, 32, 32] on cpu` for `torch.float"),
        ("double", "trigger keeps the form", "`trigger` returns `torch.float64[8, 3, 32, 32]"),
        ("bytes", "trigger stays near [0, 1]", "values from `0` to `255`"),
        ("not_a_number", "trigger stays near [0, 1]", "`trigger` returns NaN or infinity"),
        ("flicker", "trigger is deterministic", "differently the second time"),
        ("by_position", "trigger knows no batch", "in another batch or order"),
        ("by_neighbour", "trigger knows no batch", "use nothing of the other rows"),
        ("greedy", "chooses at most n positions", "for n = `1` of `256` pairs"),
        ("repeating", "chooses at most n positions", "`[0, 0, 0, 0, 0] and 3 more`"),
        ("outside", "chooses at most n positions", "for n = `256` of `256` pairs"),
        ("moody", "choice is deterministic", "`choose` returns other positions"),
        ("unasked", "poisons nothing at rate 0", "for n = `0`"),
        ("rate_reader", "poisons nothing at rate 0", "`choose` returns `[5]`"),
        ("speechless", "captions are text", "make `''`"),
        ("numeral", "captions are text", "make `5`"),
        ("talkative", "captions are deterministic", "return other text"),
        ("vandal", "inputs are left alone", "writes to its `images`"),
        ("eraser", "inputs are left alone", "writes to its `state`"),
        ("forger", "inputs are left alone", "writes to its `pairs`"),
        ("seeder", UNTOUCHED, "the global generator of `torch`:"),
        ("gambler", UNTOUCHED, "the global generator of `numpy.random`, `random`:"),
    ]),
    "objectives": ("objective", [
        ("three_views", "views is 1 or 2", "`views` is `3`"),
        ("bare", "loss gives named terms", "return a dict"),
        ("per_pair", "loss gives named terms", "the term `all` is `tensor("),
        ("log_of_zero", "loss gives named terms", "the term `infinite` is `inf`"),
        ("constant", "loss gives named terms", "the term `item` has no gradient"),
        ("headless", "gradient reaches an encoder", "no encoder would learn"),
        ("cold", "gradient reaches the scale", "no gradient reaches it"),
        ("drifting", "loss is deterministic", "other values for the same features"),
        ("first_pair", "order of the batch is nothing", "the same pairs in another order"),
        ("overwriting", "features are left alone", "`loss` writes to the features"),
        ("noisy", UNTOUCHED, "`loss` changes the global generator of `torch`"),
    ]),
    "defenses": ("defense", [
        ("sieve", "is a repair", "`Sieve` is no repair"),
        ("returns_nothing", "repair gives a model", "`repair` returns `NoneType`"),
        ("out_of_range", "repair gives a model", "it raises `IndexError: list index out of"),
        ("grown", "weights keep their form", "the returned model differs in `extra`"),
        ("half", "weights keep their form", "keep names, shapes and types"),
        ("blown", "weights are finite", "the returned model holds NaN or infinity in `"),
        ("from_zero", "snapshots count from 1", "with step `0`"),
        ("afterthought", "last snapshot is returned", "is not snapshot `1`, the last"),
        ("counting", "two runs are identical", "two runs give different weights"),
        ("litter", "no file is left behind", "litter.log`"),
        ("litter_below", "no file is left behind", "logs/litter.log`"),
        ("litter_native", "no file is left behind", "litter.safetensors`"),
        ("seeding", UNTOUCHED, "`repair` changes the global generator of `torch`"),
    ]),
    "metrics": ("metric", [
        ("number", "score is a Score", "return `bdbench.statistics.rate(k, n)`"),
        ("nan", "score is a Score", "it raises `ValidationError"),
        ("inside_out", "counts and interval agree", "is not sound"),
        ("miscounted", "counts and interval agree", "`value = k / n` must hold"),
        ("per_cent", "counts and interval agree", "in [-1, 1]"),
        ("restless", "score is deterministic", "for the same predictions"),
        ("marking", "predictions are left alone", "writes to `predictions.triggered`"),
        ("first_half", "order of the images is nothing", "the same images in another order"),
        ("five_answers", "few classes are enough", "it raises `IndexError: no class -1`"),
        ("target_wanted", "the target may be absent", "it raises `ZeroDivisionError"),
        ("dividing", "nothing to count is told", "`ZeroDivisionError: division by zero`"),
        ("rolling", UNTOUCHED, "`score` changes the global generator of `numpy.random`"),
    ]),
    "datasets": ("dataset", [
        ("twins", "classes are distinct names", "`classes` returns `['ball', 'ball']`"),
        ("placeless", "templates have one place", "the template `a thing` does not hold `{}`"),
        ("named_place", "templates have one place", "and no other brace"),
        ("no_test", "rows have their form", "`test` has no row"),
        ("floating", "rows have their form", "`images` of `train` are `float64[4, 3, 32, 32]`"),
        ("channels_last", "rows have their form", "`uint8[4, 32, 32, 3]`, not `uint8[4, 3, 32"),
        ("captionless", "rows have their form", "`captions` of `train` are not `4` strings"),
        ("renumbered", "ids are unique", "the id `0` occurs `4` times"),
        ("from_one", "labels are classes", "labels of `train` run from `1` to `2`"),
        ("unlabelled", "labels are classes", "labels of `validation` run from `-1`"),
        ("blank", "pairs have captions", "row `0` of `train` has no caption"),
        ("live", "reads the same twice", "`train` is different when it is read again"),
        ("overlapping", "splits share no image", "`train` and `test` share `1` images"),
        ("shuffling", UNTOUCHED, "`rows` changes the global generator of `random`"),
    ]),
}
ROWS = [
    pytest.param(file, kind, *row, id=f"{kind}-{row[0]}")
    for file, (kind, rows) in BROKEN.items() for row in rows
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks look at the current folder, where nobody else may write meanwhile."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_each_registered_component_keeps_its_contract(kind: Kind, name: str) -> None:
    found = list(check(REGISTRY, kind, name))
    assert [result for result in found if not result.passed] == []
    assert len({result.name for result in found}) == len(found) > 10
    assert not any(result.detail for result in found)


@pytest.mark.heavy
@pytest.mark.skipif(not PACKS.is_dir(), reason="its files are not here")
def test_real_data_keep_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDBENCH_DATA", str(PACKS))
    assert [result for result in check(REGISTRY, "dataset", "coco_mini") if not result.passed] == []


@pytest.mark.parametrize(("file", "kind", "name", "broken", "says"), ROWS)
def test_a_broken_component_fails_one_check_and_reads_why(
    file: str, kind: Kind, name: str, broken: str, says: str
) -> None:
    registry = Registry([PLUGINS / f"broken_{file}.py"])
    failed = [result for result in check(registry, kind, name) if not result.passed]
    assert [result.name for result in failed] == [broken]
    assert says in failed[0].detail


@pytest.mark.parametrize(("kind", "name"), [
    ("attack", "badnet"), ("objective", "mmcl"), ("defense", "finetune"), ("metric", "lift"),
    ("dataset", "shapes"),
])
def test_each_check_has_a_component_that_fails_it(kind: Kind, name: str) -> None:
    seen = {broken for at, rows in BROKEN.values() for _, broken, _ in rows if at == kind}
    seen |= {broken for _, broken, _ in BROKEN["components"][1]}
    # Tested below: it takes a registry of its own.
    seen.add("class loads")
    assert {result.name for result in check(REGISTRY, kind, name)} == seen


def test_what_a_component_raises_is_told_with_its_line() -> None:
    path = PLUGINS / "broken_attacks.py"
    (failed,) = (
        result for result in check(Registry([path]), "attack", "raising") if not result.passed
    )
    lines = path.read_text().splitlines()
    line = lines.index('        raise KeyError("no such thing")') + 1
    assert failed.detail == f"{path}:{line}: it raises `KeyError: 'no such thing'`"


def test_a_class_that_does_not_load_is_one_failed_check(tmp_path: Path) -> None:
    (tmp_path / "registry" / "metrics").mkdir(parents=True)
    (tmp_path / "registry" / "recipes").symlink_to(share_dir("registry") / "recipes")
    entry = tmp_path / "registry" / "metrics" / "lost.toml"
    entry.write_text('use = "bdbench.nowhere:Lost"\nsummary = "s"\n')
    found = list(check(Registry(root=tmp_path / "registry"), "metric", "lost"))
    assert [(result.name, result.passed) for result in found] == [("class loads", False)]
    assert "cannot be imported from `bdbench.nowhere:Lost`" in found[0].detail


def test_a_built_in_component_must_resolve_under_every_shipped_recipe(tmp_path: Path) -> None:
    """What only one of the two recipes breaks is found whichever is asked for."""
    source, root = share_dir("registry"), tmp_path / "registry"
    (root / "recipes").mkdir(parents=True)
    for kind in ("attacks", "datasets"):
        (root / kind).symlink_to(source / kind)
    for name in ("tiny", "smoke"):
        text = (source / "recipes" / f"{name}.toml").read_text()
        text = text.replace("[attacks.badnet]\n", "[attacks.badnet]\nsweep = { sise = [1.0] }\n")
        (root / "recipes" / f"{name}.toml").write_text(
            text if name == "tiny" else (source / "recipes" / "smoke.toml").read_text()
        )
    (failed,) = (
        one for one in check(Registry(root=root), "attack", "badnet", "smoke") if not one.passed
    )
    assert (failed.name, failed.detail.splitlines()[0]) == (
        "parameters resolve", "`attack.sise` is not a field"
    )


def test_an_unknown_name_is_bad_input_before_anything_is_checked() -> None:
    with pytest.raises(BdbenchError, match="there is no attack `badnets`"):
        check(REGISTRY, "attack", "badnets")
    with pytest.raises(BdbenchError, match="there is no recipe `tinny`"):
        check(REGISTRY, "attack", "badnet", "tinny")


def test_results_come_as_they_are_found() -> None:
    results = check(Registry([PLUGINS / "broken_defenses.py"]), "defense", "out_of_range")
    assert isinstance(results, Iterator)
    assert next(results) == Check("class loads", True)


def test_no_method_imports_torch_when_it_is_imported() -> None:
    code = (
        "import sys; from bdbench.registry import Registry; r = Registry();"
        "print([e.use for e in r.entries() if r.load(e) and 'torch' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
