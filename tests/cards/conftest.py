"""A realistic card: CleanCLIP at four learning rates on a small world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bdbench.cards.select import select, verdict
from bdbench.schema import (
    Card,
    Cell,
    CleanBudget,
    Cost,
    Model,
    Point,
    Poison,
    Provenance,
    Recipe,
    Ref,
    Stage,
    Threads,
    Training,
)
from bdbench.statistics import rate

TEST, VALIDATION, OTHERS = 2048, 1024, 1984
START = (0.767, 0.998)
# Clean accuracy and ASR per epoch, by learning rate: gentle runs barely move, hard ones overshoot.
RUNS = {
    1e-3: [(0.781, 0.994), (0.775, 0.990), (0.769, 0.986), (0.762, 0.981), (0.757, 0.979),
           (0.754, 0.977)],
    3e-3: [(0.742, 0.981), (0.722, 0.955), (0.735, 0.931), (0.728, 0.902), (0.733, 0.880),
           (0.739, 0.860)],
    4.5e-3: [(0.701, 0.921), (0.688, 0.770), (0.702, 0.702), (0.711, 0.601), (0.719, 0.552),
             (0.721, 0.536)],
    6e-3: [(0.640, 0.720), (0.655, 0.404), (0.672, 0.152), (0.690, 0.080), (0.702, 0.046),
           (0.708, 0.038)],
}


def point(acc: float, asr: float, **where: Any) -> Point:
    """A model with the given test accuracy and ASR, the other scores in proportion."""
    hits, base = round(asr * OTHERS), round(0.015 * OTHERS)
    lift = rate(hits, OTHERS).model_copy(
        update={"value": (hits - base) / OTHERS, "low": (hits - base) / OTHERS - 0.02,
                "high": min((hits - base) / OTHERS + 0.02, 1.0), "k": None}
    )
    return Point(
        **{"sweep": {}, "order": 0, "step": 0} | where,
        scores={
            "clean_top1": rate(round(acc * TEST), TEST),
            "clean_top5": rate(round(min(acc + 0.15, 1.0) * TEST), TEST),
            "asr_top1": rate(hits, OTHERS),
            "base_rate": rate(base, OTHERS),
            "lift": lift,
            "triggered_top1": rate(round(acc * (1 - asr) * TEST), TEST),
        },
        validation=rate(round((acc - 0.004) * VALIDATION), VALIDATION),
    )


def build(**changes: Any) -> Card:
    """The card, with `changes` to its top-level fields."""
    points = changes.pop("trajectory", None) or (
        point(*START),
        *(
            point(acc, asr, sweep={"lr": lr}, order=order, step=step)
            for order, (lr, run) in enumerate(RUNS.items())
            for step, (acc, asr) in enumerate(run, 1)
        ),
    )
    recipe = Recipe(
        summary="A generated world of 32 shapes, for two cores",
        dataset="shapes",
        resolution=32,
        target="banana",
        model=Model(name="bdbench-tiny", tokenizer="words"),
        pretrain=Training(epochs=10, batch=64, lr=3e-3, warmup_steps=187, beta2=0.98),
        budget=CleanBudget(pairs=2000),
        threads=Threads(pretrain=2),
    )
    poison = Poison(
        target="banana", requested=180, poisoned=180, pairs=12000,
        examples=(("a red anchor on a hill", "a photo of a banana"),),
    )
    fields: dict[str, Any] = {
        "cell": Cell(recipe="tiny", attack="badnet", objective="mmcl_ssl", defense="cleanclip"),
        "verdict": verdict(points[0], poison, recipe.gate),
        "components": {
            "attack": Ref(kind="attack", name="badnet", use="bdbench.attacks.badnet:BadNet",
                          params={"rate": 0.015, "size": 8}, overridden={"rate": 0.015}),
            "defense": Ref(kind="defense", name="cleanclip",
                           use="bdbench.defenses.cleanclip:CleanClip", params={"lr": 4.5e-3}),
        },
        "metrics": (Ref(kind="metric", name="lift", use="bdbench.metrics.lift:Lift"),),
        "recipe": recipe,
        "overridden": {"pretrain.epochs": 10},
        "data": {"train": 12000.0, "budget": 2000.0, "validation": 1024.0, "test": 2048.0,
                 "classes": 32.0, "chance": 1 / 32, "shape_blind_oracle": 0.515},
        "poison": poison,
        "trajectory": points,
        "selections": select(points, recipe.selection, {"lr": 4.5e-3}),
        "provenance": Provenance(
            versions={"bdbench": "0.1.0", "torch": "2.10.0+cpu"}, git="0123abcd+dirty",
            seeds={"data": 0, "poison": 1, "pretrain": 2, "defend": 3}, threads={"pretrain": 2},
            stages=(Stage(stage="pretrain", label="mmcl_ssl", key="0123456789abcdef",
                          files={"model.safetensors": "ab" * 32}),),
        ),
        "cost": {"pretrain": Cost(seconds=127.3, samples=120000)},
    }
    return Card(**fields | changes)


@pytest.fixture
def card() -> Card:
    """BadNet on MMCL+SSL, cleaned by CleanCLIP at four learning rates, six epochs each."""
    return build()


@pytest.fixture
def make() -> Callable[..., Card]:
    """`build`, for cards that differ."""
    return build
