"""Bad input: status 2, nothing on stdout, what is wrong in backticks, and a hint that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bdbench.schema import Card
from tests.cli.conftest import Cli, Done
from tests.conftest import Command

SET = ["run", "--recipe", "smoke", "--set"]
COMPARE = ["compare", "--track", "tiny"]
UNKNOWN = "feedfeedfeedfeed"


def refused(done: Done) -> str:
    """The talk, once it has the form of a refusal."""
    assert (done.status, done.out) == (2, "")
    assert re.fullmatch(r"error: (?s:.+)\n\nhint: .+\n", done.err), done.err
    assert "Traceback" not in done.err
    assert "`" in done.err.split("\n\nhint: ")[0]
    return done.err


@pytest.mark.parametrize(
    ("words", "says", "hints"),
    [
        (["run", "--attack", "badnets"], "no attack `badnets`", "`badnet`"),
        (["run", "--objective", "mmclssl"], "no objective `mmclssl`", "`mmcl_ssl`"),
        (["run", "--defense", "clean_clip"], "no defense `clean_clip`", "`cleanclip`"),
        (["run", "--recipe", "tyni"], "no recipe `tyni`", "`tiny`"),
        (["run", "--attack", "qqq"], "no attack `qqq`", "known: `badnet`, "),
        (["run", "--seed", "-1"], "the seed `-1` is not between 0 and 2147483647", "--seed 0"),
        (["run", "--seed", "2147483648"], "the seed `2147483648`", "--seed 0"),
        (["run", "--seed", "one"], "`--seed`", "`bdbench run --help`"),
        (["run", "--sede", "1"], "no such option: `--sede`", "`bdbench run --help`"),
        (["run", "now"], " `now`", "`bdbench run --help`"),
        (["runn"], "no such command `runn`", "`bdbench --help`"),
        (["show"], "missing argument `what`", "`bdbench show --help`"),
        (["store", "rm"], "no such command `rm`", "`bdbench store --help`"),
        ([*SET, "defense.lr"], "`defense.lr` is not `kind.field=value`", "--set defense.lr=1e-5"),
        ([*SET, "lr=1"], "`lr=1` is not `kind.field=value`", "--set defense.lr=1e-5"),
        ([*SET, "defense.=1"], "`defense.=1` is not", "--set defense.lr=1e-5"),
        ([*SET, "defense.lr="], "the right side of `defense.lr=` is not", "defense.lr=1e-5"),
        ([*SET, "defense.sweep.lr=[1e-5, "], "is not a TOML value", "--set 'defense.sweep.lr=["),
        ([*SET, 'attack.place="fixed'], "is not a TOML value", "defense.lr=1e-5"),
        ([*SET, "defens.lr=1"], "`defens` cannot be set", "did you mean `defense`?"),
        ([*SET, "metric.k=1"], "`metric` cannot be set", "`"),
        ([*SET, "defense.lrr=1"], "`defense.lrr` is not a field", "show defense/cleanclip`"),
        ([*SET, "defense.lr=-1"], "`defense.lr` = `-1`: Input should be gr", "show defense/"),
        ([*SET, "defense.lr=nan"], "`defense.lr` = `nan`", "show defense/cleanclip`"),
        ([*SET, "defense.lr=inf"], "`defense.lr` = `inf`", "show defense/cleanclip`"),
        ([*SET, "defense.lr=fast"], "`defense.lr` = `fast`: Input should be a valid number",
         "show defense/cleanclip`"),
        ([*SET, "defense.lr=2020-01-01"], "`defense.lr` = `2020-01-01`", "show defense/"),
        ([*SET, "defense.epochs=1.5"], "`defense.epochs` = `1.5`", "show defense/cleanclip`"),
        ([*SET, "defense.epochs=true"], "`defense.epochs` = `True`", "show defense/cleanclip`"),
        ([*SET, "attack.rate=1.01"], "`attack.rate` = `1.01`", "show attack/badnet`"),
        ([*SET, "attack.place=[red]"], "is not a TOML value", "`bdbench run"),
        ([*SET, "attack.place=left"], "`attack.place` = `left`", "show attack/badnet`"),
        ([*SET, "dataset.train=1e30"], "`dataset.train` = `1e+30`", "show dataset/shapes`"),
        ([*SET, "dataset.train=-5"], "`dataset.train` = `-5`", "show dataset/shapes`"),
        ([*SET, "defense.sweep.lr=3"], "`defense.sweep`", "defense.sweep.lr=[1e-5"),
        ([*SET, "defense.sweep.lr=[]"], "`defense.sweep`", "defense.sweep.lr=[1e-5"),
        ([*SET, "defense.sweep.lr=['a']"], "`defense.lr` = `a`", "show defense/cleanclip`"),
        ([*SET, "defense.sweep.x=[1]"], "`defense.x` is not a field", "show defense/cleanclip`"),
        ([*SET, "recipe.pretrain=2"], "`recipe.pretrain` = `2`", "show recipe/smoke`"),
        ([*SET, "recipe.pretrain.epochs=0"], "`recipe.pretrain.epochs` = `0`", "recipe/smoke`"),
        ([*SET, "recipe.pretain.epochs=2"], "`recipe.pretain` is not a field", "recipe/smoke`"),
        ([*SET, "recipe.target=bananna"], "the target `bananna` is not a class", "`banana`"),
        ([*SET, "recipe.dataset=cifar"], "no dataset `cifar`", "`shapes`"),
        ([*SET, "recipe.budget.pairs=3", "--set", "recipe.budget.pairs.x=3"],
         "sets a part of a value that is set whole", "leave one"),
        (["show", "badnett"], "nothing is called `badnett`", "`badnet`"),
        (["show", "a" * 300], "nothing is called `aaa", "known: "),
        (["show", ""], "nothing is called ``", "known: "),
        (["show", "atack/badnet"], "no kind `atack`", "`attack`"),
        (["show", "metric/asr"], "no metric `asr`", "`asr_all`"),
        (["show", "recipe/tyni"], "no recipe `tyni`", "`tiny`"),
        (["show", UNKNOWN], f"has no card `{UNKNOWN}`", "`bdbench store ls`"),
        (["show", "no/card.json"], "no file `no/card.json`", "`bdbench store ls`"),
        (["list", "attacks"], "no kind `attacks`", "`attack`"),
        (["list", "--plugin", "no.py"], "no plugin file `no.py`", "a file that exists"),
        (["check", "no.py"], "no plugin file `no.py`", "a file that exists"),
        (["verify", "no.json"], "`no.json` does not exist", "--author 'A. Name'"),
        (["verify", "."], "`.` is not a plain file", "--author 'A. Name'"),
        ([*COMPARE, "none"], "`none` names the attack and the defense", "`defense/none`"),
        ([*COMPARE, "cleanclap"], "no attack, objective or defense `cleanclap`", "`cleanclip`"),
        ([*COMPARE, "mine"], "no attack, objective or defense `mine`", "`--plugin FILE`"),
        (["submit", "asr_top1", "--track", "tiny", "--author", "A"], "`asr_top1` is a metric",
         "CONTRIBUTING"),
        (["new", "defense", "a b.py"], "`a b` is no name", "'a b.py' --name my_defense"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_named_and_the_hint_works(
    words: list[str], says: str, hints: str, cli: Cli
) -> None:
    done = cli(*words)
    message, _, hint = refused(done).partition("\n\nhint: ")
    assert says in message
    assert hints in hint
    for command in done.commands():
        plan = ["--plan"] if command[1] == "run" and "--help" not in command else []
        assert cli(*command[1:], *plan).status == 0


def test_a_real_process_refuses_in_the_same_way(bdbench: Command, cli: Cli) -> None:
    done = bdbench("run", "--attack", "badnets")
    assert "did you mean `badnet`" in refused(Done(done.returncode, done.stdout, done.stderr))
    done = bdbench("run", "--sede", "1")
    assert "--sede" in refused(Done(done.returncode, done.stdout, done.stderr))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "`broken.py`, line 1: SyntaxError"),
        ("\n1 / 0\n", "`broken.py`, line 2: ZeroDivisionError: division by zero"),
        ("import nothing_like_it", "line 1: ModuleNotFoundError: No module named"),
        ("raise ValueError('[red]\\x1b[35m\\nno')", "ValueError: [red]\N{REPLACEMENT CHARACTER}"),
        ("x = 1", "plugin `broken.py` registers nothing"),
        ("\0", "`broken.py`"),
    ],
)
@pytest.mark.parametrize("verb", ["list", "run"])
def test_a_plugin_that_cannot_be_loaded_is_named_with_its_line(
    text: str, says: str, verb: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text(text)
    assert says in refused(cli(verb, "--plugin", "broken.py"))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "not json", '{"version": 99}', "\N{SNOWMAN}" * 10, "\0\xff"]
)
def test_a_file_that_is_no_card_is_refused(text: str, tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "card.json"
    file.write_bytes(text.encode("latin-1", "replace"))
    done = cli("show", str(file))
    assert f"`{file}` is not a result card: " in refused(done)
    assert done.commands() == [["bdbench", "store", "ls"]]


def test_a_card_with_one_wrong_field_names_it(
    smoke_card: Card, tmp_path: Path, cli: Cli
) -> None:
    file = tmp_path / "card.json"
    file.write_text(smoke_card.model_dump_json().replace('"poisoned":', '"poisond":', 1))
    assert "`poison.poisoned`: Field required" in refused(cli("show", str(file)))


def test_a_file_that_cannot_be_read_is_refused(cli: Cli) -> None:
    if not Path("/proc/self/mem").is_file():
        pytest.skip("this system has no /proc/self/mem, a file whose reading fails")
    assert "`/proc/self/mem` cannot be read: " in refused(cli("show", "/proc/self/mem"))


@pytest.mark.parametrize(
    ("home", "words", "says"),
    [
        ("file", ["run", "--recipe", "smoke"], "is not a folder"),
        ("file", ["run", "--recipe", "smoke", "--plan"], "is not a folder"),
        ("file", ["store", "ls"], "is not a folder"),
        ("file", ["store", "gc"], "is not a folder"),
        ("file", ["show", UNKNOWN], "is not a folder"),
        ("file/below", ["run", "--recipe", "smoke"], "is not a folder"),
        ("/proc/nowhere", ["run", "--recipe", "smoke"], "cannot be created"),
    ],
)
def test_a_store_that_cannot_be_is_explained(
    home: str, words: list[str], says: str, tmp_path: Path, cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / home
    monkeypatch.setenv("BDBENCH_HOME", str(place))
    assert refused(cli(*words)) == (
        f"error: the store `{place}` {says}\n\nhint: set BDBENCH_HOME to a writable folder\n")
