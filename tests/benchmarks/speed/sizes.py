"""What is trained in the benchmarks: on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.table import DRY

LEAST = {"mmcl": 0.92, "mmcl_ssl": 0.88}
"""Promised share of the bare loop's samples a second, by objective."""
NO_GPU = "no GPU was at hand"


@dataclass(frozen=True)
class Size:
    """A model and how many steps of it."""

    name: str
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: int = 3
    warm: int = 0
    """Steps that do not count. 0: the whole stage counts, from opening files to writing them."""


def _large(
    model: str, batch: int, steps: int, warm: int, rounds: int, hardware: dict[str, Any] | None
) -> Size:
    name = f"{model} at 224 px, batch {batch}{' on a GPU, bf16' if hardware else ''}"
    recipe = {
        "model": model, "resolution": 224, "threads": {"pretrain": 2},
        "pretrain": {"epochs": 1, "batch": batch, "warmup_steps": 1, "lr": 1e-4},
    }
    if DRY:
        batch, steps, rounds = 8, warm + 1, 1
        recipe |= {
            "model": {"name": "bdbench-tiny", "tokenizer": "words"}, "resolution": 32,
            "threads": {"pretrain": 1}, "pretrain": {"epochs": 1, "batch": batch},
        }
    if hardware:
        recipe["hardware"] = hardware
    dataset = {"train": batch * steps, "budget": 2, "validation": 32, "test": 32}
    overrides = {"recipe": recipe, "dataset": dataset, "attack": {"rate": 0.1}}
    return Size(name, overrides, rounds, warm)


TINY = Size("`tiny`", {"recipe": {"pretrain": {"epochs": 2}}}) if not DRY else Size("`tiny`", {
    "recipe": {"pretrain": {"epochs": 1}, "threads": {"pretrain": 1}}, "dataset": {"train": 640},
}, 1)
CPU = (TINY, _large("ViT-B-32", 32, 4, 1, 3, None))
_BF16 = {"device": "cuda", "precision": "bf16"}
GPU = (
    _large("RN50", 256, 16, 4, 5, _BF16),
    _large("ViT-B-32", 256, 16, 4, 5, _BF16),
)
