"""`run --plan` tells what the stages that are left will cost, or that it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bdbench.schema import Card
from tests.cli.conftest import Cli


@pytest.mark.parametrize(("processes", "places"), [
    (4, ["8 GPUs", "64 GPUs"]), (16, ["64 GPUs"]), (96, ["96 GPUs"]),
])
def test_hours_are_told_of_clusters_that_have_the_gpus_of_a_node(
    processes: int, places: list[str], smoke_card: Card, cli: Cli
) -> None:
    done = cli("run", "--recipe", "smoke", "--defense", "none", "--plan",
               "--set", "recipe.hardware.device=cuda", "--set", "recipe.pretrain.batch=96",
               "--set", f"recipe.hardware.processes={processes}")
    assert done.status == 0, done.err
    told = re.findall(r"^on (.*): ", done.out, re.MULTILINE)
    assert told == places


def test_the_plan_tells_what_it_costs(smoke_card: Card, shared_store: Path, cli: Cli) -> None:
    words = ["run", "--recipe", "smoke", "--attack", "badnet", "--objective", "mmcl_ssl",
             "--defense", "cleanclip", "--plan"]
    known = cli(*words, "--seed", "11").out
    assert "not counted" not in known
    assert "on this machine: " in known
    assert "through the store: 0.0 GB read and written" in known
    some = cli(*words, "--seed", "11", "--set", "recipe.pretrain.epochs=77").out
    assert "not counted, because no stage like it has run here: " in some
    row = next(line.split() for line in some.splitlines() if line.startswith("pretrain"))
    assert row[1:] == ["1", "0", "1", "?", "?"]
    reused = cli(*words).out
    assert "on this machine" not in reused
