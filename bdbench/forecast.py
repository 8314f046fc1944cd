"""What a plan will cost: work, hours on given machines, storage and traffic, by a simulated run."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bdbench.execute.graph import Graph
from bdbench.execute.pool import Machine
from bdbench.hashing import digest
from bdbench.plan import Node, Plan
from bdbench.store import PULLED, Store

_NO_COST = {"seed", "attack", "target"}
"""Fields of a spec that do not move what a stage costs."""


@dataclass(frozen=True)
class Cost:
    """Of one node."""

    seconds: float
    """On the cores and GPUs that it asks for."""
    bytes: int
    """That it leaves in the store."""
    read: int = 0
    """Bytes that it reads there; as measured, each of its inputs once and whole."""


@dataclass(frozen=True)
class Forecast:
    """What is left of a plan, as far as its costs are known."""

    work: Mapping[str, float]
    """Seconds by stage, one after the other."""
    stored: Mapping[str, int]
    """Bytes by stage."""
    unknown: Mapping[str, int]
    """Nodes by stage whose like was never run; they are counted as nothing."""
    wall: float
    """Seconds on the machines."""
    busy: float
    """Share of that time that the GPUs, or without any the cores, are at work."""
    traffic: int
    """Bytes written to the store and read from it."""


def measured(todo: Plan, store: Store) -> dict[str, Cost]:
    """The cost of each node whose like has run: the median over its likes in the store.

    What was pulled is left out: it took its time elsewhere. Alike are nodes of one stage whose
    specs, and those of all they read, differ in seeds, names and fractions (a learning rate, a
    poison rate), but in no whole number (epochs, pairs, a batch).
    """
    artifacts = {found.manifest.key: found for found in store.artifacts()}
    elsewhere = {path.name for path in (store.root / PULLED).glob("*")}
    likes: dict[str, list[Cost]] = defaultdict(list)
    known: dict[str, str | None] = {}

    def stored_like(key: str) -> str | None:
        """None where something that it was made from is gone."""
        if key not in known:
            found = artifacts.get(key)
            inputs = {} if found is None else {
                role: stored_like(other) for role, other in found.manifest.inputs.items()
            }
            known[key] = None if found is None or None in inputs.values() else _like(
                found.manifest.stage, found.manifest.spec, inputs
            )
        return known[key]

    for key, found in artifacts.items():
        like = stored_like(key)
        if like is not None and key not in elsewhere:
            read = sum(artifacts[other].size for other in found.manifest.inputs.values())
            likes[like].append(Cost(found.manifest.seconds, found.size, read))
    planned: dict[str, str] = {}
    costs = {}
    for key, node in todo.nodes.items():
        inputs = {role: planned[other] for role, other in node.inputs.items()}
        planned[key] = _like(node.stage, node.spec, inputs)
        if planned[key] in likes:
            found_costs = likes[planned[key]]
            costs[key] = Cost(
                median(cost.seconds for cost in found_costs),
                round(median(cost.bytes for cost in found_costs)),
                round(median(cost.read for cost in found_costs)),
            )
    return costs


def _like(stage: str, spec: Mapping[str, Any], inputs: Mapping[str, str | None]) -> str:
    if stage == "card":
        return stage
    return digest([stage, _whole(spec), inputs])


def _whole(value: Any) -> Any:
    """A spec without what does not move the cost."""
    if isinstance(value, Mapping):
        return {
            name: _whole(part) for name, part in value.items()
            if name not in _NO_COST and not isinstance(part, float)
        }
    return [_whole(part) for part in value] if isinstance(value, list | tuple) else value


@dataclass
class _Simulated:
    """A `Pool` on which a node takes the seconds that it costs, of a clock of its own."""

    machines: Sequence[Machine]
    costs: Mapping[str, Cost]
    now: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    _free: list[list[int]] = field(init=False)
    _running: list[tuple[float, int, Node, int]] = field(default_factory=list)
    _started: int = 0

    def __post_init__(self) -> None:
        self._free = [[machine.cores, machine.gpus] for machine in self.machines]

    def full(self) -> bool:
        """Whether no core is free anywhere."""
        return all(cores == 0 for cores, _ in self._free)

    def _machine(self, node: Node) -> int | None:
        """The first machine with room; one that has too few cores gives all it has."""
        for i, ((cores, gpus), whole) in enumerate(zip(self._free, self.machines, strict=True)):
            if cores >= min(node.threads, whole.cores) and gpus >= node.gpus:
                return i
        return None

    def fits(self, node: Node) -> bool:
        """Whether a machine has room."""
        return self._machine(node) is not None

    def start(self, node: Node) -> None:
        """Put it on that machine until its time is over."""
        place = self._machine(node)
        assert place is not None
        seconds = self.costs[node.key].seconds if node.key in self.costs else 0.0
        threads = min(node.threads, self.machines[place].cores)
        self._free[place][0] -= threads
        self._free[place][1] -= node.gpus
        self.core_seconds += seconds * threads
        self.gpu_seconds += seconds * node.gpus
        self._started += 1
        heapq.heappush(self._running, (self.now + seconds, self._started, node, place))

    def wait(self) -> tuple[Node, dict[str, Any]]:
        """Turn the clock to the end of the node that ends first."""
        self.now, _, node, place = heapq.heappop(self._running)
        self._free[place][0] += min(node.threads, self.machines[place].cores)
        self._free[place][1] += node.gpus
        return node, {"event": "done"}

    def close(self) -> None:
        """There is nothing to stop."""


def forecast(
    todo: Plan, waiting: Mapping[str, Node], costs: Mapping[str, Cost],
    machines: Sequence[Machine],
) -> Forecast:
    """Run the waiting nodes in simulation, in the order in which `execute` starts them.

    The share of time at work, and so the hours, know nothing of queues, failures and the network.
    """
    graph, pool = Graph(waiting), _Simulated(machines, costs)
    running = 0
    while graph.left:
        while (node := graph.next(pool)) is not None:
            pool.start(node)
            running += 1
        assert running, "no machine has the GPUs that a node asks for"
        graph.done(pool.wait()[0])
        running -= 1
    work: defaultdict[str, float] = defaultdict(float)
    stored: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    traffic = 0
    for key, node in waiting.items():
        if key not in costs:
            unknown[node.stage] += 1
            continue
        work[node.stage] += costs[key].seconds
        stored[node.stage] += costs[key].bytes
        traffic += costs[key].bytes + costs[key].read
    gpus = sum(machine.gpus for machine in machines)
    capacity = pool.now * (gpus or sum(machine.cores for machine in machines))
    used = pool.gpu_seconds if gpus else pool.core_seconds
    return Forecast(
        work, stored, unknown, pool.now, used / capacity if capacity else 0.0, traffic
    )
