"""House rules that a machine can hold: what imports what, and what no file may hold."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bdbench"
FILES = sorted(
    path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")
    if "_share" not in path.parts
)
TESTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))
MODULES = [
    path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in FILES
]
TORCHLESS = (
    "api", "cards", "cli", "contracts.component", "contracts.property", "errors", "execute",
    "hashing", "leaderboard", "metrics", "plan", "registry", "schema", "statistics", "store",
    "verify",
)
"""What lists, plans and reads cards, with everything below it; of these, those that exist."""
METHODS = ("attacks", "datasets", "defenses", "objectives")
"""Their classes are imported for planning."""
VAGUE = {"utils.py", "helpers.py", "common.py", "base.py", "manager.py"}
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SEEDERS = {
    "random.seed", "np.random.seed", "numpy.random.seed", "np.random.set_state",
    "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all",
    "torch.use_deterministic_algorithms",
}

Rule = Callable[[ast.Module], Iterator[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def below(names: tuple[str, ...]) -> list[str]:
    return [
        module for module in MODULES
        if any(f"{module}.".startswith(f"bdbench.{name}.") for name in names)
    ]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or of an attribute of one; empty for anything else."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def future_import(tree: ast.Module) -> Iterator[str]:
    """A module starts with the import from the future; a file of re-exports need not."""
    if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body):
        return
    for node in tree.body:
        exports = isinstance(node, ast.Assign) and dotted(node.targets[0]) == "__all__"
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not (text or exports or isinstance(node, ast.ImportFrom)):
            yield f"line {node.lineno}: code without `from __future__ import annotations`"
            return
    if not ast.get_docstring(tree):
        yield "neither a docstring nor `from __future__ import annotations`"


def docstrings(tree: ast.Module) -> Iterator[str]:
    """The module, every public class and function, and every public method say what they do."""
    def walk(body: list[ast.stmt], where: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    yield f"line {node.lineno}: `{where}{node.name}` has no docstring"
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{node.name}.")

    if not ast.get_docstring(tree):
        yield "the module has no docstring"
    yield from walk(tree.body, "")


def annotated(tree: ast.Module) -> Iterator[str]:
    """Every function says what it returns."""
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.returns is None:
            yield f"line {node.lineno}: `{node.name}` does not say what it returns"


def no_code_from_data(tree: ast.Module) -> Iterator[str]:
    """Nothing that is read can execute: no pickle, eval or exec; torch.load for tensors alone."""
    tensors = {
        id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)
        and any(word.arg == "weights_only" and ast.unparse(word.value) == "True"
                for word in node.keywords)
    }
    for node in ast.walk(tree):
        if id(node) in tensors:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{name}" for name in names]
            for name in names:
                if name.split(".")[0] in PICKLERS or name == "torch.load":
                    yield f"line {node.lineno}: imports `{name}`"
        elif isinstance(node, ast.Name) and node.id in ("eval", "exec", "__import__"):
            yield f"line {node.lineno}: uses `{node.id}`"
        elif dotted(node) in ("torch.load", "np.load", "numpy.load", "pd.read_pickle"):
            yield f"line {node.lineno}: uses `{dotted(node)}`"


def no_global_seed(tree: ast.Module) -> Iterator[str]:
    """A generator is passed; the global one of torch is seeded only where it is restored."""
    forked = {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.With)
        and any("fork_rng" in ast.unparse(item.context_expr) for item in node.items)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in SEEDERS or (
            name in ("torch.manual_seed", "torch.random.manual_seed") and id(node) not in forked
        ):
            yield f"line {node.lineno}: `{name}` touches a global generator"


RULES: list[Rule] = [future_import, docstrings, annotated, no_code_from_data, no_global_seed]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    found = [
        f"{path}: {complaint}" for path in FILES
        for complaint in rule(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    ]
    assert found == []


HEAD = '"""Says what."""\nfrom __future__ import annotations\n'


@pytest.mark.parametrize(("rule", "code", "says"), [
    (future_import, '"""Says what."""\nx = 1\n', "code without"),
    (future_import, "from a import b\n", "neither a docstring"),
    (docstrings, "x = 1\n", "the module has no docstring"),
    (docstrings, HEAD + "def f() -> None: ...\n", "`f` has no docstring"),
    (docstrings, HEAD + 'class A:\n    """Is."""\n    async def g(self) -> None: ...\n', "`A.g`"),
    (annotated, HEAD + "def f():\n    '''Does.'''\n", "`f` does not say"),
    (annotated, HEAD + "def f() -> None:\n    def inner(): ...\n", "`inner` does not say"),
    (no_code_from_data, "import pickle\n", "imports `pickle`"),
    (no_code_from_data, "def f():\n    from joblib import load\n", "imports `joblib.load`"),
    (no_code_from_data, "from torch import load\n", "imports `torch.load`"),
    (no_code_from_data, "eval('1')\n", "uses `eval`"),
    (no_code_from_data, "map(exec, ['1'])\n", "uses `exec`"),
    (no_code_from_data, "torch.load('x')\n", "uses `torch.load`"),
    (no_code_from_data, "torch.load('x', weights_only=False)\n", "uses `torch.load`"),
    (no_code_from_data, "torch.load('x', weights_only=safe)\n", "uses `torch.load`"),
    (no_code_from_data, "load(torch.load, weights_only=True)\n", "uses `torch.load`"),
    (no_global_seed, "np.random.seed(0)\n", "`np.random.seed` touches"),
    (no_global_seed, "torch.manual_seed(0)\n", "`torch.manual_seed` touches"),
])
def test_a_breach_of_the_rule_is_found(rule: Rule, code: str, says: str) -> None:
    (found,) = rule(ast.parse(code))
    assert says in found


@pytest.mark.parametrize(("rule", "code"), [
    (future_import, '"""Says what."""\nfrom a import b\n__all__ = ["b"]\n'),
    (docstrings, HEAD + "def _f() -> None: ...\nclass _A:\n    def g(self) -> None: ...\n"),
    (no_code_from_data, "model.eval()\nspec.loader.exec_module(module)\nRegistry().load(entry)\n"),
    (no_code_from_data, "torch.load('x', weights_only=True)\n"),
    (no_global_seed, "with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(0)\n"),
    (no_global_seed, "torch.Generator().manual_seed(0)\n"),
])
def test_what_the_rule_allows_is_not_found(rule: Rule, code: str) -> None:
    assert list(rule(ast.parse(code))) == []


def test_files_are_short_and_say_what_they_hold() -> None:
    lines = {path: (ROOT / path).read_text(encoding="utf-8").count("\n") for path in FILES + TESTS}
    assert {path: n for path, n in lines.items() if n > (300 if path in FILES else 400)} == {}
    assert [path for path in FILES + TESTS if Path(path).name in VAGUE] == []
    assert len(FILES) > 50


@pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None, reason="import-linter is in the extra `dev`"
)
def test_imports_go_down_the_ladder() -> None:
    code = "import sys; from importlinter.cli import lint_imports_command as lint; sys.exit(lint())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken\.", done.stdout)


def test_every_package_has_its_rung() -> None:
    """A new module that the contract does not name would be bound by nothing."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^layers = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert block
    named = set(re.findall(r"bdbench\.(\w+)", block[1]))
    assert {module.split(".")[1] for module in MODULES if "." in module} - named == set()


def python(code: str, *words: str, cwd: Path, **environment: str) -> list[str]:
    """What the code prints, a JSON list, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )
    found: list[str] = json.loads(done.stdout)
    return found


IMPORT_EACH = """
import importlib, json, sys
culprit = []
for name in sys.argv[1:]:
    importlib.import_module(name)
    if 'torch' in sys.modules and not culprit:
        culprit = [name]
print(json.dumps(culprit))
"""


@pytest.mark.parametrize("names", [TORCHLESS, METHODS], ids=["starred", "methods"])
def test_no_torch_is_imported(names: tuple[str, ...], tmp_path: Path) -> None:
    """Transitively and for real, whatever import-linter makes of it."""
    modules = below(names)
    assert len(modules) > 10
    assert python(IMPORT_EACH, *modules, cwd=tmp_path) == []


def test_an_import_of_torch_is_noticed(tmp_path: Path) -> None:
    assert python(IMPORT_EACH, "bdbench.api", "bdbench.clip", "bdbench.train", cwd=tmp_path) == [
        "bdbench.clip"
    ]


IDLE = """
import importlib, json, os, random, sys, threading
import matplotlib, numpy, pandas, rich.table, torch
from bdbench.clip import _open_clip
_open_clip()  # what others do at import is theirs; then bdbench is imported anew
for name in [name for name in sys.modules if name.split(".")[0] == "bdbench"]:
    del sys.modules[name]
sys.path += sys.argv[1:2]
def state():
    return {"threads": threading.active_count(), "cwd": os.getcwd(), "environ": dict(os.environ),
            "python": random.getstate(), "numpy": str(numpy.random.get_state()),
            "torch": torch.get_rng_state().tolist(), "torch threads": torch.get_num_threads()}
before, changed = state(), []
written = []
watch = [True]
def heard(event, args):
    if watch and event in ("os.mkdir", "subprocess.Popen", "socket.connect"):
        written.append(f"{event} {args[0]}")
    if watch and event == "open" and set(str(args[1])) & set("wax+") and args[0] != os.devnull:
        written.append(f"open {args[0]}")
sys.addaudithook(heard)
for name in sys.argv[2:]:
    importlib.import_module(name)
    after = state()
    changed += [f"{name}: {what}" for what in before if after[what] != before[what]]
    before = after
watch.clear()
print(json.dumps(changed + written))
"""


def test_nothing_happens_at_import(tmp_path: Path) -> None:
    """No file, folder, process, thread or connection; no seed, no setting."""
    home = tmp_path / "home"
    home.mkdir()
    names = ("HOME", "BDBENCH_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR", "HF_HOME")
    assert python(IDLE, "", *MODULES, cwd=home, **dict.fromkeys(names, str(home))) == []
    assert not [path for path in home.rglob("*") if "bdbench" in path.name]


def test_work_at_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(
        "import pathlib, random, threading\n"
        "pathlib.Path('log').write_text('x')\nrandom.seed(0)\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    found = python(IDLE, str(tmp_path), "busy", cwd=tmp_path)
    assert found == ["busy: threads", "busy: python", "open log"]
