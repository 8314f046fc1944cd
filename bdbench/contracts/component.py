"""What a component of any kind must be: frozen, described, strict, and the same after JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from bdbench.api import Component
from bdbench.contracts.property import BrokenError, Property
from bdbench.registry import Registry
from bdbench.registry.entry import Entry
from bdbench.schema import Recipe, Ref

LOADS = "class loads"
RESOLVES = "parameters resolve"
SURVIVES = "parameters survive JSON"
BUILDS = (RESOLVES, SURVIVES)
"""Without these there is no component to look at."""
_UNKNOWN = "no_such_field"


@dataclass(frozen=True)
class Subject:
    """An entry, and the recipes that it must resolve under."""

    registry: Registry
    entry: Entry
    recipe: str
    """The recipe whose parameters the component is checked with."""
    recipes: Mapping[str, Recipe]

    def resolve(self, recipe: str) -> tuple[Ref, dict[str, tuple[float, ...]]]:
        """The reference under a recipe, and the declared sweep."""
        kind, name = self.entry.kind, self.entry.name
        # Metrics have no section in a recipe.
        defaults = getattr(self.recipes[recipe], f"{kind}s", {}).get(name)
        return self.registry.resolve(kind, name, defaults)

    @cached_property
    def component(self) -> Component:
        """The component, built from its reference as a worker does."""
        return self.registry.build(self.entry.kind, self.resolve(self.recipe)[0].identity())

    @property
    def params(self) -> dict[str, Any]:
        """Every field and its value."""
        return self.resolve(self.recipe)[0].params


def properties(subject: Subject) -> list[Property]:
    """The properties of a component of any kind whose class loads."""
    tests = {
        "fields are frozen": _frozen, "fields are described": _described,
        "unknown fields are refused": _strict, "sweep rises": _rising,
    }
    return [
        Property(RESOLVES, lambda: [subject.resolve(recipe) for recipe in subject.recipes]),
        Property(SURVIVES, lambda: _same_after_json(subject), needs=(RESOLVES,)),
        *(Property(name, lambda test=test: test(subject), needs=BUILDS)  # type: ignore[misc]
          for name, test in tests.items()),
    ]


def _same_after_json(subject: Subject) -> None:
    """Workers get components as JSON: what they build must be what was planned."""
    cls = subject.registry.load(subject.entry)
    instances = [subject.component]
    if not any(field.is_required() for field in cls.model_fields.values()):
        instances.append(cls())
    for before in instances:
        after = cls.model_validate_json(before.model_dump_json())
        if after != before:
            raise BrokenError(
                f"`{before!r}` comes back from JSON as `{after!r}`: workers would run another"
                " component than was planned; let every field be stored as it is"
            )


def _frozen(subject: Subject) -> None:
    """A component is its parameters: the key of an artifact must stay true."""
    copy = subject.component.model_copy()
    for name in [*type(copy).model_fields, _UNKNOWN]:
        try:
            setattr(copy, name, getattr(copy, name, 0))
        except ValidationError:
            continue
        raise BrokenError(
            f"`{type(copy).__name__}.{name}` can be assigned to: what ran would not be what was"
            " hashed; do not set `frozen` in `model_config`"
        )


def _described(subject: Subject) -> None:
    """`bdbench show` prints the text under each field."""
    cls = type(subject.component)
    silent = [name for name, field in cls.model_fields.items() if not field.description]
    if silent:
        raise BrokenError(
            f"`{cls.__name__}` does not say what `{'`, `'.join(silent)}` means: `bdbench show`"
            " prints it; put a string under the field"
        )


def _strict(subject: Subject) -> None:
    """A misspelt parameter must not be ignored."""
    cls = type(subject.component)
    try:
        cls.model_validate_json(json.dumps({**subject.params, _UNKNOWN: 1}))
    except ValidationError:
        return
    raise BrokenError(
        f"`{cls.__name__}` takes the unknown field `{_UNKNOWN}`: a misspelt parameter would be"
        " ignored; do not set `extra` in `model_config`"
    )


def _rising(subject: Subject) -> None:
    """The blind rule takes the last value that keeps the accuracy for the most aggressive one.

    That the swept fields exist and take their values is part of resolving them.
    """
    for field, values in subject.resolve(subject.recipe)[1].items():
        if any(second <= first for first, second in pairwise(values)):
            raise BrokenError(
                f"the sweep of `{field}` is `{list(values)}`: the rule that picks a model reads it"
                " from the gentlest to the most aggressive; sort it, each value once"
            )
