"""A small track with real cells: a plugin defense on two attacks, and the track's own `none`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bdbench.cards.select import select
from bdbench.execute import execute
from bdbench.hashing import file_digest
from bdbench.plan import cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card, Selection
from bdbench.statistics import rate
from bdbench.store import Store
from bdbench.submit import submit
from bdbench.verify import Case, Report, verify
from tests.inline import inlined

TRACK = """\
summary = "Smoke"
edition = 1
recipe = "smoke"
attacks = ["none", "badnet"]
objectives = ["mmcl"]
defenses = ["none"]
seeds = [0]
max_poison_rate = 0.06
"""
PLUGIN = '''\
"""Fine-tuning under another name."""
from bdbench import register
from bdbench.api import FineTuning
from bdbench.objectives.mmcl import Mmcl

SETTING = {"epochs": 2, "batch": 32, "warmup_steps": 2, "lr": 1e-3}


@register("mine", summary="Fine-tuning", params=SETTING, sweep={"lr": [1e-3, 3e-3]})
class Mine(FineTuning):
    def objective(self):
        return Mmcl()
'''
LRS = (1e-3, 3e-3)
OTHERS = 124
"""Test images of other classes than the target."""

Json = dict[str, Any]
Edit = Callable[[Json], None]


@dataclass(frozen=True)
class Made:
    """A folder `leaderboards`, the store its cells are in, and a sound submission."""

    root: Path
    store: Path
    plugin: Path
    data: bytes

    def file(self, folder: Path, edit: Edit = lambda data: None, name: str = "mine") -> Path:
        """A copy of the submission with something changed."""
        data = json.loads(self.data)
        edit(data)
        path = folder / f"{name}.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return path

    def report(self, folder: Path, edit: Edit = lambda data: None, name: str = "mine") -> Report:
        """What the checks say of such a copy."""
        return verify(self.file(folder, edit, name), root=self.root)

    def case(self, folder: Path, edit: Edit = lambda data: None) -> Case:
        """A copy that no check says no to."""
        report = self.report(folder, edit)
        assert report.failed == []
        assert report.case
        return report.case


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six trainings of a second each, in a store of their own: tests here look for missing keys."""
    folder = tmp_path_factory.mktemp("submission")
    root, plugin, store = folder / "leaderboards", folder / "mine.py", Store(folder / "store")
    (root / "demo" / "submissions").mkdir(parents=True)
    (root / "demo" / "track.toml").write_text(TRACK)
    undefended = root / "demo" / "submissions" / "none.json"
    plugin.write_text(PLUGIN)
    registry = Registry([plugin])
    wanted = cells(registry, recipe="smoke", attacks=["none", "badnet"], objectives=["mmcl"],
                   defenses=["none", "mine"], seeds=[0])
    with inlined():
        execute(plan(registry, wanted), store, [plugin])
    submit("defense/none", "demo", authors=["bdbench"], store=store, root=root,
           out=undefended)
    (root / "demo" / "track.toml").write_text(
        TRACK + f'reference = "{file_digest(undefended)}"\n'
    )
    out = folder / "mine.json"
    submit("mine", "demo", authors=["A. Author"], plugins=[plugin], store=store, root=root, out=out)
    return Made(root, store.root, plugin, out.read_bytes())


def card(data: Json, attack: str = "badnet") -> Json:
    """The card of an attack."""
    return next(card for card in data["cards"] if card["cell"]["attack"] == attack)


def stage(data: Json, name: str, number: int = 0, attack: str = "badnet") -> Json:
    """A stage of that card."""
    stages = card(data, attack)["provenance"]["stages"]
    return [stage for stage in stages if stage["stage"] == name][number]


def count(point: Json, metric: str, k: int, n: int | None = None) -> None:
    """Set a rate with all that follows from it."""
    scores = point["scores"]
    score = point["validation"] if metric == "validation" else scores[metric]
    score |= rate(k, n or score["n"]).model_dump()
    if metric == "asr_top1":
        value = score["value"] - scores["base_rate"]["value"]
        scores["lift"] |= {"value": value, "low": value - 0.01, "high": min(value + 0.01, 1.0)}
        scores["asr_all"] |= rate(k, scores["asr_all"]["n"]).model_dump()


def pick(data: Json, attacks: Sequence[str] = ("badnet",)) -> None:
    """Apply the rules to changed figures."""
    for attack in attacks:
        found = card(data, attack)
        points = Card.model_validate_json(json.dumps(found)).trajectory
        picked = select(points, Selection(), {"lr": LRS[0]})
        found["selections"] = picked.model_dump()


def said(report: Report, name: str) -> tuple[str, str]:
    """What one check says."""
    (check,) = (check for check in report.checks if check.name == name)
    return check.outcome, check.reason
