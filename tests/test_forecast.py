"""What a plan will cost: from what its like took, by a simulated run, against counts by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bdbench.cli.planned import cluster, duration
from bdbench.execute.pool import Machine
from bdbench.forecast import Cost, Forecast, forecast, measured
from bdbench.plan import Node, Plan, StageName, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card
from bdbench.store import Store

SMOKE: dict[str, Any] = {
    "recipe": "smoke", "attacks": ["badnet"], "objectives": ["mmcl_ssl"],
    "defenses": ["cleanclip"],
}


def node(
    name: str, *inputs: Node, threads: int = 1, gpus: int = 0, stage: StageName = "pretrain"
) -> Node:
    keys = {f"i{i}": other.key for i, other in enumerate(inputs)}
    return Node(stage, name, {"name": name}, keys, threads, gpus)


def simulated(costs: Iterable[tuple[Node, float]], *machines: Machine) -> Forecast:
    todo, known = Plan(), {}
    for one, seconds in costs:
        known[todo.add(one)] = Cost(seconds, 0)
    return forecast(todo, todo.nodes, known, machines)


def test_independent_nodes_share_the_cores() -> None:
    costs = [(node(f"n{i}"), 10.0) for i in range(6)]
    one, four = simulated(costs, Machine(1)), simulated(costs, Machine(4))
    apart = simulated(costs, Machine(2), Machine(2))
    assert (one.wall, one.busy) == (60, 1)
    assert (four.wall, four.busy) == (20, 60 / 80)
    assert (apart.wall, apart.busy) == (20, 60 / 80)
    assert one.work == four.work == {"pretrain": 60}


def test_a_node_waits_for_what_it_reads_and_data_hold_up_everything() -> None:
    first, second = node("a"), node("b", stage="poison")
    after = node("c", first, second)
    assert simulated([(first, 3), (second, 5), (after, 7)], Machine(8)).wall == 12
    data = node("d", stage="data")
    assert simulated([(first, 3), (data, 5)], Machine(8)).wall == 8


def test_threads_and_gpus_are_counted_and_too_many_threads_take_a_whole_machine() -> None:
    wide = [(node(f"w{i}", threads=16), 10.0) for i in range(2)]
    assert simulated(wide, Machine(2)).wall == 20
    on_gpu = [(node(f"g{i}", gpus=2), 10.0) for i in range(3)]
    assert simulated(on_gpu, Machine(64, 4)).wall == 20
    apart = simulated(on_gpu, *[Machine(8, 3)] * 2)
    assert (apart.wall, apart.busy) == (20, 60 / 120)


def test_traffic_counts_what_is_read_and_written_and_the_unknown_are_named() -> None:
    first = node("a")
    after, other = node("b", first), node("c", first, stage="evaluate")
    todo = Plan()
    for one in (first, after, other):
        todo.add(one)
    known = {first.key: Cost(1, 100), after.key: Cost(1, 10, read=100)}
    found = forecast(todo, todo.nodes, known, [Machine(1)])
    assert found.traffic == 100 + (100 + 10)
    assert found.stored == {"pretrain": 110}
    assert found.unknown == {"evaluate": 1}


@pytest.mark.parametrize("seed", range(20))
def test_the_simulated_run_against_a_naive_one_that_walks_through_time(seed: int) -> None:
    """At each end of a node everything that is ready and fits is started, in order; no two tie."""
    rng = np.random.default_rng(seed)
    nodes: list[Node] = []
    for i in range(12):
        below = [one for one in nodes if rng.random() < 0.25]
        nodes.append(node(f"n{i}", *below, threads=int(rng.integers(1, 4))))
    costs = {one.key: float(rng.random()) for one in nodes}
    now, free, done = 0.0, 4, set[str]()
    left, ends = list(nodes), dict[str, float]()
    while left or ends:
        for key in [key for key, end in ends.items() if end == now]:
            free += next(one.threads for one in nodes if one.key == key)
            done.add(key)
            del ends[key]
        for one in list(left):
            if one.threads <= free and done.issuperset(one.inputs.values()):
                left.remove(one)
                free -= one.threads
                ends[one.key] = now + costs[one.key]
        now = min(ends.values(), default=now)
    found = simulated([(one, costs[one.key]) for one in nodes], Machine(4))
    assert found.wall == pytest.approx(now)


def test_costs_are_those_of_the_like_whatever_the_seed_the_attack_and_the_rates(
    smoke_card: Card, shared_store: Path
) -> None:
    registry, store = Registry(), Store(shared_store)

    def costs(**changes: Any) -> tuple[Plan, dict[str, Cost]]:
        wanted = cells(registry, **{**SMOKE, "seeds": [7], **changes})
        todo = plan(registry, wanted, {"defense": {"sweep": {"lr": [1e-4, 5e-4]}}})
        return todo, measured(todo, store)

    for changes in ({}, {"attacks": ["blended"]}):
        todo, found = costs(**changes)
        sizes = {key: cost.bytes for key, cost in found.items()}
        (start,) = (one for one in todo.nodes.values() if one.label.endswith("/ start"))
        reads = sum(sizes[key] for key in start.inputs.values())
        assert found[start.key].read == pytest.approx(reads, rel=1e-3)  # medians, of likes
        assert set(found) == set(todo.nodes)
        assert all(math.isfinite(cost.seconds) and cost.bytes > 0 for cost in found.values())
    registry_changes = {"recipe": {"pretrain": {"epochs": 77}}}
    todo = plan(registry, cells(registry, **SMOKE, seeds=[0]), registry_changes)
    unknown = {todo.stages[key] for key in set(todo.nodes) - set(measured(todo, store))}
    assert unknown == {"pretrain", "defend", "evaluate"}


@pytest.mark.parametrize(("seconds", "text"), [
    (0.4, "0 s"), (99, "99 s"), (100, "2 min"), (7100, "118 min"), (7200, "2 h 00 min"),
    (29_999, "8 h 20 min"), (400 * 3600, "400 h"), (4321 * 3600, "4,321 h"),
])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_cluster_has_the_gpus_asked_for() -> None:
    for gpus, machines in ((1, 1), (8, 1), (12, 2), (64, 8)):
        found = cluster(gpus)
        assert (len(found), sum(one.gpus for one in found)) == (machines, gpus)
        assert all(one.cores == 8 * one.gpus for one in found)
    assert cluster(64, 16) == [Machine(128, 16)] * 4
    assert cluster(100, 100) == [Machine(800, 100)]
