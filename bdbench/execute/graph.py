"""The nodes that are left of a plan: which are ready, and what falls with one that failed."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from bdbench.execute.pool import Pool
from bdbench.plan import Node


@dataclass
class Graph:
    """The nodes that the store lacks, each until it is done or cannot be."""

    waiting: Mapping[str, Node]
    """In the order of the plan, which is the order in which ready ones are started."""
    left: set[str] = field(init=False)
    """Neither done nor given up."""
    _readers: dict[str, list[str]] = field(init=False)
    _lacks: dict[str, int] = field(init=False)
    """How many inputs of a node are not there yet."""
    _ready: list[tuple[int, str]] = field(init=False)
    _data: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.left = set(self.waiting)
        self._place = {key: place for place, key in enumerate(self.waiting)}
        self._readers, self._lacks = defaultdict(list), {}
        for key, node in self.waiting.items():
            inputs = {other for other in node.inputs.values() if other in self.left}
            self._lacks[key] = len(inputs)
            for other in inputs:
                self._readers[other].append(key)
        self._ready = [(self._place[key], key) for key, n in self._lacks.items() if n == 0]
        self._data = {key for key, node in self.waiting.items() if node.stage == "data"}

    @property
    def data_left(self) -> bool:
        """Whether data are missing, for all of which everything else waits: it may be refused."""
        return bool(self._data)

    def next(self, pool: Pool) -> Node | None:
        """Take the first ready node that the pool has room for."""
        passed, found = [], None
        while self._ready and found is None and not pool.full():
            place = heapq.heappop(self._ready)
            node = self.waiting[place[1]]
            held = self._data and node.stage not in ("data", "checkpoint")
            if held or not pool.fits(node):
                passed.append(place)
            else:
                found = node
        for place in passed:
            heapq.heappush(self._ready, place)
        return found

    def done(self, node: Node) -> None:
        """What reads it may be ready now."""
        self.left.discard(node.key)
        self._data.discard(node.key)
        for key in self._readers[node.key]:
            self._lacks[key] -= 1
            if self._lacks[key] == 0:
                heapq.heappush(self._ready, (self._place[key], key))

    def give_up(self, node: Node) -> list[Node]:
        """Leave a node out with all that reads it; returns the latter."""
        fallen, doomed = [], [node.key]
        while doomed:
            key = doomed.pop()
            if key in self.left:
                self.left.discard(key)
                self._data.discard(key)
                fallen.append(self.waiting[key])
                doomed += self._readers[key]
        return fallen[1:]
