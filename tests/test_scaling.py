"""README's table of the CC6M matrix is what the simulation gives, and adds up by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bdbench.environment import DECODERS
from tests import scaling
from tests.scaling import GPUS, HOURS, METHODS, SEEDS, simulated, speed, table

README = Path(__file__).parent.parent / "README.md"
LRS = 7
"""Of the shipped sweeps."""


def test_the_readme_has_the_table() -> None:
    block = re.search(r"<!-- cc6m -->\n(.*?)\n\n", README.read_text(), re.DOTALL)
    assert block
    assert block[1].splitlines() == list(table())


def test_the_matrix_is_the_one_that_is_described() -> None:
    assert [len(METHODS[kind]) for kind in ("attacks", "objectives", "defenses")] == [7, 2, 8]
    todo, found = simulated(8)
    assert len(todo.cards) == 7 * 2 * 8 * 3
    models = 7 * 2 * 3
    (data,) = (node for node in todo.nodes.values() if node.stage == "data")
    assert data.threads == DECODERS
    stages = [node.stage for node in todo.nodes.values()]
    assert stages.count("pretrain") == models
    assert stages.count("defend") == models * (2 + 6 * LRS)
    assert stages.count("evaluate") == models * (1 + 2 + 6 * LRS)
    assert found.unknown == {}


@pytest.mark.parametrize("gpus", GPUS)
def test_the_hours_against_a_sum_by_hand(gpus: int) -> None:
    """Pre-training by itself needs so many GPU hours; all of it is there, and 72 % of the whole."""
    _, found = simulated(gpus)
    pretraining = 7 * len(SEEDS) * sum(HOURS.values()) * 8
    assert found.work["pretrain"] / 3600 * min(gpus, 8) == pytest.approx(pretraining)
    cleaning = 20 * 100_000 / 3600
    defending = 7 * 2 * len(SEEDS) * (
        cleaning * (1 + 2 * LRS) / speed("Mmcl") + cleaning * 4 * LRS / speed("MmclSsl")
        + 30 / 3600 * (2 + 6 * LRS)
    )
    assert found.work["defend"] / 3600 == pytest.approx(defending)
    encoded = 50_000 * 2 + 50_000 + 80_000
    evaluating = 7 * 2 * len(SEEDS) * (
        (2 + 20 * (1 + 6 * LRS)) * encoded / 3600 / (3 * speed("Mmcl"))
        + 30 / 3600 * (1 + 2 + 6 * LRS)
    )
    assert found.work["evaluate"] / 3600 == pytest.approx(evaluating)
    hours = pretraining + (found.work["defend"] + found.work["evaluate"]) / 3600
    assert found.wall / 3600 * gpus * found.busy == pytest.approx(hours)
    assert pretraining / hours == pytest.approx(0.725, abs=0.005)
    assert found.stored["pretrain"] == 7 * 2 * len(SEEDS) * round(scaling.MODEL)
