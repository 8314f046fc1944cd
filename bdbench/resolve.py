"""A cell with every name looked up and every file addressed: all that its keys depend on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bdbench import wordnet
from bdbench.api import Dataset, Metric, Repair
from bdbench.errors import BdbenchError
from bdbench.hashing import digest
from bdbench.models import architectures, check_resolution, own_config, weights_address
from bdbench.registry import Registry, keyed, near
from bdbench.schema import Cell, Hardware, Kind, Recipe, Ref

Overrides = Mapping[str, Mapping[str, Any]]
"""By attack, objective, defense, dataset or recipe: what `--set` changes."""
OVERRIDABLE = ("attack", "objective", "defense", "dataset", "recipe")
UNKNOWN = "unknown"
"""The objective of a model from elsewhere, where nobody says what it was trained with."""


def with_checkpoint(changes: Overrides, path: object) -> Overrides:
    """The changes with the file of a model trained elsewhere among them; as they are for None."""
    if path is None:
        return changes
    return {**changes, "recipe": {**changes.get("recipe", {}), "checkpoint": str(path)}}


def addressed(changes: Overrides, files: dict[str, str]) -> Overrides:
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


def _needs(registry: Registry, ref: Ref) -> str | None:
    metric = registry.load(registry.entry("metric", ref.name))
    return metric.needs if issubclass(metric, Metric) else None


@dataclass(frozen=True)
class Specs:
    """What the specs of a cell's stages are made of, as JSON has it; not to be changed."""

    recipe: dict[str, Any]
    model: dict[str, Any]
    config: dict[str, Any] | None
    train: dict[str, Any]
    augment: dict[str, Any]
    together: dict[str, Any]
    """The hardware of the pre-training; empty where the recipe says nothing of it."""
    alone: dict[str, Any]
    """That of every other stage, which is one process."""
    components: dict[str, Any]
    metrics: list[dict[str, Any]]
    runs: list[dict[str, float]]
    repairs: list[dict[str, Any]]
    """The identity of the defense at each run of its sweep."""


@dataclass(frozen=True)
class Resolved:
    """A cell with every name looked up: all that its keys depend on besides the seed."""

    recipe: Recipe
    attack: Ref
    objective: Ref
    defense: Ref
    dataset: Ref
    """As it is on the card."""
    data: Ref
    """The dataset, or what is trained on of it."""
    tests: Ref | None
    """What only tests, where it is stored apart."""
    metrics: Sequence[Ref]
    sweep: Mapping[str, Sequence[float]]
    """Of the defense: for each swept field its values, from the gentlest to the most aggressive."""
    seeded: bool
    """Whether the dataset depends on the seed."""
    local: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the dataset that say where the data lie."""
    notes: Sequence[str] = ()
    """Where the recipe could not be followed on this machine; the recipe here is what is run."""

    @cached_property
    def specs(self) -> Specs:
        """Its parts as they are hashed, written out once for all seeds."""
        recipe, identity = self.recipe, self.defense.identity()
        hardware = recipe.hardware or Hardware()
        alone = hardware.model_copy(update={"processes": 1, "batch_norm": "global"})

        def on(one: Hardware) -> dict[str, Any]:
            return {} if recipe.hardware is None else {"hardware": one.model_dump(mode="json")}

        return Specs(
            recipe=recipe.model_dump(mode="json", exclude_none=True),
            model=recipe.model.model_dump(mode="json", exclude={"init"}),
            config=own_config(recipe.model.name),
            train=recipe.training(self.objective.name).model_dump(mode="json"),
            augment=recipe.augment.model_dump(mode="json", exclude_none=True),
            together=on(hardware), alone=on(alone),
            components={
                ref.kind: ref.model_dump(mode="json")
                for ref in (self.attack, self.objective, self.defense, self.dataset)
            },
            metrics=[ref.model_dump(mode="json") for ref in self.metrics],
            runs=self.runs(),
            repairs=[
                identity | {"params": {**self.defense.params, **swept}} for swept in self.runs()
            ],
        )

    def runs(self) -> list[dict[str, float]]:
        """The swept parameters of each run; one empty run where nothing is swept."""
        points = itertools.product(*self.sweep.values())
        return [dict(zip(self.sweep, values, strict=True)) for values in points]


def resolve(
    registry: Registry, cell: Cell, metrics: Sequence[Ref], changes: Overrides,
    contents: dict[str, str],
) -> Resolved:
    """Look every name of a cell up; BdbenchError for anything that could not run.

    `contents` takes the digest of the files of a dataset, by its parameters: other cells have it.
    """
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

    def of(part: Dataset) -> Ref:
        """The part with the digest of its files, where the dataset has one and it is not given."""
        params = keyed(part)
        if params.get("digest") == "":
            which = digest([params, local])
            if which not in contents:
                contents[which] = part.fingerprint()
            params["digest"] = contents[which]
        return dataset_ref.model_copy(update={"params": params})

    halves = [of(half) for half in dataset.halves() or (dataset,)]
    if len(halves) > 1:
        both = digest([half.params["digest"] for half in halves])
        dataset_ref = dataset_ref.model_copy(
            update={"params": dataset_ref.params | {"digest": both}}
        )
    else:
        dataset_ref = halves[0]
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
    processes = recipe.hardware.processes if recipe.hardware else 1
    batch = recipe.training(cell.objective).batch
    if batch % processes:
        raise BdbenchError(
            f"a batch of `{batch}` pairs cannot be shared equally by `{processes}` processes",
            f"--set recipe.pretrain.batch={max(1, batch // processes) * processes}",
        )
    notes = []
    if recipe.augment.synonyms and not wordnet.installed():
        augment = recipe.augment.model_copy(update={"synonyms": False})
        recipe = recipe.model_copy(update={"augment": augment})
        notes.append(
            "nltk finds no WordNet here: captions are augmented without synonyms, and the card says"
            f" so; {wordnet.INSTALL} installs it"
        )
    return Resolved(
        recipe=recipe, attack=attack, objective=objective, defense=defense, dataset=dataset_ref,
        data=halves[0], tests=halves[1] if len(halves) > 1 else None,
        metrics=[ref for ref in metrics if _needs(registry, ref) in (None, *dataset.extras())],
        sweep=sweep, seeded=dataset.seeded, local=local, notes=notes,
    )
