"""Run a plan: every missing node once, independent ones side by side, here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bdbench.admit import admit
from bdbench.errors import BdbenchError, CellFailed, DiskError, told
from bdbench.execute.graph import Graph
from bdbench.execute.here import Here
from bdbench.execute.pool import Pool, Work
from bdbench.execute.remote import Remote
from bdbench.plan import Node, Plan, cells, plan
from bdbench.registry import Registry
from bdbench.resolve import UNKNOWN, Overrides, with_checkpoint
from bdbench.schema import Card
from bdbench.store import Store, disk_errors

PLACES = ("here", "ray", "slurm")
"""Where a plan can run: this machine, a cluster of Ray, or one of Slurm."""


@dataclass(frozen=True)
class NodeEvent:
    """Something to tell about a node: reused, started, progress, done, note, failed or dropped.

    Dropped: it reads what failed.
    """

    kind: str
    node: Node
    data: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[NodeEvent], None]


@dataclass(frozen=True)
class Failure:
    """A node that failed while the run went on."""

    node: Node
    error: BdbenchError


def execute(
    todo: Plan, store: Store, plugins: Sequence[Path] = (),
    listen: Listener = lambda event: None, strict: bool = False, keep_going: bool = False,
    on: str = "here",
) -> list[Failure]:
    """Run every node of the plan that the store lacks; CellFailed at the first that fails.

    `on`: one of `PLACES`.
    `strict`: BdbenchError, before any training, where files of the dataset cannot be used.
    `keep_going`: a node that fails takes along only what reads it; returns those that failed.
    """
    with disk_errors(store.root):
        waiting = {
            key: node for key, node in todo.nodes.items() if store.find(node.stage, key) is None
        }
    for key, node in todo.nodes.items():
        if key not in waiting:
            listen(NodeEvent("reused", node))
    if waiting:  # of another user's store, what is there can be had
        store.prepare()
    for text in store.taken_notes():
        listen(NodeEvent("note", next(iter(todo.nodes.values())), {"text": text}))
    graph = Graph(waiting)
    if not graph.data_left:
        _admit(store, todo, strict, listen)
    if not waiting:
        return []
    with store.in_use():
        pool = _pool(on, Work(todo, waiting, store, tuple(plugins)))
        try:
            return _work(todo, graph, pool, store, listen, strict, keep_going)
        finally:
            pool.close()


def _pool(on: str, work: Work) -> Pool:
    if on == "ray":
        from bdbench.execute.on_ray import OnRay

        return Remote(work, OnRay(work))
    if on == "slurm":
        from bdbench.execute.on_slurm import OnSlurm

        return Remote(work, OnSlurm(work))
    return Here(work)


def _work(
    todo: Plan, graph: Graph, pool: Pool, store: Store, listen: Listener, strict: bool,
    keep_going: bool,
) -> list[Failure]:
    failures: list[Failure] = []
    running = 0
    while graph.left:
        while (node := graph.next(pool)) is not None:
            listen(NodeEvent("started", node))
            pool.start(node)
            running += 1
        assert running, "nodes are left, and none of them is ready"
        node, event = pool.wait()
        if event["event"] in ("progress", "note"):
            listen(NodeEvent(event["event"], node, event))
            continue
        running -= 1
        data_left = graph.data_left
        if event["event"] == "done":
            for text in event["notes"]:
                listen(NodeEvent("note", node, {"text": text}))
            listen(NodeEvent("reused" if event["reused"] else "done", node))
            graph.done(node)
        else:
            error = _error(node, event)
            if not keep_going or isinstance(error, DiskError):
                raise error
            failures.append(Failure(node, error))
            listen(NodeEvent("failed", node, {"text": str(error)}))
            for fallen in graph.give_up(node):
                listen(NodeEvent("dropped", fallen))
        if data_left and not graph.data_left:
            lost = {failure.node.key for failure in failures}
            kept = {key: node for key, node in todo.nodes.items() if key not in lost}
            _admit(store, Plan(kept, todo.stages), strict, listen)
    return failures


def _error(node: Node, event: Mapping[str, Any]) -> BdbenchError:
    """What to raise for a node that ended otherwise than it should."""
    if event["event"] == "died":
        return CellFailed(
            f"the process of {node.stage} `{node.label}` died with status `{event['status']}`",
            "run the same command again: it continues; a status of -9 is often too little memory",
        )
    return told(event, f"{node.stage} `{node.label}` failed: ")


def _admit(store: Store, todo: Plan, strict: bool, listen: Listener) -> None:
    for node, text in admit(store, todo, strict):
        listen(NodeEvent("note", node, {"text": text}))


def read_card(store: Store, key: str) -> Card:
    """The card of a cell that has run."""
    return Card.model_validate_json(store.open("card", key).file("card.json").read_bytes())


def run(
    attack: str = "badnet", objective: str | None = None, defense: str = "cleanclip", *,
    recipe: str = "tiny", seed: int = 0, checkpoint: str | Path | None = None,
    overrides: Overrides | None = None,
    plugins: Sequence[str | Path] = (), store: str | Path | None = None,
    listen: Listener = lambda event: None,
) -> Card:
    """Run one cell, or reuse what the store has of it, and return its card.

    `overrides` maps attack, objective, defense, dataset or recipe to the values to change, as
    `--set` does. `checkpoint` is a file with a model trained elsewhere, to be defended as it is;
    `objective` then only says what it was trained with, by default `unknown`, otherwise `mmcl_ssl`.
    Raises BdbenchError on bad input and CellFailed when a stage fails.
    """
    paths = [Path(path) for path in plugins]
    registry = Registry(paths)
    objective = objective or ("mmcl_ssl" if checkpoint is None else UNKNOWN)
    wanted = cells(
        registry, recipe=recipe, attacks=[attack], objectives=[objective], defenses=[defense],
        seeds=[seed],
    )
    todo = plan(registry, wanted, with_checkpoint(overrides or {}, checkpoint))
    place = Store(None if store is None else Path(store))
    execute(todo, place, paths, listen)
    return read_card(place, todo.cards[wanted[0]])
