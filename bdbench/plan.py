"""Cells to the graph of stages they need, each distinct stage once, in topological order."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from bdbench import wordnet
from bdbench.api import Dataset, Repair
from bdbench.errors import BdbenchError
from bdbench.hashing import derive_seed, key_of
from bdbench.registry import MODEL_CONFIGS, Registry, near, own_config
from bdbench.schema import Cell, Kind, Recipe, Ref

StageName = Literal["data", "poison", "pretrain", "defend", "evaluate", "card"]
STAGES: tuple[StageName, ...] = get_args(StageName)
STAGE_VERSIONS: dict[StageName, int] = dict.fromkeys(STAGES, 1)
"""Raised when a stage's code changes what comes out of the same spec."""

Overrides = Mapping[str, Mapping[str, Any]]
"""By attack, objective, defense, dataset or recipe: what `--set` changes."""
OVERRIDABLE = ("attack", "objective", "defense", "dataset", "recipe")


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

    @cached_property
    def key(self) -> str:
        """The content address: 16 hex digits."""
        return key_of({
            "stage": self.stage, "version": STAGE_VERSIONS[self.stage], "spec": self.spec,
            "inputs": self.inputs,
        })


@dataclass
class Plan:
    """De-duplicated nodes, inputs before what reads them."""

    nodes: dict[str, Node] = field(default_factory=dict)
    stages: dict[str, StageName] = field(default_factory=dict)
    """The stage of each key."""
    cards: dict[Cell, str] = field(default_factory=dict)
    """The key of each cell's card."""
    notes: list[str] = field(default_factory=list)
    """Where the recipe could not be followed on this machine; what is planned says so too."""

    def add(self, node: Node) -> str:
        """Add a node unless it is there; returns its key."""
        self.nodes.setdefault(node.key, node)
        self.stages[node.key] = node.stage
        return node.key


def cells(
    registry: Registry, *, recipe: str, attacks: Sequence[str], objectives: Sequence[str],
    defenses: Sequence[str], seeds: Sequence[int],
) -> list[Cell]:
    """All combinations; `all` stands for every registered name."""
    def names(kind: Kind, given: Sequence[str]) -> list[str]:
        known = [entry.name for entry in registry.entries(kind)]
        return list(dict.fromkeys(known if "all" in given else given))

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
    metrics = [registry.resolve("metric", entry.name)[0] for entry in registry.entries("metric")]
    for cell in wanted:
        found = resolve(registry, cell, metrics, changes)
        if found.recipe.augment.synonyms and not wordnet.installed():
            found = replace(found, recipe=_without_synonyms(found.recipe))
            result.notes = [
                "nltk finds no WordNet here: captions are augmented without synonyms, and the card"
                f" says so; {wordnet.INSTALL} installs it"
            ]
        result.cards[cell] = add_cell(result, cell, found, changes.get("recipe"))
    return result


def _without_synonyms(recipe: Recipe) -> Recipe:
    augment = recipe.augment.model_copy(update={"synonyms": False})
    return recipe.model_copy(update={"augment": augment})


@cache
def architectures() -> list[str]:
    """The names that open_clip and we have a model configuration for; imports neither."""
    spec = importlib.util.find_spec("open_clip")
    theirs = Path(spec.origin).parent / "model_configs" if spec and spec.origin else MODEL_CONFIGS
    return sorted({path.stem for place in (MODEL_CONFIGS, theirs) for path in place.glob("*.json")})


@dataclass(frozen=True)
class Resolved:
    """A cell with every name looked up: all that its keys depend on besides the seed."""

    recipe: Recipe
    attack: Ref
    objective: Ref
    defense: Ref
    dataset: Ref
    metrics: Sequence[Ref]
    sweep: Mapping[str, Sequence[float]]
    """Of the defense: for each swept field its values, from the gentlest to the most aggressive."""
    seeded: bool
    """Whether the dataset depends on the seed."""

    def runs(self) -> list[dict[str, float]]:
        """The swept parameters of each run; one empty run where nothing is swept."""
        points = itertools.product(*self.sweep.values())
        return [dict(zip(self.sweep, values, strict=True)) for values in points]


def resolve(
    registry: Registry, cell: Cell, metrics: Sequence[Ref], changes: Overrides
) -> Resolved:
    """Look every name of a cell up; BdbenchError for anything that could not run."""
    recipe = registry.recipe(cell.recipe, changes.get("recipe"))

    def find(kind: Kind, name: str) -> tuple[Ref, dict[str, tuple[float, ...]]]:
        defaults = getattr(recipe, f"{kind}s").get(name)
        return registry.resolve(kind, name, defaults, changes.get(kind))

    dataset_ref, _ = find("dataset", recipe.dataset)
    attack, _ = find("attack", cell.attack)
    objective, _ = find("objective", cell.objective)
    defense, sweep = find("defense", cell.defense)
    dataset = registry.build("dataset", dataset_ref.identity())
    role = registry.load(registry.entry("defense", cell.defense))
    if not issubclass(role, Repair):
        raise BdbenchError(
            f"defense `{cell.defense}` is no repair, and this version runs repairs only",
            "derive it from `bdbench.api.Repair`",
        )
    if not isinstance(dataset, Dataset) or recipe.target not in dataset.classes():
        raise BdbenchError(
            f"the target `{recipe.target}` is not a class of dataset `{recipe.dataset}`",
            near(recipe.target, dataset.classes() if isinstance(dataset, Dataset) else []),
        )
    if recipe.model.name not in architectures():
        raise BdbenchError(
            f"`recipe.model.name` = `{recipe.model.name}` is no model of open_clip",
            near(recipe.model.name, architectures()),
        )
    return Resolved(
        recipe=recipe, attack=attack, objective=objective, defense=defense, dataset=dataset_ref,
        metrics=metrics, sweep=sweep, seeded=dataset.seeded,
    )


def add_cell(
    result: Plan, cell: Cell, found: Resolved, overridden: Mapping[str, Any] | None = None
) -> str:
    """Add the stages of a cell to a plan; returns the key of its card."""
    recipe, attack, objective, defense = (
        found.recipe, found.attack, found.objective, found.defense
    )
    seeds = {name: derive_seed(cell.seed, name) for name in ("poison", "pretrain", "defend")}
    seeds["data"] = derive_seed(cell.seed, "data") if found.seeded else 0
    where = f"{cell.attack} / {cell.objective}"
    augment = recipe.augment.model_dump(mode="json", exclude_none=True)
    threads = recipe.threads

    data = result.add(Node("data", recipe.dataset, {
        "dataset": found.dataset.identity(), "resolution": recipe.resolution,
        "seed": seeds["data"],
    }, {}))
    poison = result.add(Node("poison", cell.attack, {
        "attack": attack.identity(), "target": recipe.target, "seed": seeds["poison"],
    }, {"data": data}))
    pretrain = result.add(Node("pretrain", where, {
        "model": recipe.model.model_dump(mode="json"), "config": own_config(recipe.model.name),
        "objective": objective.identity(),
        "train": recipe.pretrain.model_dump(mode="json"), "augment": augment,
        "threads": threads.pretrain, "seed": seeds["pretrain"],
    }, {"data": data, "poison": poison}, threads.pretrain))

    def evaluation(label: str, model: str) -> str:
        return result.add(Node(
            "evaluate", label, {"batch": recipe.eval_batch, "threads": threads.defend},
            {"data": data, "poison": poison, "model": model}, threads.defend,
        ))

    inputs = {"data": data, "poison": poison, "pretrain": pretrain,
              "start": evaluation(f"{where} / start", pretrain)}
    runs = found.runs()
    for i, swept in enumerate(runs):
        identity = defense.identity() | {"params": {**defense.params, **swept}}
        point = " ".join(f"{name}={value:g}" for name, value in swept.items())
        label = f"{where} / {cell.defense}{' ' if point else ''}{point}"
        inputs[f"defend{i}"] = result.add(Node("defend", label, {
            "defense": identity, "budget": recipe.budget.pairs, "augment": augment,
            "threads": threads.defend, "seed": seeds["defend"],
        }, {"data": data, "pretrain": pretrain}, threads.defend))
        inputs[f"run{i}"] = evaluation(label, inputs[f"defend{i}"])
    return result.add(Node("card", f"{where} / {cell.defense} / seed {cell.seed}", {
        "cell": cell.model_dump(mode="json"),
        "components": {
            ref.kind: ref.model_dump(mode="json")
            for ref in (attack, objective, defense, found.dataset)
        },
        "metrics": [ref.model_dump(mode="json") for ref in found.metrics],
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "overridden": dict(overridden or {}),
        "seeds": seeds,
        "runs": runs,
        "default": {name: defense.params[name] for name in found.sweep},
    }, inputs))

