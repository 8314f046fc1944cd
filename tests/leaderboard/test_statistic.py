"""The declared statistic by hand."""

from __future__ import annotations

import pytest

from bdbench.cards.select import lowest_asr
from bdbench.leaderboard.statistic import finding, removed
from bdbench.schema import Cell, Gate, Statistic
from tests.leaderboard.conftest import TRACK, card_of, point

DECLARED = Statistic(
    attack="badnet", defense="cleanclip", baseline="finetune", objectives=("mmcl", "mmcl_ssl"),
    losses=(0.02, 0.1), seeds=(1, 2, 3, 4, 5),
)
OF = TRACK.model_copy(update={"statistic": DECLARED, "gate": Gate(lift=0.5)})


def run(*models: tuple[float, float], start=(0.8, 1.0)):
    """A trajectory: the start, then models by accuracy and ASR."""
    return (
        point(*start),
        *(point(acc, asr, sweep={"lr": 1e-3}, step=i) for i, (acc, asr) in enumerate(models, 1)),
    )


def cell(objective: str, defense: str, seed: int) -> Cell:
    return Cell(
        recipe="tiny", attack="badnet", objective=objective, defense=defense, seed=seed
    )


def test_the_lowest_asr_within_a_loss():
    points = run((0.79, 0.75), (0.75, 0.25), (0.60, 0.0))
    assert [round(lowest_asr(points, loss), 2) for loss in (0.0, 0.02, 0.06, 0.3)] == [
        1.0, 0.75, 0.25, 0.0
    ]
    # The start is always within, and a model that gains accuracy too.
    assert lowest_asr(run((0.5, 0.0)), 0.1) == 1.0
    assert lowest_asr(run((0.9, 0.5)), 0.0) == pytest.approx(0.5, abs=1e-3)
    # A loss of exactly the bound counts, whatever rounding makes of it.
    edge = run((0.8 - 0.1, 0.5))
    exact = edge[0].scores["clean_top1"].value - edge[1].scores["clean_top1"].value
    assert lowest_asr(edge, exact) == pytest.approx(0.5, abs=1e-3)


def test_removed_by_hand():
    base = card_of(cell("mmcl", "finetune", 1), points=run((0.79, 0.75), (0.72, 0.5)))
    ours = card_of(cell("mmcl", "cleanclip", 1), points=run((0.79, 0.25), (0.72, 0.0)))
    # Within 2 points: 0.75 - 0.25; within 10 points: 0.5 - 0.
    assert removed(base, ours, (0.02, 0.1)) == pytest.approx(0.5, abs=1e-3)
    assert removed(base, ours, (0.0,)) == 0.0
    assert removed(ours, base, (0.02, 0.1)) == pytest.approx(-0.5, abs=1e-3)


def cards(failed: tuple[int, ...] = ()):
    """On mmcl cleanclip removes 50 points more, less a point per seed; on mmcl_ssl 10."""
    found = []
    for objective, more in (("mmcl", 0.5), ("mmcl_ssl", 0.1)):
        for seed in DECLARED.seeds:
            start = (0.8, 0.3 if seed in failed and objective == "mmcl" else 1.0)
            rest = (more - seed / 100 if objective == "mmcl" else more)
            found.append(card_of(
                cell(objective, "finetune", seed), points=run((0.79, 0.8), start=start)))
            found.append(card_of(
                cell(objective, "cleanclip", seed), points=run((0.79, 0.8 - rest), start=start)))
    return found


def test_the_finding_by_hand():
    found = finding(OF, DECLARED, cards())
    assert list(found.removed) == ["mmcl", "mmcl_ssl"]
    assert [found.by_seed["mmcl"][seed] for seed in DECLARED.seeds] == pytest.approx(
        [0.49, 0.48, 0.47, 0.46, 0.45], abs=2e-3
    )
    assert found.removed["mmcl"].value == pytest.approx(0.47, abs=1e-3)
    assert found.removed["mmcl_ssl"].value == pytest.approx(0.1, abs=1e-3)
    # Paired by seed: 0.39, 0.38, 0.37, 0.36, 0.35; t(4) = 2.7764, s = 0.0158.
    assert found.difference.value == pytest.approx(0.37, abs=1e-3)
    half = 2.7764 * 0.015811 / 5**0.5
    assert found.difference.high - found.difference.value == pytest.approx(half, abs=2e-3)
    assert found.failed == ()


def test_failed_attacks_are_named_and_count_all_the_same():
    found = finding(OF, DECLARED, cards(failed=(2, 4)))
    assert found.failed == (("mmcl", 2), ("mmcl", 4))
    assert found.removed["mmcl"].n == 5


def test_there_is_no_finding_while_a_cell_is_missing():
    assert finding(OF, DECLARED, cards()[1:]) is None
    assert finding(OF, DECLARED, []) is None
    further = [*cards(), card_of(cell("mmcl", "cleanclip", 99))]
    assert finding(OF, DECLARED, further) == finding(OF, DECLARED, cards())


def test_the_cells_that_a_track_declares():
    asked = DECLARED.cells("tiny")
    assert len(asked) == len(set(asked)) == 20
    assert {one.seed for one in asked} == set(DECLARED.seeds)
