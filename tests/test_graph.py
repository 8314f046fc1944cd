"""Each distinct stage of a set of cells runs exactly once, after what it reads, on any pool."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdbench import execute as package
from bdbench.errors import BdbenchError, CellFailed, DiskError
from bdbench.execute import Failure, NodeEvent, execute
from bdbench.execute.pool import Work
from bdbench.hashing import canonical_json
from bdbench.plan import Node, Plan, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Cell
from bdbench.store import Store

SWEEPS = st.lists(st.sampled_from([1e-4, 1e-3, 1e-2]), min_size=1, max_size=3, unique=True)


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_disks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bdbench.store.os.fsync", lambda descriptor: None)
        yield


class FakePool:
    """Publishes an empty artifact for every node, several at a time, in a random order."""

    def __init__(
        self, work: Work, data: st.DataObject, room: int, failing: frozenset[str] = frozenset(),
        kind: str = "cell",
    ) -> None:
        self.work, self.data, self.room, self.failing, self.kind = work, data, room, failing, kind
        self.at_work: list[Node] = []
        self.order: list[Node] = []

    def full(self) -> bool:
        return len(self.at_work) >= self.room

    def fits(self, node: Node) -> bool:
        return not self.full()

    def start(self, node: Node) -> None:
        assert not self.full()
        for key in node.inputs.values():
            stage = self.work.todo.stages[key]
            assert self.work.store.find(stage, key) is not None, "started before its inputs"
        self.at_work.append(node)
        self.order.append(node)

    def wait(self) -> tuple[Node, dict[str, Any]]:
        node = self.at_work.pop(self.data.draw(st.integers(0, len(self.at_work) - 1)))
        if node.key in self.failing:
            return node, {"event": "error", "kind": self.kind, "message": "no luck", "hint": "h"}
        store = self.work.store
        work = store.workdir(node.key)
        if node.stage == "data":
            (work / "data.json").write_text(json.dumps({"sizes": {}, "classes": []}))
        store.publish(node.stage, node.key, label=node.label, spec=node.spec, inputs=node.inputs,
                      seconds=0, samples=0)
        return node, {"event": "done", "reused": False, "notes": []}

    def close(self) -> None:
        pass


def registry(folder: Path, entries: dict[str, list[dict[str, Any]]]) -> Registry:
    """The shipped data, recipes and metrics, with random variants of the shipped methods."""
    for path in Registry()._root.rglob("*.toml"):
        if path.parent.name in ("datasets", "metrics", "recipes"):
            copy = folder / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text())
    for kind, variants in entries.items():
        (folder / kind).mkdir()
        for i, lines in enumerate(variants):
            text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
            (folder / kind / f"m{i}.toml").write_text(f'summary = "a variant"\n{text}')
    return Registry(root=folder)


ENTRIES = st.fixed_dictionaries({
    "attacks": st.lists(st.builds(
        lambda rate: {"use": "bdbench.attacks.badnet:BadNet", "params.rate": rate},
        st.sampled_from([0.01, 0.02, 0.03]),
    ), min_size=1, max_size=3),
    "objectives": st.lists(st.sampled_from([
        {"use": "bdbench.objectives.mmcl:Mmcl"}, {"use": "bdbench.objectives.mmcl_ssl:MmclSsl"},
    ]), min_size=1, max_size=3),
    "defenses": st.lists(st.one_of(
        st.just({"use": "bdbench.defenses.none:NoDefense"}),
        SWEEPS.map(lambda lrs: {"use": "bdbench.defenses.finetune:FineTune", "sweep.lr": lrs}),
    ), min_size=1, max_size=3),
})


def naive(one_by_one: list[Plan]) -> set[str]:
    """What each cell needs by itself, told apart by its whole text instead of by its key."""
    def text(part: Plan, key: str) -> str:
        node = part.nodes[key]
        inputs = {role: text(part, other) for role, other in node.inputs.items()}
        return canonical_json([node.stage, node.spec, inputs])

    return {text(part, key) for part in one_by_one for key in part.nodes}


@given(entries=ENTRIES, data=st.data(), room=st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_every_distinct_stage_runs_once(
    entries: Any, data: st.DataObject, room: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Some cells of a random registry, run in two goes that overlap."""
    folder = tmp_path_factory.mktemp("case")
    found = registry(folder / "registry", entries)
    everything = cells(found, recipe="smoke", attacks=["all"], objectives=["all"],
                       defenses=["all"], seeds=[0, 1])
    some = st.lists(st.sampled_from(everything), min_size=1, max_size=8)
    store, started = Store(folder / "store"), Counter[str]()
    wanted: list[Cell] = []
    for part in (data.draw(some), data.draw(some)):
        todo = plan(found, part)
        with pytest.MonkeyPatch.context() as patch:
            pools: list[FakePool] = []

            def pool(on: str, work: Work, pools: list[FakePool] = pools) -> FakePool:
                pools.append(FakePool(work, data, room))
                return pools[-1]

            patch.setattr(package, "_pool", pool)
            execute(todo, store)
        started.update(node.key for one in pools for node in one.order)
        wanted += part
    assert set(started.values()) == {1}
    whole = plan(found, wanted)
    assert set(started) == set(whole.nodes)
    assert len(started) == len(naive([plan(found, [cell]) for cell in set(wanted)]))


@cache
def smoke() -> Plan:
    found = Registry()
    return plan(found, cells(found, recipe="smoke", attacks=["badnet", "blended"],
                             objectives=["mmcl"], defenses=["none", "finetune"], seeds=[0]))


def below(todo: Plan, key: str) -> set[str]:
    """All that reads a node, or reads what reads it."""
    return {other for other, node in todo.nodes.items() if reads(todo, node, key)}


def reads(todo: Plan, node: Node, key: str) -> bool:
    return any(
        other == key or reads(todo, todo.nodes[other], key) for other in node.inputs.values()
    )


@given(data=st.data(), room=st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_with_keep_going_only_what_rests_on_a_failure_is_left_out(
    data: st.DataObject, room: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    todo = smoke()
    failing = data.draw(st.sets(st.sampled_from(sorted(todo.nodes)), min_size=1, max_size=3))
    store = Store(tmp_path_factory.mktemp("store"))
    events: list[NodeEvent] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            package, "_pool", lambda on, work: FakePool(work, data, room, frozenset(failing))
        )
        failures = execute(todo, store, listen=events.append, keep_going=True)
    fallen = set().union(*(below(todo, key) for key in failing))
    assert {one.node.key for one in failures} == failing - fallen
    assert {a.manifest.key for a in store.artifacts()} == set(todo.nodes) - failing - fallen
    told = {kind: {e.node.key for e in events if e.kind == kind} for kind in ("failed", "dropped")}
    assert told == {"failed": failing - fallen, "dropped": fallen}
    ends = Counter(e.node.key for e in events if e.kind in ("done", "failed", "dropped"))
    assert ends == Counter(list(todo.nodes))


def fail(kind: str, keep_going: bool, store: Store) -> list[Failure]:
    todo = smoke()
    first = next(key for key, node in todo.nodes.items() if node.stage == "poison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "_pool", lambda on, work: FakePool(
            work, _First(), 1, frozenset([first]), kind))
        return execute(todo, store, keep_going=keep_going)


class _First:
    """Draws the smallest of everything."""

    def draw(self, strategy: object) -> int:
        return 0


@pytest.mark.parametrize(("kind", "error"), [
    ("cell", CellFailed), ("input", BdbenchError), ("disk", DiskError),
])
def test_without_it_the_first_failure_ends_the_run(
    kind: str, error: type[BdbenchError], tmp_path: Path
) -> None:
    with pytest.raises(BdbenchError) as caught:
        fail(kind, False, Store(tmp_path))
    assert type(caught.value) is error
    assert caught.value.message == "poison `badnet` failed: no luck"


def test_a_full_disk_ends_a_run_that_keeps_going_too(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        fail("disk", True, Store(tmp_path))
    assert [one.node.stage for one in fail("cell", True, Store(tmp_path))] == ["poison"]
