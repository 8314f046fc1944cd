"""The table of cells that changes while a run goes on."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from bdbench.cli.live import CellTable
from bdbench.cli.progress import RunProgress
from bdbench.execute import NodeEvent
from bdbench.plan import Node, Plan, cells, plan
from bdbench.registry import Registry


@pytest.fixture(scope="module")
def todo() -> Plan:
    registry = Registry()
    return plan(registry, cells(
        registry, recipe="smoke", attacks=["badnet", "blended"], objectives=["mmcl", "mmcl_ssl"],
        defenses=["none", "finetune"], seeds=[0, 1],
    ))


def shown(table: CellTable, height: int = 20) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=False).print(table.table(height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def nodes(todo: Plan, stage: str, label: str) -> list[Node]:
    return [one for one in todo.nodes.values() if (one.stage, one.label) == (stage, label)]


def row(lines: list[str], attack: str, objective: str) -> str:
    (line,) = [line for line in lines if re.match(rf"{attack} +{objective} ", line)]
    return " ".join(line.split()[2:])


def test_each_place_counts_its_seeds_and_says_what_is_at_work(todo: Plan) -> None:
    table = CellTable(todo)
    assert shown(table)[0].split() == ["attack", "objective", "none", "finetune"]
    assert row(shown(table), "badnet", "mmcl") == "0/2 0/2"
    (pretrain, other) = nodes(todo, "pretrain", "badnet / mmcl")
    table.started(pretrain)
    assert row(shown(table), "badnet", "mmcl") == "0/2 pretrain 0/2 pretrain"
    assert row(shown(table), "badnet", "mmcl_ssl") == "0/2 0/2"
    table.ended(pretrain, "done")
    table.started(other)
    defend = nodes(todo, "defend", "badnet / mmcl / none")[0]
    table.started(defend)
    assert row(shown(table), "badnet", "mmcl") == "0/2 defend 0/2 pretrain"
    table.ended(defend, "done")
    table.ended(other, "failed")
    for card in nodes(todo, "card", "badnet / mmcl / none / seed 0"):
        table.ended(card, "done")
    for card in nodes(todo, "card", "badnet / mmcl / none / seed 1"):
        table.ended(card, "dropped")
    assert row(shown(table), "badnet", "mmcl") == "1/2 1 failed 0/2"


def test_a_low_terminal_shows_what_is_at_work_first(todo: Plan) -> None:
    table = CellTable(todo)
    table.started(nodes(todo, "pretrain", "blended / mmcl_ssl")[0])
    lines = shown(table, height=1)
    assert row(lines, "blended", "mmcl_ssl") == "0/2 pretrain 0/2 pretrain"
    assert lines[-1].split() == ["and", "3", "more"]
    assert len(lines) == 3


def test_a_terminal_shows_the_table_and_a_pipe_does_not(todo: Plan) -> None:
    texts = {}
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=100, height=30)
        with RunProgress(console, todo) as tell:
            for node in list(todo.nodes.values())[:20]:
                tell(NodeEvent("reused", node))
            node = nodes(todo, "card", "blended / mmcl / none / seed 1")[0]
            tell(NodeEvent("started", node))
            tell(NodeEvent("done", node))
        texts[terminal] = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"attack +objective +none +finetune", texts[True])
    lines = texts[False].splitlines()
    total = len(todo.nodes)
    assert lines[0] == f"[20/{total}] 20 stages  reused"
    assert lines[1:] == [f"[21/{total}] card      blended / mmcl / none / seed 1  0.0 s"]
