"""A small matrix, what it gives on this machine alone, and a look at processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bdbench.execute import NodeEvent, execute, read_card
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card
from bdbench.store import Store

EPOCHS = 12
"""Of the pre-training: long enough to be cut."""


def matrix(processes: int = 1, epochs: int = EPOCHS) -> Plan:
    """Two cells of the recipe `smoke` that share a model."""
    registry = Registry()
    wanted = cells(registry, recipe="smoke", attacks=["badnet"], objectives=["mmcl"],
                   defenses=["none", "finetune"], seeds=[0])
    hardware = {"hardware": {"processes": processes}} if processes > 1 else {}
    return plan(registry, wanted, {"recipe": {"pretrain": {"epochs": epochs}, **hardware}})


@dataclass
class Watched:
    """A listener that remembers; `cut` is called once, when a training has saved an epoch."""

    cut: object = None
    events: list[NodeEvent] = field(default_factory=list)

    def __call__(self, event: NodeEvent) -> None:
        self.events.append(event)
        training = event.kind == "progress" and event.node.stage == "pretrain"
        if training and event.data["epoch"] >= 3 and callable(self.cut):
            cut, self.cut = self.cut, None
            cut()

    @property
    def notes(self) -> list[str]:
        return [event.data["text"] for event in self.events if event.kind == "note"]

    def resumed(self) -> bool:
        """Whether a training went on from pairs that another process had seen."""
        return any(
            event.data["seen"] > event.data["done"] for event in self.events
            if event.kind == "progress" and event.node.stage == "pretrain"
        )


def cards(todo: Plan, store: Store) -> list[object]:
    """The cards, without what differs from run to run."""
    return [read_card(store, key).without_times() for key in todo.cards.values()]


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Card | object]:
    """The cards of the matrix, run on this machine without a cluster."""
    store = Store(tmp_path_factory.mktemp("alone"))
    todo = matrix()
    execute(todo, store)
    return cards(todo, store)


def parent(pid: int) -> int:
    """The process that started another; 0 at the top."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    return int(text.rsplit(")", 1)[1].split()[1])


def workers() -> list[int]:
    """The processes on this machine that run nodes."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"bdbench.worker" in words:
            found.append(int(place.parent.name))
    return found
