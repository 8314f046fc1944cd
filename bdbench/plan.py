"""Cells to the graph of stages they need, each distinct stage once, in topological order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from bdbench.api import Dataset, Repair
from bdbench.errors import BdbenchError
from bdbench.hashing import derive_seed, key_of
from bdbench.models import architectures, check_resolution, own_config, weights_address
from bdbench.registry import ALL, Registry, near
from bdbench.schema import Cell, Kind, Recipe, Ref

StageName = Literal["checkpoint", "data", "poison", "pretrain", "defend", "evaluate", "card"]
STAGES: tuple[StageName, ...] = get_args(StageName)
STAGE_VERSIONS: dict[StageName, int] = dict.fromkeys(STAGES, 1)
"""Raised when a stage's code changes what comes out of the same spec."""

Overrides = Mapping[str, Mapping[str, Any]]
"""By attack, objective, defense, dataset or recipe: what `--set` changes."""
OVERRIDABLE = ("attack", "objective", "defense", "dataset", "recipe")
UNKNOWN = "unknown"
"""The objective of a model from elsewhere, where nobody says what it was trained with."""


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
    local: dict[str, Any] = field(default_factory=dict)
    """Fields of the dataset that say where the data lie; not hashed."""

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
    files: dict[str, str] = field(default_factory=dict)
    """Paths of the user's files, by the address that stands for them in the specs."""

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
    changes = _addressed(changes, result.files)
    metrics = [registry.resolve("metric", entry.name)[0] for entry in registry.entries("metric")]
    for cell in wanted:
        found = resolve(registry, cell, metrics, changes)
        result.cards[cell] = add_cell(result, cell, found, changes.get("recipe"))
    return result


def with_checkpoint(changes: Overrides, path: object) -> Overrides:
    """The changes with the file of a model trained elsewhere among them; as they are for None."""
    if path is None:
        return changes
    return {**changes, "recipe": {**changes.get("recipe", {}), "checkpoint": str(path)}}


def _addressed(changes: Overrides, files: dict[str, str]) -> Overrides:
    """The changes with the address of every file of weights in place of its path.

    `files` takes the paths. Weights from elsewhere have no vocabulary of words, so naming some sets
    the tokenizer of their architecture.
    """
    recipe = dict(changes.get("recipe", {}))
    given = recipe.get("model", {})
    model = {"name": given} if isinstance(given, str) else dict(given)
    found = False
    for table, name in ((recipe, "checkpoint"), (model, "init")):
        if table.get(name) is not None:
            table[name], path = weights_address(str(table[name]))
            files.update({table[name]: str(path)} if path else {})
            found = True
    if not found:
        return changes
    return {**changes, "recipe": {**recipe, "model": {"tokenizer": "open_clip", **model}}}


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
    local: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the dataset that say where the data lie."""

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

    place = registry.load(registry.entry("dataset", recipe.dataset))
    hidden = place.local if issubclass(place, Dataset) else frozenset()
    given = changes.get("dataset", {})
    local = {name: value for name, value in given.items() if name in hidden}
    dataset_ref, _ = find("dataset", recipe.dataset)
    attack, _ = find("attack", cell.attack)
    if recipe.checkpoint is not None and cell.objective == UNKNOWN:
        objective = Ref(kind="objective", name=UNKNOWN, use="")
    else:
        objective, _ = find("objective", cell.objective)
    defense, sweep = find("defense", cell.defense)
    dataset = registry.build("dataset", dataset_ref.identity(), local)
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
    if dataset_ref.params.get("digest") == "":
        params = dataset_ref.params | {"digest": dataset.fingerprint()}
        dataset_ref = dataset_ref.model_copy(update={"params": params})
    check_resolution(recipe.model.name, recipe.resolution)
    if recipe.checkpoint is not None and recipe.model.init is not None:
        raise BdbenchError(
            f"`{cell.recipe}` names weights to start training from, `{recipe.model.init}`, and a"
            " model that is not trained here", "leave `--checkpoint` or `recipe.model.init` out",
        )
    words = recipe.model.tokenizer == "words" or own_config(recipe.model.name) is not None
    if words and (recipe.checkpoint or recipe.model.init):
        raise BdbenchError(
            f"`{recipe.model.name}` is to read with a vocabulary of words, which no file of weights"
            " holds", "name the model of the file: `bdbench run --set recipe.model=RN50`",
        )
    return Resolved(
        recipe=recipe, attack=attack, objective=objective, defense=defense, dataset=dataset_ref,
        metrics=metrics, sweep=sweep, seeded=dataset.seeded, local=local,
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
    augment, threads = recipe.augment.model_dump(mode="json"), recipe.threads
    model = recipe.model.model_dump(mode="json", exclude={"init"})

    def weights(source: str) -> str:
        return result.add(Node("checkpoint", f"{recipe.model.name} from {source[:23]}", {
            "model": model, "source": source, "resolution": recipe.resolution,
        }, {}))

    data = result.add(Node("data", recipe.dataset, {
        "dataset": found.dataset.identity(), "resolution": recipe.resolution,
        "seed": seeds["data"],
    }, {}, local=dict(found.local)))
    poison = result.add(Node("poison", cell.attack, {
        "attack": attack.identity(), "target": recipe.target, "seed": seeds["poison"],
        **({"trigger_only": True} if recipe.checkpoint else {}),
    }, {"data": data}))
    init = {"init": weights(recipe.model.init)} if recipe.model.init else {}
    pretrain = weights(recipe.checkpoint) if recipe.checkpoint else result.add(Node(
        "pretrain", where, {
            "model": model, "config": own_config(recipe.model.name),
            "objective": objective.identity(),
            "train": recipe.pretrain.model_dump(mode="json"), "augment": augment,
            "threads": threads.pretrain, "seed": seeds["pretrain"],
        }, {"data": data, "poison": poison, **init}, threads.pretrain,
    ))

    def evaluation(label: str, model: str) -> str:
        return result.add(Node(
            "evaluate", label, {"batch": recipe.eval_batch, "threads": threads.defend},
            {"data": data, "poison": poison, "model": model}, threads.defend,
        ))

    inputs = {"data": data, "poison": poison, **init, "pretrain": pretrain,
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

