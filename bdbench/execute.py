"""Run a plan on this machine: every missing node once, independent ones side by side."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bdbench.admit import admit
from bdbench.environment import cores
from bdbench.errors import BdbenchError, CellFailed
from bdbench.plan import Node, Plan, cells, plan
from bdbench.registry import Registry
from bdbench.resolve import UNKNOWN, Overrides, with_checkpoint
from bdbench.schema import Card
from bdbench.store import Store

_WARM = 2
"""Workers started ahead, while the first stages run; more follow when there is work for them."""


@dataclass(frozen=True)
class NodeEvent:
    """Something to tell about a node: reused, started, progress, done or note."""

    kind: str
    node: Node
    data: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[NodeEvent], None]


class _Worker:
    """A `bdbench.worker` process and the node it is at."""

    def __init__(
        self, events: queue.Queue[tuple[_Worker, dict[str, Any] | None]], warm: bool
    ) -> None:
        self.node: Node | None = None
        self.gpus: list[int] = []
        # Each stage sets its own thread count; until then no library may start a thread per core.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # Without -P a method's file here could hide a module: `random.py` is a fair name for one.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bdbench.worker", *["warm"] * warm],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, events: queue.Queue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            events.put((self, json.loads(line)))
        events.put((self, None))

    def start(
        self, node: Node, gpus: Sequence[int], store: Store, plugins: Sequence[Path], todo: Plan
    ) -> None:
        self.node, self.gpus = node, list(gpus)
        job = {
            "store": str(store.root), "plugins": [str(path.absolute()) for path in plugins],
            "files": todo.files, "gpus": self.gpus,
            "node": todo.job(node),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def stop(self) -> int:
        """Kill the process; what it saved is continued by the next run. Returns its exit status."""
        self._process.kill()
        return self._process.wait()


def execute(
    todo: Plan, store: Store, plugins: Sequence[Path] = (),
    listen: Listener = lambda event: None, strict: bool = False,
) -> None:
    """Run every node of the plan that the store lacks; CellFailed at the first that fails.

    `strict`: BdbenchError, before any training, where files of the dataset cannot be used.
    """
    store.prepare()
    waiting: dict[str, Node] = {}
    for key, node in todo.nodes.items():
        if store.find(node.stage, key) is None:
            waiting[key] = node
        else:
            listen(NodeEvent("reused", node))
    _tell_notes(store, todo, listen)
    if not _data(waiting.values()):
        _admit(store, todo, strict, listen)
    if not waiting:
        return
    gpus = _gpus(waiting.values())
    with store.in_use():
        _work(todo, waiting, gpus, store, plugins, listen, strict)


def _gpus(nodes: Iterable[Node]) -> list[int]:
    """The GPUs that may be used, if any of the nodes wants one; BdbenchError if it wants more."""
    most = max(node.gpus for node in nodes)
    if most == 0:
        return []
    # In a process of its own: torch takes seconds to import, and a GPU once it is initialised.
    count = "import torch; print(torch.cuda.device_count())"
    asked = subprocess.run(
        [sys.executable, "-P", "-c", count], capture_output=True, text=True, check=True
    )
    found = int(asked.stdout.split()[-1])
    if found < most:
        how = (
            "`--set recipe.hardware.device=cpu`, which is much slower" if found == 0 else
            f"`--set recipe.hardware.processes={found}`"
        )
        raise BdbenchError(f"the recipe asks for `{most}` GPUs, and torch finds `{found}`", how)
    return list(range(found))


def _work(
    todo: Plan, waiting: dict[str, Node], gpus: list[int], store: Store, plugins: Sequence[Path],
    listen: Listener, strict: bool,
) -> None:
    """Run the waiting nodes, as many at a time as there are cores for their threads, and GPUs."""
    events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
    free = total = cores()
    models = sum(node.stage in ("pretrain", "defend", "evaluate") for node in waiting.values())
    workers = [_Worker(events, warm=models > 0) for _ in range(max(1, min(total, models, _WARM)))]
    idle, missing = list(workers), set(waiting)
    data = _data(waiting.values())
    try:
        while missing:
            for key, node in list(waiting.items()):
                threads = min(node.threads, total)
                if threads > free or node.gpus > len(gpus):
                    continue
                if not missing.isdisjoint(node.inputs.values()):
                    continue
                if data and node.stage not in ("data", "checkpoint"):
                    continue
                if not idle:
                    workers.append(_Worker(events, warm=False))
                    idle.append(workers[-1])
                worker = idle.pop()
                free -= threads
                del waiting[key]
                listen(NodeEvent("started", node))
                given, gpus[:] = gpus[: node.gpus], gpus[node.gpus :]
                worker.start(node, given, store, plugins, todo)
            worker, event = events.get()
            if worker.node is None:
                raise CellFailed("a worker process died at its start", "see the messages above")
            node = worker.node
            if event is None:
                raise CellFailed(
                    f"the process of {node.stage} `{node.label}` died with status"
                    f" `{worker.stop()}`",
                    "run the same command again: it continues; a status of -9 is often too little"
                    " memory",
                )
            if event["event"] == "error":
                error = CellFailed if event["exit_code"] == 1 else BdbenchError
                text = f"{node.stage} `{node.label}` failed: {event['message']}"
                raise error(text, event["hint"])
            if event["event"] == "progress":
                listen(NodeEvent("progress", node, event))
                continue
            for note in event["notes"]:
                listen(NodeEvent("note", node, {"text": note}))
            listen(NodeEvent("reused" if event["reused"] else "done", node))
            missing.discard(node.key)
            if node.key in data:
                data.discard(node.key)
                if not data:
                    _admit(store, todo, strict, listen)
            free += min(node.threads, total)
            gpus += worker.gpus
            worker.node = None
            idle.append(worker)
    finally:
        for worker in workers:
            worker.stop()


def _data(nodes: Iterable[Node]) -> set[str]:
    """The keys of the data, for all of which everything else waits: it may not be admitted."""
    return {node.key for node in nodes if node.stage == "data"}


def _admit(store: Store, todo: Plan, strict: bool, listen: Listener) -> None:
    for node, text in admit(store, todo, strict):
        listen(NodeEvent("note", node, {"text": text}))


def _tell_notes(store: Store, todo: Plan, listen: Listener) -> None:
    for note in store.notes:
        listen(NodeEvent("note", next(iter(todo.nodes.values())), {"text": note}))
    store.notes.clear()


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
