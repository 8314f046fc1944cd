"""Predictions and manifests to a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bdbench.api import TOP, Metric, Predictions
from bdbench.cards.select import select, verdict
from bdbench.schema import (
    Card,
    Cell,
    Cost,
    Point,
    Poison,
    Provenance,
    Recipe,
    Ref,
    Score,
    Stage,
)
from bdbench.statistics import rate
from bdbench.store import Artifact

EXAMPLES = 3
"""Captions shown before and after."""


def _columns(view: str) -> list[str]:
    return [f"{view}{i}" for i in range(1, TOP + 1)]


def _points(
    path: Path, metrics: Mapping[str, Metric], target: int, sweep: Mapping[str, float], order: int
) -> list[Point]:
    """The points of one `predictions.parquet`, by step."""
    points = []
    for step, frame in pd.read_parquet(path).groupby("step", sort=True):
        test, held_out = (frame[frame["set"] == name] for name in ("test", "validation"))
        predictions = Predictions(
            labels=test["label"].to_numpy(np.int64), target=target,
            clean=test[_columns("clean")].to_numpy(np.int64),
            triggered=test[_columns("triggered")].to_numpy(np.int64),
        )
        further = {
            str(name): _accuracy(rows) for name, rows in frame.groupby("set", sort=True)
            if name not in ("test", "validation")
        }
        points.append(Point(
            sweep=dict(sweep), order=order, step=int(step),
            scores={name: metric.score(predictions) for name, metric in metrics.items()},
            validation=_accuracy(held_out), further=further,
        ))
    return points


def _accuracy(rows: pd.DataFrame) -> Score:
    return rate(int((rows["clean1"] == rows["label"]).sum()), len(rows))


def _examples(poison: Artifact) -> tuple[tuple[str, str], ...]:
    frame = pd.read_parquet(poison.file("rows.parquet"), columns=["before", "after"])
    return tuple(map(tuple, frame.head(EXAMPLES).to_numpy().tolist()))


def _made_with(inputs: Mapping[str, Artifact]) -> tuple[dict[str, str], str | None]:
    """Versions and commit that the stages were computed with, all of them where they differ."""
    manifests = [artifact.manifest for artifact in inputs.values()]
    seen: dict[str, dict[str, None]] = {}
    for name, version in (pair for m in manifests for pair in m.versions.items()):
        seen.setdefault(name, {})[version] = None
    commits = dict.fromkeys(m.git for m in manifests if m.git is not None)
    return {name: "; ".join(found) for name, found in seen.items()}, "; ".join(commits) or None


def _costs(inputs: Mapping[str, Artifact]) -> dict[str, Cost]:
    costs: dict[str, Cost] = {}
    for artifact in {a.manifest.key: a for a in inputs.values()}.values():
        manifest = artifact.manifest
        before = costs.get(manifest.stage, Cost(seconds=0.0, samples=0))
        costs[manifest.stage] = Cost(
            seconds=round(before.seconds + manifest.seconds, 3),
            samples=before.samples + manifest.samples,
        )
    return costs


def build_card(
    spec: Mapping[str, Any], inputs: Mapping[str, Artifact], metrics: Mapping[str, Metric],
    data: Mapping[str, float], poison: Mapping[str, Any], left_out: Mapping[str, int],
) -> Card:
    """The card of a cell.

    `inputs`: data, poison, pretrain, start (the evaluation of the undefended model), and for the
    i-th run of the sweep defend<i> and run<i> (its evaluation); `data`: sizes and reference
    figures; `poison`: target, label, requested, poisoned, pairs; `left_out`: samples by kind.
    """
    recipe = Recipe.model_validate(spec["recipe"], strict=False)
    label = poison["label"]
    versions, git = _made_with(inputs)

    def points(role: str, sweep: Mapping[str, float], order: int) -> list[Point]:
        return _points(inputs[role].file("predictions.parquet"), metrics, label, sweep, order)

    trajectory = points("start", {}, 0)
    for i, sweep in enumerate(spec["runs"]):
        trajectory += points(f"run{i}", sweep, i)
    counts = Poison(
        target=poison["target"], requested=poison["requested"], poisoned=poison["poisoned"],
        pairs=poison["pairs"], examples=_examples(inputs["poison"]),
    )
    declared = None
    if recipe.checkpoint is not None:
        declared = spec["components"]["attack"]["params"]["rate"] > 0
    stages: Sequence[Stage] = [
        Stage(stage=a.manifest.stage, label=a.manifest.label, key=a.manifest.key,
              files=a.manifest.files)
        for a in inputs.values()
    ]
    return Card(
        cell=Cell(**spec["cell"]),
        verdict=verdict(trajectory[0], counts, recipe.gate, declared),
        components={kind: Ref(**ref) for kind, ref in spec["components"].items()},
        metrics=tuple(Ref(**ref) for ref in spec["metrics"]),
        recipe=recipe,
        overridden=spec["overridden"],
        data=dict(data),
        left_out=dict(left_out),
        poison=counts,
        trajectory=tuple(trajectory),
        selections=select(trajectory, recipe.selection, spec["default"]),
        provenance=Provenance(
            versions=versions, git=git, seeds=spec["seeds"],
            threads=recipe.threads.model_dump(), stages=tuple(stages),
        ),
        cost=_costs(inputs),
    )


