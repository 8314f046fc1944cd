"""Cells to the graph of stages they need, each distinct stage once, in topological order."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from bdbench.environment import DECODERS
from bdbench.errors import BdbenchError
from bdbench.hashing import derive_seed
from bdbench.registry import ALL, Registry, near
from bdbench.resolve import OVERRIDABLE, Overrides, Resolved, addressed, resolve
from bdbench.schema import Cell, Hardware, Kind, Ref
from bdbench.store.artifact import address

StageName = Literal["checkpoint", "data", "poison", "pretrain", "defend", "evaluate", "card"]
STAGES: tuple[StageName, ...] = get_args(StageName)
STAGE_VERSIONS: dict[StageName, int] = dict.fromkeys(STAGES, 1)
"""Raised when a stage's code changes what comes out of the same spec."""


@dataclass(frozen=True)
class Node:
    """One stage to run: its spec and the keys of what it reads."""

    stage: StageName
    label: str
    """For people; not hashed."""
    spec: dict[str, Any]
    inputs: dict[str, str]
    """Keys by role."""
    threads: int = 1
    """CPU threads, of all its processes together."""
    gpus: int = 0
    local: dict[str, Any] = field(default_factory=dict)
    """Fields of the dataset that say where the data lie; not hashed."""

    @cached_property
    def key(self) -> str:
        """The content address: 16 hex digits."""
        return address(self.stage, STAGE_VERSIONS[self.stage], self.spec, self.inputs)


@dataclass
class Plan:
    """De-duplicated nodes, inputs before what reads them."""

    nodes: dict[str, Node] = field(default_factory=dict)
    stages: dict[str, StageName] = field(default_factory=dict)
    """The stage of each key."""
    cards: dict[Cell, str] = field(default_factory=dict)
    """The key of each cell's card."""
    files: dict[str, str] = field(default_factory=dict)
    """Paths of the user's files, by the address that stands for them in the specs."""
    notes: list[str] = field(default_factory=list)
    """Where the recipe could not be followed on this machine; what is planned says so too."""

    def add(self, node: Node) -> str:
        """Add a node unless it is there; returns its key."""
        self.nodes.setdefault(node.key, node)
        self.stages[node.key] = node.stage
        return node.key

    def job(self, node: Node) -> dict[str, Any]:
        """What `bdbench.worker` needs to run a node, as JSON has it."""
        return {
            "stage": node.stage, "key": node.key, "label": node.label, "spec": node.spec,
            "local": node.local,
            "inputs": {role: [self.stages[key], key] for role, key in node.inputs.items()},
        }


def cells(
    registry: Registry, *, recipe: str, attacks: Sequence[str], objectives: Sequence[str],
    defenses: Sequence[str], seeds: Sequence[int],
) -> list[Cell]:
    """All combinations; `all` stands for every registered name."""
    def names(kind: Kind, given: Sequence[str]) -> list[str]:
        known = [entry.name for entry in registry.entries(kind)]
        return list(dict.fromkeys(known if ALL in given else given))

    return [
        Cell(recipe=recipe, attack=attack, objective=objective, defense=defense, seed=seed)
        for attack in names("attack", attacks)
        for objective in names("objective", objectives)
        for defense in names("defense", defenses)
        for seed in dict.fromkeys(seeds)
    ]


def plan(registry: Registry, wanted: Iterable[Cell], overrides: Overrides | None = None) -> Plan:
    """The stages of all cells; BdbenchError for anything that could not run."""
    changes = overrides or {}
    for kind in changes:
        if kind not in OVERRIDABLE:
            raise BdbenchError(f"`{kind}` cannot be set", near(kind, OVERRIDABLE))
    result = Plan()
    changes = addressed(changes, result.files)
    metrics = [registry.resolve("metric", entry.name)[0] for entry in registry.entries("metric")]
    known: dict[Cell, Resolved] = {}
    contents: dict[str, str] = {}
    with _uncollected():
        for cell in wanted:
            anywhere = cell.model_copy(update={"seed": 0})
            if anywhere not in known:
                known[anywhere] = resolve(registry, anywhere, metrics, changes, contents)
            found = known[anywhere]
            result.notes += [note for note in found.notes if note not in result.notes]
            result.cards[cell] = add_cell(result, cell, found, changes.get("recipe"))
    return result


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the collector of cycles from walking a growing plan, which has none, over and over.

    It would take two fifths of the time of ten thousand cells.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def add_cell(
    result: Plan, cell: Cell, found: Resolved, overridden: Mapping[str, Any] | None = None
) -> str:
    """Add the stages of a cell to a plan; returns the key of its card."""
    recipe, shared = found.recipe, found.specs
    seeds = {name: derive_seed(cell.seed, name) for name in ("poison", "pretrain", "defend")}
    seeds["data"] = derive_seed(cell.seed, "data") if found.seeded else 0
    where = f"{cell.attack} / {cell.objective}"
    threads = recipe.threads
    hardware = recipe.hardware or Hardware()
    gpu = hardware.device == "cuda"

    def weights(source: str) -> str:
        return result.add(Node("checkpoint", f"{recipe.model.name} from {source[:23]}", {
            "model": shared.model, "source": source, "resolution": recipe.resolution,
        }, {}))

    def stored(label: str, ref: Ref) -> str:
        return result.add(Node("data", label, {
            "dataset": ref.identity(), "resolution": recipe.resolution, "seed": seeds["data"],
        }, {}, 1 if found.seeded else DECODERS, local=dict(found.local)))

    data = stored(recipe.dataset, found.data)
    tests = {} if found.tests is None else {
        "tests": stored(f"{recipe.dataset} / tests", found.tests)
    }
    poison = result.add(Node("poison", cell.attack, {
        "attack": found.attack.identity(), "target": recipe.target, "seed": seeds["poison"],
        **({"trigger_only": True} if recipe.checkpoint else {}),
    }, {"data": data}))
    init = {"init": weights(recipe.model.init)} if recipe.model.init else {}
    pretrain = weights(recipe.checkpoint) if recipe.checkpoint else result.add(Node(
        "pretrain", where, {
            "model": shared.model, "config": shared.config,
            "objective": found.objective.identity(), "train": shared.train,
            "augment": shared.augment, "threads": threads.pretrain, "seed": seeds["pretrain"],
            **shared.together,
        }, {"data": data, "poison": poison, **init},
        threads.pretrain * hardware.processes, gpu * hardware.processes,
    ))

    def evaluation(label: str, model: str) -> str:
        return result.add(Node(
            "evaluate", label,
            {"batch": recipe.eval_batch, "threads": threads.defend, **shared.alone},
            {"data": data, **tests, "poison": poison, "model": model}, threads.defend, gpu * 1,
        ))

    inputs = {"data": data, **tests, "poison": poison, **init, "pretrain": pretrain,
              "start": evaluation(f"{where} / start", pretrain)}
    for i, (swept, repair) in enumerate(zip(shared.runs, shared.repairs, strict=True)):
        point = " ".join(f"{name}={value:g}" for name, value in swept.items())
        label = f"{where} / {cell.defense}{' ' if point else ''}{point}"
        inputs[f"defend{i}"] = result.add(Node("defend", label, {
            "defense": repair, "budget": recipe.budget.pairs, "augment": shared.augment,
            "threads": threads.defend, "seed": seeds["defend"], **shared.alone,
        }, {"data": data, "pretrain": pretrain}, threads.defend, gpu * 1))
        inputs[f"run{i}"] = evaluation(label, inputs[f"defend{i}"])
    return result.add(Node("card", f"{where} / {cell.defense} / seed {cell.seed}", {
        "cell": cell.model_dump(mode="json"), "components": shared.components,
        "metrics": shared.metrics, "recipe": shared.recipe, "overridden": dict(overridden or {}),
        "seeds": seeds, "runs": shared.runs,
        "default": {name: found.defense.params[name] for name in found.sweep},
    }, inputs))
