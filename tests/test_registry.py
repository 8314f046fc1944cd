"""The registry: what is listed, from where, and what every mistake says."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bdbench.errors import BdbenchError
from bdbench.registry import Registry, share_dir
from bdbench.schema import Defaults, Recipe

DEFENSE = """
    from bdbench import register
    from bdbench.api import FineTuning, Objective

    @register("mine", summary="my own", sweep={"lr": [1e-4, 1e-3]}, params={"epochs": 3})
    class Mine(FineTuning):
        strength: float = 1.0

        def objective(self) -> Objective:
            raise NotImplementedError
"""


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


def failure(plugin: Path) -> BdbenchError:
    with pytest.raises(BdbenchError) as caught:
        Registry([plugin]).entries()
    return caught.value


def test_each_shipped_file_is_an_entry_under_its_stem() -> None:
    registry = Registry()
    for folder in share_dir("registry").iterdir():
        if folder.name == "recipes":
            continue
        for path in folder.glob("*.toml"):
            entry = registry.entry(folder.name.removesuffix("s"), path.stem)  # type: ignore[arg-type]
            assert entry.origin == "built-in"
            assert entry.summary


def test_listing_imports_neither_torch_nor_a_method() -> None:
    code = (
        "import sys; from bdbench.registry import Registry; Registry().entries();"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('bdbench.attacks')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from bdbench.registry import Registry; from bdbench.plan import cells, plan;"
        "r = Registry();"
        "plan(r, cells(r, recipe='smoke', attacks=['all'], objectives=['all'], defenses=['all'],"
        " seeds=[0])); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(BdbenchError, match="there is no attack `badnets`") as caught:
        Registry().entry("attack", "badnets")
    assert "did you mean `badnet`" in caught.value.hint


def test_unknown_name_without_neighbours_lists_all() -> None:
    with pytest.raises(BdbenchError) as caught:
        Registry().entry("objective", "zzz")
    assert "`mmcl_ssl`" in caught.value.hint


def test_later_sources_win_and_are_recorded() -> None:
    recipe = Defaults(params={"size": 8}, sweep={})
    ref, _ = Registry().resolve("attack", "badnet", recipe, {"rate": 0.25})
    assert ref.params["size"] == 8
    assert ref.params["rate"] == 0.25
    assert ref.overridden == {"size": 8, "rate": 0.25}


def test_setting_a_swept_parameter_ends_its_sweep() -> None:
    registry = Registry()
    _, declared = registry.resolve("defense", "cleanclip")
    ref, sweep = registry.resolve("defense", "cleanclip", None, {"lr": 0.5})
    assert declared["lr"]
    assert sweep == {}
    assert ref.params["lr"] == 0.5


def test_a_swept_whole_number_stays_one() -> None:
    """Recipes hold floats; a worker would refuse `2.0` for a number of epochs."""
    registry = Registry()
    for recipe, given in ((Defaults(sweep={"epochs": (1, 2)}), {}),
                          (None, {"sweep": {"epochs": [1, 2]}})):
        ref, sweep = registry.resolve("defense", "bn_only", recipe, given)
        assert [type(value) for value in sweep["epochs"]] == [int, int]
        identity = ref.identity() | {"params": {**ref.params, "epochs": sweep["epochs"][1]}}
        assert registry.build("defense", identity).model_dump()["epochs"] == 2
    _, sweep = registry.resolve("defense", "bn_only", None, {"sweep": {"lr": [1, 2]}})
    assert [type(value) for value in sweep["lr"]] == [float, float]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": "big"}, "`attack.size` = `big`: Input should be a valid integer"),
        ({"size": 0}, "`attack.size` = `0`: Input should be greater than or equal to 1"),
        ({"sizes": 3}, "`attack.sizes` is not a field"),
        ({"rate": 1.5}, "`attack.rate` = `1.5`: Input should be less than or equal to 1"),
        ({"sweep": {"rate": 3}}, "`attack.sweep` = `{'rate': 3}` is not a list of values"),
        ({"sweep": {"rate": [0.1, 7]}}, "`attack.rate` = `7`"),
    ],
)
def test_bad_parameters_are_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(BdbenchError) as caught:
        Registry().resolve("attack", "badnet", None, changes)
    assert says in caught.value.message
    assert caught.value.hint


def test_recipe_override_reaches_one_setting() -> None:
    registry = Registry()
    before = registry.recipe("tiny")
    after = registry.recipe("tiny", {"pretrain": {"epochs": 99}})
    assert after.pretrain.epochs == 99
    assert after.model_dump(exclude={"pretrain"}) == before.model_dump(exclude={"pretrain"})
    assert after.pretrain.batch == before.pretrain.batch


def test_bad_recipe_setting_is_named() -> None:
    with pytest.raises(BdbenchError, match=r"`recipe\.pretrain\.batch` = `1`"):
        Registry().recipe("tiny", {"pretrain": {"batch": 1}})


def test_unknown_recipe_suggests() -> None:
    with pytest.raises(BdbenchError) as caught:
        Registry().recipe("tinny")
    assert "`tiny`" in caught.value.hint


def test_every_recipe_names_registered_components() -> None:
    registry = Registry()
    for name in registry.recipes():
        recipe = registry.recipe(name)
        assert isinstance(recipe, Recipe)
        for kind in ("attack", "objective", "defense", "dataset"):
            for component, defaults in getattr(recipe, f"{kind}s").items():
                registry.resolve(kind, component, defaults)  # type: ignore[arg-type]


def test_broken_toml_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    write(tmp_path / "attacks" / "x.toml", "use = ")
    with pytest.raises(BdbenchError, match=r"x\.toml` is not valid TOML"):
        Registry(root=tmp_path).entries()


def test_toml_with_an_unknown_key_names_it(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    write(tmp_path / "attacks" / "x.toml", 'use = "a:B"\nsummary = "s"\nparam = 3\n')
    with pytest.raises(BdbenchError, match=r"`x\.param` is not a field"):
        Registry(root=tmp_path).entries()


def test_plugin_file_is_listed_with_its_path_and_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", DEFENSE)
    registry = Registry([path])
    entry = registry.entry("defense", "mine")
    assert entry.origin == str(path)
    ref, sweep = registry.resolve("defense", "mine")
    assert sweep == {"lr": (1e-4, 1e-3)}
    assert ref.params["epochs"] == 3
    assert ref.use == "mine.py:Mine"
    assert ref.source is not None
    assert len(ref.source) == 64
    rebuilt = registry.build("defense", ref.identity())
    assert type(rebuilt).__name__ == "Mine"


def test_an_edited_plugin_is_another_component(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", DEFENSE)
    ref, _ = Registry([path]).resolve("defense", "mine")
    path.write_text(path.read_text() + "\n# changed\n")
    with pytest.raises(BdbenchError, match=r"`mine\.py:Mine` is not registered here"):
        Registry([path]).build("defense", ref.identity())


def test_duplicates_name_both_sources(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", DEFENSE.replace('"mine"', '"cleanclip"'))
    error = failure(path)
    assert "defense `cleanclip` is registered twice: by built-in and by" in error.message
    assert str(path) in error.message


def test_missing_plugin(tmp_path: Path) -> None:
    assert "there is no plugin file" in failure(tmp_path / "no.py").message


def test_plugin_with_a_syntax_error_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.py", "x = 1\ny = = 2\n")
    assert f"plugin `{path}`, line 2: SyntaxError" in failure(path).message


def test_plugin_that_raises_names_line_and_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.py", "x = 1\n\nx / 0\n")
    assert f"plugin `{path}`, line 3: ZeroDivisionError: division by zero" in failure(path).message


def test_plugin_that_exits_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.py", "import sys\nsys.exit(5)\n")
    assert f"plugin `{path}`, line 2: SystemExit: 5" in failure(path).message


def test_plugin_that_needs_another_file(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("import my_own_helpers_elsewhere\n")
    with pytest.raises(BdbenchError, match=r"line 1: ModuleNotFoundError") as caught:
        Registry([tmp_path / "p.py"]).entries()
    assert caught.value.hint.startswith("a plugin is one file, or an installed package")


def test_plugin_that_raises_what_is_no_exception(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("class Odd(BaseException): pass\nraise Odd('so')\n")
    with pytest.raises(BdbenchError, match=r"line 2: Odd: so"):
        Registry([tmp_path / "p.py"]).entries()


def test_what_a_plugin_prints_is_talk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "p.py", "print('hello')\n" + textwrap.dedent(DEFENSE))
    assert Registry([tmp_path / "p.py"]).entries()
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "hello\n")


def test_the_same_plugin_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "p.py", DEFENSE)
    monkeypatch.chdir(tmp_path)
    twice = Registry([tmp_path / "p.py", Path("p.py")]).entries()
    assert len(twice) == len(Registry([tmp_path / "p.py"]).entries())


def test_the_name_that_stands_for_all_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "p.py", DEFENSE.replace('"mine"', '"all"'))
    with pytest.raises(BdbenchError, match=r"`all` .* stands for every method"):
        Registry([tmp_path / "p.py"]).entries()


def test_plugin_that_registers_nothing(tmp_path: Path) -> None:
    error = failure(write(tmp_path / "empty.py", "x = 1\n"))
    assert "registers nothing" in error.message
    assert "@bdbench.register" in error.hint


def test_plugin_class_without_a_kind(tmp_path: Path) -> None:
    text = 'from bdbench import register\n\n@register("x")\nclass X:\n    pass\n'
    error = failure(write(tmp_path / "odd.py", text))
    assert "`X` is no attack, objective, defense, metric or dataset" in error.message


def test_plugin_that_is_not_python(tmp_path: Path) -> None:
    assert "is not a Python file" in failure(write(tmp_path / "notes.txt", "hello")).message


def test_shipped_class_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    write(tmp_path / "attacks" / "x.toml", 'use = "bdbench.nowhere:X"\nsummary = "s"\n')
    registry = Registry(root=tmp_path)
    with pytest.raises(BdbenchError, match=r"cannot be imported from `bdbench\.nowhere:X`"):
        registry.load(registry.entry("attack", "x"))


def test_entry_of_the_wrong_kind(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    text = 'use = "bdbench.metrics.lift:Lift"\nsummary = "s"\n'
    write(tmp_path / "attacks" / "x.toml", text)
    registry = Registry(root=tmp_path)
    with pytest.raises(BdbenchError, match="is no attack"):
        registry.load(registry.entry("attack", "x"))
