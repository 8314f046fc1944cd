"""Predictions and manifests to a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bdbench.api import PROBES, TOP, Answers, Metric, Predictions, Probe, Retrieval
from bdbench.cards.select import select, verdict
from bdbench.cards.text import TARGET_CAPTIONS
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
    tested: Artifact, metrics: Mapping[str, Metric], target: int, sweep: Mapping[str, float],
    order: int,
) -> list[Point]:
    """The points of an evaluation, by step."""
    ranked, answered = (_by_step(tested, name) for name in ("retrieval", "probes"))
    points = []
    for step, frame in _by_step(tested, "predictions").items():
        test, held_out = (frame[frame["set"] == name] for name in ("test", "validation"))
        predictions = Predictions(
            labels=test["label"].to_numpy(np.int64), target=target,
            clean=test[_columns("clean")].to_numpy(np.int64),
            triggered=test[_columns("triggered")].to_numpy(np.int64),
            retrieval=_retrieval(ranked[step]) if ranked else None,
            probes=_probes(answered[step]) if answered else {},
        )
        further = {
            str(name): _accuracy(rows) for name, rows in frame.groupby("set", sort=True)
            if name not in ("test", "validation")
        }
        points.append(Point(
            sweep=dict(sweep), order=order, step=step,
            scores={name: metric.score(predictions) for name, metric in metrics.items()},
            validation=_accuracy(held_out), further=further,
        ))
    return points


def _by_step(tested: Artifact, name: str) -> dict[int, pd.DataFrame]:
    """A table of an evaluation by step, in order; empty where there is no such table."""
    if f"{name}.parquet" not in tested.manifest.files:
        return {}
    table = pd.read_parquet(tested.file(f"{name}.parquet"))
    return {int(step): frame for step, frame in table.groupby("step", sort=True)}


def _target_captions(tested: Artifact) -> dict[str, float]:
    """How many captions of a retrieval name the target."""
    frames = list(_by_step(tested, "retrieval").values())
    return {TARGET_CAPTIONS: float(frames[0]["names_target"].sum())} if frames else {}


def _retrieval(frame: pd.DataFrame) -> Retrieval:
    names = ("image", "captions", "images", "clean", "triggered")
    return Retrieval(
        names_target=frame["names_target"].to_numpy(bool),
        **{name: frame[name].to_numpy(np.int64) for name in names},
    )


def _probes(frame: pd.DataFrame) -> dict[Probe, Answers]:
    return {
        probe: Answers(*(frame[f"{probe}_{view}"].to_numpy(np.int64)
                         for view in ("clean", "triggered")))
        for probe in PROBES
    }


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
        return _points(inputs[role], metrics, label, sweep, order)

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
        data=dict(data) | _target_captions(inputs["start"]),
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


