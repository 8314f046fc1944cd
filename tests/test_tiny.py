"""What the recipe `tiny` promises of undefended models, over the seeds of its track.

About 20 minutes on two cores; where BDBENCH_HOME is set, what that store has is reused.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bdbench.execute import run
from bdbench.leaderboard.folder import load_track
from bdbench.schema import Card

SEEDS = load_track("tiny").seeds
ATTACKS = ("none", "badnet", "badnet_fixed", "blended", "label_consistent")
LIFT = {
    ("badnet", "mmcl"): 0.8, ("badnet", "mmcl_ssl"): 0.6,
    ("badnet_fixed", "mmcl"): 0.8, ("badnet_fixed", "mmcl_ssl"): 0.6,
    ("blended", "mmcl"): 0.7,
}

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("BDBENCH_HOME")
    return Path(given) if given else tmp_path_factory.mktemp("tiny")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("objective", ["mmcl", "mmcl_ssl"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_undefended(attack: str, objective: str, seed: int, home: Path) -> None:
    card: Card = run(attack, objective, "none", recipe="tiny", seed=seed, store=home)
    scores = card.trajectory[0].scores
    print(f"\n{attack} {objective} {seed}: clean {scores['clean_top1'].value:.3f},"
          f" ASR {scores['asr_top1'].value:.3f}, lift {scores['lift'].value:.3f},"
          f" shape-blind {card.data['shape_blind_oracle']:.3f}, {card.verdict.status}")
    clean = scores["clean_top1"].value
    assert 0.60 <= clean <= 0.95
    assert clean >= card.data["shape_blind_oracle"] + 0.15
    if attack == "none":
        assert scores["asr_top1"].value < 0.05
        assert card.verdict.status == "control"
    assert scores["lift"].value >= LIFT.get((attack, objective), -1.0)
    if attack != "none":
        failed = scores["lift"].value < card.recipe.gate.lift
        assert card.verdict.status == ("attack_failed" if failed else "ok")
