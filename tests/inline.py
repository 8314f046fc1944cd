"""Nodes in the process of the tests, which has what each new worker would import for seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from bdbench.execute.pool import Work
from bdbench.plan import Node
from bdbench.worker import work


class Inline:
    """A `Pool` for one node at a time, whose progress is told when it has ended."""

    def __init__(self, given: Work) -> None:
        self._given = given
        self._said: deque[tuple[Node, dict[str, Any]]] = deque()

    def full(self) -> bool:
        return bool(self._said)

    def fits(self, node: Node) -> bool:
        return not self._said

    def start(self, node: Node) -> None:
        threads = torch.get_num_threads()
        job = self._given.job(node, list(range(node.gpus)))
        work(job, lambda event: self._said.append((node, event)))
        torch.set_num_threads(threads)

    def wait(self) -> tuple[Node, dict[str, Any]]:
        return self._said.popleft()

    def close(self) -> None:
        pass


@contextmanager
def inlined() -> Iterator[None]:
    """Run what would run on this machine in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bdbench.execute.Here", Inline)
        yield
