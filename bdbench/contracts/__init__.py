"""Contract checks: what every registered component must do, as functions to run on your own.

Imports no torch until a check runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator

from bdbench.api import Component
from bdbench.contracts import component
from bdbench.contracts.property import Check, Property, home_of, verdicts
from bdbench.registry import Registry
from bdbench.registry.entry import Entry
from bdbench.schema import Kind, Recipe

__all__ = ["Check", "Property", "check"]

BUILT_IN_RECIPES = ("tiny", "smoke")
"""Under these a built-in component must resolve as well."""


def check(registry: Registry, kind: Kind, name: str, recipe: str = "smoke") -> Iterator[Check]:
    """Check one entry with its parameters under `recipe`; results come as they are found.

    BdbenchError at once where the entry or the recipe does not exist. What the component itself
    raises is a failed check. A check that rests on a failed one is left out.
    """
    entry, setting = registry.entry(kind, name), registry.recipe(recipe)
    others = BUILT_IN_RECIPES if entry.origin == "built-in" else ()
    recipes = {recipe: setting} | {
        other: registry.recipe(other) for other in others if other != recipe
    }
    return _checks(registry, entry, recipe, recipes)


def _checks(
    registry: Registry, entry: Entry, recipe: str, recipes: dict[str, Recipe]
) -> Iterator[Check]:
    loads = Property(component.LOADS, lambda: registry.load(entry))
    if (yield from verdicts([loads], None)):
        return
    home = home_of(registry.load(entry))
    subject = component.Subject(registry, entry, recipe, recipes)
    failed = yield from verdicts(component.properties(subject), home)
    if failed.isdisjoint(component.BUILDS):
        module = importlib.import_module(f"bdbench.contracts.{entry.kind}")
        properties: Callable[[Component, Recipe], Iterable[Property]] = module.properties
        yield from verdicts(properties(subject.component, recipes[recipe]), home)
