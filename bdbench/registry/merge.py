"""Settings over settings: what a recipe says of a component, and what `--set` says of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables into tables; an empty table empties."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if value and isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def changed_recipe(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with what is given; what is given of `pretrain` holds for every objective."""
    merged = merge(recipe, given)
    said, meant, per_objective = (
        given.get("pretrain"), given.get("pretrain_for"), merged.get("pretrain_for")
    )
    if isinstance(said, dict) and isinstance(per_objective, dict):
        own = meant if isinstance(meant, dict) else {}
        merged["pretrain_for"] = {
            objective: {
                field: value for field, value in changed.items()
                if field not in said or field in own.get(objective, {})
            }
            for objective, changed in per_objective.items()
        }
    return merged
