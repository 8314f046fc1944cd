"""Where nodes of a plan run: what the executor asks of a machine, a Ray cluster, or Slurm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bdbench.plan import Node, Plan
from bdbench.store import Store


@dataclass(frozen=True)
class Work:
    """What is to run, and all that a node of it needs besides its key."""

    todo: Plan
    waiting: Mapping[str, Node]
    """The nodes that the store lacks, by key."""
    store: Store
    plugins: tuple[Path, ...] = ()

    def job(self, node: Node, gpus: list[int]) -> dict[str, Any]:
        """The line that `bdbench.worker` reads."""
        return {
            "store": str(self.store.root),
            "plugins": [str(path.absolute()) for path in self.plugins],
            "files": self.todo.files, "gpus": gpus, "node": self.todo.job(node),
        }


@dataclass(frozen=True)
class Machine:
    """What runs nodes side by side."""

    cores: int
    gpus: int = 0


@dataclass(frozen=True)
class Looked:
    """What a cluster says of jobs, by their names there."""

    gone: Mapping[str, str]
    """Those that are neither queued nor running any more, with what is known of why."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Those that wait for something else than their turn, with what it says of it."""


def threads_of(node: Node, machines: Sequence[Machine]) -> int:
    """Cores to ask for: those of the node, or all that a machine with its GPUs has; at least 1."""
    most = max((machine.cores for machine in machines if machine.gpus >= node.gpus), default=1)
    return max(1, min(node.threads, most))


class Pool(Protocol):
    """Runs nodes whose inputs are in the store."""

    def full(self) -> bool:
        """Whether there is no room for any node."""

    def fits(self, node: Node) -> bool:
        """Whether there is room for this node now."""

    def start(self, node: Node) -> None:
        """Start a node that fits."""

    def wait(self) -> tuple[Node, dict[str, Any]]:
        """The next thing that a started node has to say; blocks until there is one.

        `event` is `progress`, `note` (with `text`), `done`, `error`, or `died` (with `status`): the
        last three free the node's place.
        """

    def close(self) -> None:
        """Stop whatever runs; what it saved is continued by the next run."""
