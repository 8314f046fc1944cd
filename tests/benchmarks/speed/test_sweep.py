"""A cleaning sweep with an evaluation after every epoch, against its steps one by one.

The rates of both must be the same to the last image; a small one is compared in every run of the
tests. A step has one thread on either side, as the recipes have it; the sweep runs as many of them
side by side as there are cores. One by one with a thread for every core is measured too.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from bdbench.api import Dataset
from bdbench.data import DataCache
from bdbench.environment import cores
from bdbench.execute import execute, read_card
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card
from bdbench.stages.poison import load_file_of, load_trigger
from bdbench.store import Store
from tests.benchmarks.conftest import Measured
from tests.benchmarks.speed.one_by_one import Judge, Known, Rates, run
from tests.benchmarks.speed.test_open_clip_trainer import PACKS
from tests.benchmarks.table import DRY, spread

RATES = [2.5e-4, 5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 4e-3, 8e-3]
EPOCHS, ROUNDS = (1, 1) if DRY else (10, 2)
TINY: dict[str, Any] = {
    "recipe": {"pretrain": {"epochs": 2}, "budget": {"pairs": 500}},
    "defense": {"epochs": EPOCHS, "sweep": {"lr": RATES[:2] if DRY else RATES}},
}
COCO: dict[str, Any] = TINY | {
    "recipe": {"pretrain": {"epochs": 1}, "budget": {"pairs": 500}},
    "dataset": {
        "train": {"files": "cococap-train-72-0000.tar.gz", "stop": 500 if DRY else 4000},
        "further": {}, "digest": "", "path": str(PACKS),
    },
}


@dataclass
class Sweep:
    """A cell whose model is trained, so that its sweep is left to be done."""

    registry: Registry
    todo: Plan
    start: Store
    """With the model, and what it rests on."""
    folder: Path

    @classmethod
    def prepare(cls, folder: Path, recipe: str, overrides: Mapping[str, Any]) -> Sweep:
        registry = Registry()
        wanted = cells(registry, recipe=recipe, attacks=["badnet"], objectives=["mmcl"],
                       defenses=["finetune"], seeds=[0])
        todo = plan(registry, wanted, {k: dict(v) for k, v in overrides.items()})
        early = {key: node for key, node in todo.nodes.items()
                 if node.stage in ("data", "poison", "pretrain")}
        execute(Plan(early, todo.stages), start := Store(folder / "start"))
        return cls(registry, todo, start, folder)

    def ours(self, name: str) -> tuple[float, Card]:
        """Seconds of all that is left, evaluation of the starting model and card included."""
        shutil.copytree(self.start.root, self.folder / name)
        store = Store(self.folder / name)
        begun = time.perf_counter()
        execute(self.todo, store)
        seconds = time.perf_counter() - begun
        (key,) = self.todo.cards.values()
        return seconds, read_card(store, key)

    def one_by_one(self, name: str, threads: int | None = None) -> tuple[float, list[Rates]]:
        """Seconds of every run with its evaluations, and their rates."""
        store, nodes = self.start, self.todo.nodes
        about = next(node for node in nodes.values() if node.stage == "evaluate")
        inputs = {role: store.open(self.todo.stages[key], key)
                  for role, key in about.inputs.items() if role in ("data", "tests", "poison")}

        def known(split: str, role: str) -> Known:
            node = nodes[about.inputs[role]]
            dataset = cast(Dataset, self.registry.build("dataset", node.spec["dataset"]))
            dataset = dataset.model_copy(update=dict(node.local))
            return Known(split, dataset, node.spec["seed"], DataCache(inputs[role].path))

        judge = Judge(
            known("test", "tests" if "tests" in inputs else "data"), known("validation", "data"),
            load_trigger(inputs["poison"], self.registry), load_file_of(inputs["poison"]).label,
            about.spec["batch"],
        )
        found = []
        begun = time.perf_counter()
        for i, node in enumerate(node for node in nodes.values() if node.stage == "defend"):
            read = {role: store.open(self.todo.stages[key], key)
                    for role, key in node.inputs.items()}
            work = self.folder / name / str(i)
            spec = node.spec if threads is None else {**node.spec, "threads": threads}
            found.append(run(spec, read, judge, self.registry, work))
        return time.perf_counter() - begun, found


def rates_of(card: Card) -> list[Rates]:
    """By run of the sweep, the starting model left out."""
    runs: dict[int, Rates] = {}
    for point in card.trajectory[1:]:
        runs.setdefault(point.order, {})[point.step] = {
            **{name: point.scores[name].value for name in ("clean_top1", "asr_top1")},
            "validation": point.validation.value,
        }
    return list(runs.values())


def test_one_by_one_gives_the_same_rates(
    smoke_card: Card, shared_store: Path, tmp_path: Path
) -> None:
    registry = Registry()
    todo = plan(registry, [smoke_card.cell])
    _, found = Sweep(registry, todo, Store(shared_store), tmp_path).one_by_one("theirs")
    assert found == rates_of(smoke_card)
    assert [len(rates) for rates in found] == [2, 2]
    assert len({str(rates) for run in found for rates in run.values()}) > 1


@pytest.mark.benchmark
@pytest.mark.timeout(5400)
@pytest.mark.parametrize(("recipe", "overrides"), [("tiny", TINY), ("coco_mini", COCO)])
def test_sweep_over_one_by_one(
    recipe: str, overrides: Mapping[str, Any], measured: Measured, tmp_path: Path
) -> None:
    if recipe == "coco_mini" and not PACKS.exists():
        pytest.skip("needs the COCO shards in ../shared/datapacks")
    sweep = Sweep.prepare(tmp_path, recipe, overrides)
    ratios, wide = [], []
    for i in range(ROUNDS):
        single, rates = sweep.one_by_one(f"one-{i}")
        seconds, card = sweep.ours(f"ours-{i}")
        assert rates == rates_of(card)
        all_cores, _ = sweep.one_by_one(f"wide-{i}", cores())
        ratios.append(single / seconds)
        wide.append(all_cores / seconds)
        print(f"\n{recipe}, round {i + 1}: {seconds:.0f} s, one by one {single:.0f} s, with all"
              f" cores {all_cores:.0f} s")
    measured(
        f"a sweep of `{recipe}`, 8 learning rates x {EPOCHS} epochs of 500 pairs, over its steps"
        " one by one",
        spread(ratios), "aim 3",
    )
    measured(f"the same of `{recipe}` over its steps with a thread for every core", spread(wide))
