"""The information barrier: nothing that a defense is handed leads to the attack."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import gc
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bdbench.api import Attack, Target
from bdbench.attacks.badnet import BadNet
from bdbench.data import PoisonedPairs, Trigger
from bdbench.data.captions import Captions
from bdbench.execute import run
from bdbench.plan import Node, Plan, cells, plan
from bdbench.registry import Registry
from bdbench.registry.entry import Entry
from bdbench.schema import Card
from bdbench.stages import Context
from bdbench.stages.defend import run as defend
from bdbench.store import Artifact, Store
from bdbench.worker import run_node
from tests.inline import inlined

SPY = """
    from bdbench import register
    from bdbench.api import Repair
    from bdbench.objectives.mmcl import Mmcl
    from bdbench.schema import Training

    SEEN = []

    @register("spy")
    class Spy(Repair):
        def repair(self, clip, budget):
            trained = budget.fit(clip, Mmcl(), Training(epochs=1, batch=32, lr=1e-3))
            SEEN.append((clip, budget))
            return trained
"""
FORBIDDEN = (Attack, Trigger, PoisonedPairs, Target, Registry, Store, Context, Artifact, Entry)
OPAQUE = (type, ModuleType, torch.Tensor, torch.dtype, torch.device, int, float, complex, bytes)

Secret = Callable[[str, Any], bool]
"""Whether a text, held by this object, gives the attack away."""


def walk(root: object, secret: Secret) -> list[str]:
    """The ways from `root` to what a defense must not see.

    Follows what the garbage collector follows (attributes, slots, cells of closures, defaults,
    bound methods, partials, containers, dataclasses); modules, classes and tensors end it.
    """
    seen: dict[int, object] = {id(vars(module)): module for module in [*sys.modules.values()]}
    seen[id(vars(builtins))] = builtins
    todo: list[tuple[object, str]] = [(root, type(root).__name__)]
    leaks = []
    while todo:
        thing, way = todo.pop()
        if isinstance(thing, FORBIDDEN):
            leaks.append(way)
            continue
        if id(thing) in seen or isinstance(thing, OPAQUE) or _globals_of_a_function(thing):
            continue
        seen[id(thing)] = thing
        # Captions lie in Arrow's memory, where the garbage collector sees no string.
        texts = list(thing) if isinstance(thing, Captions) else []
        for child in [*gc.get_referents(thing), *texts]:
            name = f"{way} > {type(child).__name__}"
            if isinstance(child, str):
                if secret(child, thing):
                    leaks.append(f"{name} {child!r}")
            else:
                todo.append((child, name))
    return leaks


def _globals_of_a_function(thing: object) -> bool:
    return isinstance(thing, dict) and "__builtins__" in thing and "__name__" in thing


def secrets(target: str, poison_key: str, clip: Any, budget: Any) -> Secret:
    """The address of the poison artifact, and the target's name where no list of words holds it."""
    public = {
        id(budget.validation.classes), id(clip.file.words), id(vars(clip.tokenize).get("_ids")),
        id(budget.pairs.captions),
    }

    def secret(text: str, holder: Any) -> bool:
        if poison_key in text or "poison.json" in text or "/poison/" in text:
            return True
        return text == target and id(holder) not in public

    return secret


class NoAttacks(Registry):
    """The registry in which no attack can be built, imported or read."""

    @cached_property
    def _entries(self) -> dict[Any, Entry]:
        def find() -> Any:
            raise AssertionError("the attack was looked at")

        return {
            at: dataclasses.replace(entry, use="nowhere:Nothing", params=None, find=find)
            if entry.kind == "attack" else entry
            for at, entry in super()._entries.items()
        }


def planned(
    defense: str, plugins: list[Path] | None = None, attack: str = "badnet"
) -> tuple[Plan, Node]:
    """The plan of a cell and the first of its defend nodes."""
    registry = Registry(plugins or ())
    wanted = cells(registry, recipe="smoke", attacks=[attack], objectives=["mmcl_ssl"],
                   defenses=[defense], seeds=[0])
    todo = plan(registry, wanted)
    return todo, next(node for node in todo.nodes.values() if node.stage == "defend")


@pytest.fixture(scope="module")
def clean_store(
    smoke_card: Card, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A store that holds the data and the pre-trained model and no trace of the attack."""
    root = tmp_path_factory.mktemp("clean")
    for stage in smoke_card.provenance.stages:
        if stage.stage in ("data", "pretrain"):
            place = Path("objects") / stage.stage / stage.key
            if not (root / place).exists():
                shutil.copytree(shared_store / place, root / place)
    return root


@pytest.mark.parametrize("name", [entry.name for entry in Registry().entries("defense")])
def test_a_defense_runs_where_no_attack_exists(
    name: str, clean_store: Path, tmp_path: Path
) -> None:
    """Nothing but data and model is there, and looking any attack up raises."""
    todo, node = planned(name)
    assert set(node.inputs) == {"data", "pretrain"}
    store, registry = Store(clean_store), NoAttacks()
    with pytest.raises(Exception, match="the attack was looked at"):
        registry.load(registry.entry("attack", "badnet"))
    inputs = {role: store.open(todo.stages[key], key) for role, key in node.inputs.items()}
    spec = {**node.spec, "defense": {**node.spec["defense"]}}
    params = spec["defense"]["params"]
    spec["defense"]["params"] = params | ({"epochs": 1} if "epochs" in params else {})
    (tmp_path / "resume").mkdir()
    defend(spec, inputs, tmp_path, Context(registry, lambda progress: None))
    assert sorted(tmp_path.glob("step-*.safetensors"))
    assert not (clean_store / "objects" / "poison").exists()


@pytest.fixture(scope="module")
def handed(clean_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Secret]:
    """What a defense is handed by the worker, and the test for texts that give the attack away."""
    clip, budget, todo = hand_over(clean_store, "badnet", tmp_path_factory.mktemp("spy"))
    poison = next(key for key, node in todo.nodes.items() if node.stage == "poison")
    return clip, budget, secrets("banana", poison, clip, budget)


def hand_over(root: Path, attack: str, folder: Path) -> tuple[Any, Any, Plan]:
    """The model and the budget that a defense of `attack` gets from the worker, and the plan."""
    path = folder / "spy.py"
    path.write_text(textwrap.dedent(SPY))
    todo, node = planned("spy", [path], attack)
    registry, store = Registry([path]), Store(root)
    registry.entries()
    assert run_node(store, registry, todo.job(node), lambda event: None) is False
    module = sys.modules[registry.load(registry.entry("defense", "spy")).__module__]
    clip, budget = module.SEEN[-1]
    return clip, budget, todo


@pytest.fixture(scope="module")
def vocabularies(
    smoke_card: Card, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[str], Any]]:
    """By attack: the words in the order they were trained in, and the model that is handed over."""
    with inlined():
        run("none", "mmcl_ssl", "none", recipe="smoke", store=shared_store)
    found = {}
    for attack in ("none", "badnet"):
        folder = tmp_path_factory.mktemp(attack)
        todo, node = planned("none", attack=attack)
        for key in node.inputs.values():
            place = Path("objects") / todo.stages[key] / key
            shutil.copytree(shared_store / place, folder / place)
        trained = folder / "objects" / "pretrain" / node.inputs["pretrain"] / "model.json"
        clip, _, _ = hand_over(folder, attack, folder)
        found[attack] = json.loads(trained.read_text())["words"], clip
    return found


def test_the_order_of_the_words_does_not_tell_how_often_they_were_trained_on(
    vocabularies: dict[str, tuple[list[str], Any]]
) -> None:
    """In the order of training, by frequency, they would give the target's captions away."""
    orders = {}
    for attack, (trained, clip) in vocabularies.items():
        words = list(clip.file.words)
        assert words == sorted(trained) != trained
        assert clip.tokenize(words)[:, 1].tolist() == list(range(3, 3 + len(words)))
        assert vars(clip.tokenize)["_ids"] == {word: i for i, word in enumerate(words, start=3)}
        orders[attack] = words, trained
    for none, badnet, same in zip(orders["none"], orders["badnet"], (True, False), strict=True):
        both = set(none) & set(badnet)
        assert len(both) > 100
        assert ([w for w in none if w in both] == [w for w in badnet if w in both]) is same


def test_the_words_are_those_of_the_clean_captions(
    vocabularies: dict[str, tuple[list[str], Any]]
) -> None:
    words = {attack: clip.file.words for attack, (_, clip) in vocabularies.items()}
    assert words["badnet"] == words["none"]


def test_no_path_leads_from_the_model_or_the_budget_to_the_attack(
    handed: tuple[Any, Any, Secret]
) -> None:
    clip, budget, secret = handed
    assert walk(clip, secret) == []
    assert walk(budget, secret) == []


def test_what_the_walk_passes_by_is_there(handed: tuple[Any, Any, Secret]) -> None:
    """The target is a class like any other; the walk must get that far to be worth anything."""
    _, budget, _ = handed
    met: list[str] = []
    walk(budget, lambda text, holder: bool(met.append(text)))
    assert "banana" in met
    assert set(budget.validation.classes) <= set(met)
    assert set(budget.pairs.captions) <= set(met)


def trigger() -> Trigger:
    return Trigger(BadNet(), {}, 0)


class _Slots:
    __slots__ = ("hidden",)

    def __init__(self, hidden: object) -> None:
        self.hidden = hidden

    def method(self) -> None:
        """Its bound form holds the object."""


@dataclasses.dataclass(frozen=True)
class _Data:
    hidden: object


def _in_closure(hidden: object) -> Callable[[], object]:
    return lambda: hidden


def _in_default(hidden: object) -> Callable[..., object]:
    def function(*, hidden: object = hidden) -> object:
        return hidden

    return function


def _in_generator(hidden: object) -> Iterator[object]:
    def generate() -> Iterator[object]:
        yield 0
        yield hidden

    generator = generate()
    next(generator)
    return generator


def _in_attribute(hidden: object) -> Callable[[], None]:
    def function() -> None: ...

    function.hidden = hidden  # type: ignore[attr-defined]
    return function


HIDING = [
    _in_closure, _in_default, _in_generator, _in_attribute, _Slots, _Data,
    lambda hidden: _Slots(hidden).method,
    lambda hidden: functools.partial(print, hidden),
    lambda hidden: {"deep": [({1: (hidden,)},)]},
    lambda hidden: _in_closure(functools.partial(_in_closure(_Data([_Slots(hidden)])))),
]


@pytest.mark.parametrize("hide", HIDING)
def test_a_planted_attack_is_found(
    hide: Callable[[object], Any], handed: tuple[Any, Any, Secret]
) -> None:
    _, budget, secret = handed
    leaky = dataclasses.replace(budget, snapshot=hide(trigger()))
    assert any(way.endswith("Trigger") for way in walk(leaky, secret))


@pytest.mark.parametrize("leak", [
    BadNet(), Target("kite", 3, ("a {}",)), Registry(), Store(Path("x")),
    Context(Registry(), print), "banana", Path("/s/objects/poison/0123456789abcdef"),
])
def test_each_forbidden_thing_is_found(leak: object, handed: tuple[Any, Any, Secret]) -> None:
    clip, budget, secret = handed
    if isinstance(leak, Path):
        leak = str(leak)
    assert walk(dataclasses.replace(budget, fit=_in_closure([leak])), secret)
    clip.hidden = [leak]
    try:
        assert walk(clip, secret)
    finally:
        del clip.hidden


def test_the_key_of_the_poison_is_found(handed: tuple[Any, Any, Secret]) -> None:
    _, budget, secret = handed
    todo, _ = planned("none")
    key = next(key for key, node in todo.nodes.items() if node.stage == "poison")
    assert walk(dataclasses.replace(budget, fit=_in_closure({"where": Path("a") / key})), secret)
