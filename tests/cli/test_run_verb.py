"""`bdbench run`: the table, the plan, JSON, overrides, several cells, and its statuses."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import bdbench as package
from bdbench.cards.text import figure, place, rules
from bdbench.plan import STAGES, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card
from tests.cli.conftest import Cli
from tests.conftest import Command
from tests.inline import inlined

SMOKE = ["run", "--recipe", "smoke"]
LATE = """
from pathlib import Path
from bdbench import register
from bdbench.api import Repair

@register("late")
class Late(Repair):
    def repair(self, clip, budget):
        if not Path("{flag}").exists():
            raise RuntimeError("no [red]luck")
        return clip
"""


def planned(cli: Cli, *words: str) -> dict[str, int]:
    """Nodes by stage."""
    done = cli(*SMOKE, *words, "--plan", "--json")
    assert done.status == 0, done.err
    found = [node["stage"] for node in json.loads(done.out)]
    return {stage: found.count(stage) for stage in STAGES}


def keys(cli: Cli, *words: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {stage: set() for stage in STAGES}
    for node in json.loads(cli(*SMOKE, *words, "--plan", "--json").out):
        found[node["stage"]].add(node["key"])
    return found


def test_one_cell_prints_its_table_its_card_and_what_next(
    smoke_card: Card, shared_store: Path, bdbench: Command
) -> None:
    """A second run: every stage is reused, and the table is that of the card."""
    done = bdbench(*SMOKE, home=shared_store)
    assert done.returncode == 0
    talk = done.stderr.splitlines()
    assert len(talk) == 9
    assert all(re.fullmatch(rf"\[{i}/9\] .*  reused", line) for i, line in enumerate(talk, 1))
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[0] == "cleanclip against badnet on mmcl_ssl"
    header = next(i for i, line in enumerate(lines) if line.startswith("per cent"))
    assert lines[header].split() == [
        "per", "cent", "clean", "ASR", "[95", "%]", "base", "lift", "triggered"]
    shown = rules(smoke_card)
    assert [name for name, _ in shown[:3]] == ["undefended", "blind", "last"]
    for line, (name, position) in zip(lines[header + 1:], shown, strict=False):
        point = None if position is None else smoke_card.trajectory[position]
        scores = {} if point is None else point.scores
        figures = [figure(scores.get(metric), interval=metric == "asr_top1") for metric in
                   ("clean_top1", "asr_top1", "base_rate", "lift", "triggered_top1")]
        assert line.split() == " ".join([name, place(point), *figures]).split()
    card, following = lines[-2:]
    assert Path(card.removeprefix("card: ")).read_text().startswith("# `cleanclip` against")
    assert following.startswith("next: bdbench ")


def works(cli: Cli, words: list[str]) -> None:
    """The command is one, and starts without complaint."""
    assert words[0] == "bdbench"
    extra = ["--plan"] if words[1] == "run" else []
    done = cli(*words[1:], *extra)
    assert done.status == 0, done.err


def following(out: str) -> list[str]:
    return shlex.split(out.splitlines()[-1].removeprefix("next: "))


def test_the_next_command_of_a_failed_attack_works(smoke_card: Card, cli: Cli) -> None:
    done = cli(*SMOKE)
    assert smoke_card.verdict.status == "attack_failed"
    assert following(done.out) == ["bdbench", "show", "attack/badnet"]
    works(cli, following(done.out))


def test_json_is_all_of_stdout_and_equals_what_python_gives(
    smoke_card: Card, shared_store: Path, bdbench: Command
) -> None:
    done = bdbench(*SMOKE, "--json", home=shared_store)
    assert done.returncode == 0
    (only,) = json.loads(done.stdout)
    assert Card.model_validate_json(json.dumps(only["card"])) == smoke_card
    called = package.run(attack="badnet", objective="mmcl_ssl", defense="cleanclip",
                         recipe="smoke", store=shared_store)
    assert called == smoke_card
    assert Path(only["path"]).parent.name == only["key"]


def test_several_cells_print_a_matrix_and_each_stage_runs_once(
    smoke_card: Card, cli: Cli
) -> None:
    done = cli(*SMOKE, "--defense", "cleanclip", "--defense", "none", "--defense", "none")
    assert done.status == 0, done.err
    table = [line.split() for line in done.out.splitlines()]
    assert table[0][:4] == ["attack", "objective", "defense", "status"]
    rows = [line[:4] for line in table if line[:1] == ["badnet"]]
    assert rows == [
        ["badnet", "mmcl_ssl", defense, "attack_failed"] for defense in ("cleanclip", "none")]
    assert "clean/ASR in per cent; seed 0" in done.out.splitlines()
    (folder,) = re.findall(r"^matrix: (.*)$", done.out, re.MULTILINE)
    # No frontier: an attack that failed tells nothing of a defense.
    assert {path.name for path in Path(folder).iterdir()} == {
        "matrix.csv", "matrix.md", "heat-badnet.png"}
    assert sum(line.startswith("card: ") for line in done.out.splitlines()) == 2
    ran = [line.split("  ")[0].split()[-1] for line in done.err.splitlines()]
    assert ran.count("pretrain") == ran.count("data") == 1


def test_where_the_files_of_a_matrix_cannot_be_written_its_cards_are_shown(
    smoke_card: Card, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("bdbench.cards.report.write", refused)
    done = cli(*SMOKE, "--defense", "cleanclip", "--defense", "none")
    assert done.status == 0, done.err
    assert "matrix: " not in done.out
    assert sum(line.startswith("card: ") for line in done.out.splitlines()) == 2
    note = done.err.splitlines()[-1]
    assert note.startswith("note: no figures and no table as files: the store `")
    assert note.endswith("` is read-only")


def test_plan_runs_nothing_and_counts_what_is_there(
    smoke_card: Card, shared_store: Path, tmp_path: Path, bdbench: Command
) -> None:
    done = bdbench(*SMOKE, "--plan", home=tmp_path / "none")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "none").exists()
    first, head, *rows, last = done.stdout.splitlines()
    assert (first, head.split()) == (
        "1 cell, 9 stages", ["stage", "nodes", "reused", "to", "run", "work", "GB"])
    assert [row.split() for row in rows] == [
        [stage, n, "0", n, "?", "?"] for stage, n in (
            ("data", "1"), ("poison", "1"), ("pretrain", "1"), ("defend", "2"), ("evaluate", "3"),
            ("card", "1"))]
    assert last == (
        "not counted, because no stage like it has run here: 1 data, 1 poison, 1 pretrain,"
        " 2 defend, 3 evaluate, 1 card")
    done = bdbench(*SMOKE, "--seed", "0", "--seed", "1", "--plan", "--json", home=shared_store)
    nodes = json.loads(done.stdout)
    reused = [node["key"] for node in nodes if node["reused"]]
    assert len(nodes) == 18
    assert {stage.key for stage in smoke_card.provenance.stages} <= set(reused)
    assert {"stage", "key", "label", "reused", "inputs", "seconds"} == set(nodes[0])


def test_all_stands_for_every_name_and_stages_are_shared(cli: Cli) -> None:
    registry = Registry()
    attacks, objectives, defenses = (
        [entry.name for entry in registry.entries(kind)]
        for kind in ("attack", "objective", "defense"))
    found = planned(cli, "--attack", "all", "--objective", "all", "--defense", "all")
    assert found["data"] == 1
    assert found["poison"] == len(attacks)
    assert found["pretrain"] == len(attacks) * len(objectives)
    assert found["card"] == len(attacks) * len(objectives) * len(defenses)
    wanted = cells(registry, recipe="smoke", attacks=attacks, objectives=objectives,
                   defenses=defenses, seeds=[0])
    assert sum(found.values()) == len(plan(registry, wanted).nodes)
    assert planned(cli, "--attack", "all", "--attack", "badnet")["poison"] == len(attacks)


def test_seeds_repeat_and_doubles_count_once(cli: Cli) -> None:
    found = planned(cli, "--seed", "3", "--seed", "4", "--seed", "3")
    assert (found["card"], found["pretrain"], found["data"]) == (2, 2, 2)


@pytest.mark.parametrize(
    ("settings", "moved"),
    [
        (["defense.lr=2e-3"], "defend"),
        (["defense.lr = 2e-3"], "defend"),
        (["defense.epochs=3", "defense.ssl_weight=0.5"], "defend"),
        (["recipe.pretrain.epochs=2"], "pretrain"),
        (["recipe.pretrain={ epochs = 2, lr = 1e-3 }"], "pretrain"),
        (["objective.ssl_weight=0.5"], "pretrain"),
        (["attack.rate=0.25"], "poison"),
        (["attack.place='fixed'"], "poison"),
        (["attack.place=fixed"], "poison"),
        (["recipe.target=butterfly"], "poison"),
        (["dataset.train=600"], "data"),
        (["recipe.gate.lift=0.1"], "card"),
        (["recipe.selection.oracle=[0.02, 0.05]"], "card"),
    ],
)
def test_a_setting_moves_the_stages_it_must_and_no_earlier_one(
    settings: list[str], moved: str, cli: Cli
) -> None:
    before = keys(cli)
    after = keys(cli, *(word for setting in settings for word in ("--set", setting)))
    first = STAGES.index(moved)  # type: ignore[arg-type]
    for stage in STAGES[:first]:
        assert after[stage] == before[stage]
    assert not after[moved] & before[moved]


def test_a_sweep_is_set_whole_and_a_swept_parameter_ends_its_sweep(cli: Cli) -> None:
    assert planned(cli)["defend"] == 2
    assert planned(cli, "--set", "defense.sweep.lr=[1e-3, 2e-3, 3e-3]")["defend"] == 3
    assert planned(cli, "--set", "defense.lr=1e-3")["defend"] == 1


def test_a_failed_cell_says_so_continues_later_and_leaves_no_trace(
    smoke_card: Card, shared_store: Path, tmp_path: Path, bdbench: Command, cli: Cli
) -> None:
    """A defense that fails until a file appears; the next command knows its plugin file.

    Whether an attack implants in `smoke` is chance, and moves the next command: none is asked.
    """
    plugin, flag = tmp_path / "my own.py", tmp_path / "ready"
    plugin.write_text(LATE.format(flag=str(flag)))
    words = [*SMOKE, "--attack", "none", "--objective", "mmcl_ssl", "--defense", "late",
             "--plugin", str(plugin), "--set", "recipe.gate.lift=0"]
    done = bdbench(*words, "--json", home=shared_store)
    assert (done.returncode, done.stdout) == (1, "")
    failed = "error: defend `none / mmcl_ssl / late` failed: RuntimeError: no [red]luck"
    assert f"{failed}\n\nhint: `" in done.stderr
    assert "Traceback" not in done.stderr
    log = Path(re.findall(r"hint: `(.*)` has the traceback", done.stderr)[0])
    assert f'"{plugin}", line ' in log.read_text()

    flag.touch()
    with inlined():
        again = cli(*words)
    assert again.status == 0, again.err
    path = Path(re.findall(r"card: (.*)", again.out)[0]).with_name("card.json")
    stages = Card.model_validate_json(path.read_bytes()).provenance.stages
    (files,) = (set(stage.files) for stage in stages if stage.stage == "defend")
    assert files == {"model.json", "train.jsonl", "step-0001.safetensors"}
    assert following(again.out) == [
        "bdbench", "run", "--attack", "none", "--objective", "mmcl", "--defense", "late",
        "--recipe", "smoke", "--set", "recipe.gate.lift=0", "--plugin", str(plugin)]
    with inlined():
        works(cli, following(again.out))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_the_like_say_that_the_same_command_continues(
    number: signal.Signals, smoke_card: Card, shared_store: Path, tmp_path: Path
) -> None:
    for stage in ("data", "poison"):
        shutil.copytree(shared_store / "objects" / stage, tmp_path / "objects" / stage)
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from bdbench.cli.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *SMOKE], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "BDBENCH_HOME": str(tmp_path)},
    )
    assert process.stderr is not None
    assert "reused" in process.stderr.readline()
    process.send_signal(number)
    out, talk = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert talk.endswith("interrupted\n\nhint: the same command continues\n")
    assert "Traceback" not in talk
