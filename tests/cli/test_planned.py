"""`run --plan` tells what the stages that are left will cost, or that it cannot."""

from __future__ import annotations

from pathlib import Path

from bdbench.schema import Card
from tests.cli.conftest import Cli


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
