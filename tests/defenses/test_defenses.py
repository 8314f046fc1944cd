from __future__ import annotations

import pytest

from bdbench.defenses.cleanclip import CleanClip
from bdbench.defenses.finetune import FineTune
from bdbench.defenses.finetune_ssl import FineTuneSsl
from bdbench.defenses.none import NoDefense
from bdbench.objectives.mmcl import Mmcl
from bdbench.objectives.mmcl_ssl import MmclSsl
from bdbench.objectives.ssl import Ssl
from bdbench.schema import Training


class FakeBudget:
    """Records what it is asked to train; reading anything else is an error."""

    def __init__(self):
        self.calls = []

    def fit(self, clip, objective, training):
        self.calls.append((clip, objective, training))
        return "repaired"


SETTINGS = {"lr": 3e-4, "epochs": 7, "batch": 32, "warmup_steps": 11, "weight_decay": 0.2}


@pytest.mark.parametrize(
    ("defense", "objective"),
    [
        (FineTune(**SETTINGS), Mmcl()),
        (FineTuneSsl(**SETTINGS), Ssl()),
        (CleanClip(**SETTINGS), MmclSsl(clip_weight=1.0, ssl_weight=1.0)),
        (CleanClip(**SETTINGS, ssl_weight=4.0), MmclSsl(clip_weight=1.0, ssl_weight=4.0)),
    ],
)
def test_fine_tunes_with_its_objective_and_settings(defense, objective):
    budget = FakeBudget()
    assert defense.repair("poisoned", budget) == "repaired"
    [(clip, used, training)] = budget.calls
    assert clip == "poisoned"
    assert used == objective
    assert type(used) is type(objective)
    assert training == Training(
        lr=3e-4, epochs=7, batch=32, warmup_steps=11, weight_decay=0.2,
        beta1=0.9, beta2=0.999, eps=1e-8,
    )


def test_batch_norm_only_is_fine_tuning_at_learning_rate_0():
    budget = FakeBudget()
    FineTune(lr=0.0).repair("poisoned", budget)
    assert budget.calls[0][2].lr == 0


def test_no_defense_returns_the_very_model_and_trains_nothing():
    budget, clip = FakeBudget(), object()
    assert NoDefense().repair(clip, budget) is clip
    assert budget.calls == []
