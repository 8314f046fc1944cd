"""What a large matrix costs besides its stages: planning, and a run that finds everything there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bdbench.plan import cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card
from bdbench.store import Store
from tests.benchmarks.matrix import fill

CODE = (
    "import sys; from bdbench.cli.main import app;"
    "app(sys.argv[1:], standalone_mode=False);"
    "print('torch' in sys.modules, file=sys.stderr)"
)


def rerun(seeds: int, card: Card, folder: Path) -> tuple[float, int, str]:
    """Seconds, cells and the last line of a run of cached cells in a fresh process."""
    registry, store = Registry(), Store(folder)
    wanted = cells(registry, recipe="smoke", attacks=["all"], objectives=["mmcl", "mmcl_ssl"],
                   defenses=["all"], seeds=range(seeds))
    fill(plan(registry, wanted), store, card)
    words = ["run", "--recipe", "smoke", "--attack", "all", "--objective", "mmcl", "--objective",
             "mmcl_ssl", "--defense", "all"]
    for seed in range(seeds):
        words += ["--seed", str(seed)]
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE, *words], capture_output=True, text=True, check=False,
        env={**os.environ, "BDBENCH_HOME": str(folder)},
    )
    seconds = time.perf_counter() - begun
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("card: ") == len(wanted)
    return seconds, len(wanted), done.stderr.splitlines()[-1]


def test_a_cached_matrix_runs_again_without_torch(smoke_card: Card, tmp_path: Path) -> None:
    assert rerun(1, smoke_card, tmp_path)[1:] == (50, "False")


@pytest.mark.benchmark
def test_500_cached_cells_take_under_ten_seconds(smoke_card: Card, tmp_path: Path) -> None:
    seconds, count, torch = rerun(10, smoke_card, tmp_path)
    print(f"\n{count} cached cells: {seconds:.1f} s")
    assert (count, torch) == (500, "False")
    assert seconds < 10


@pytest.mark.benchmark
def test_10000_cells_plan_in_under_ten_seconds() -> None:
    begun = time.perf_counter()
    registry = Registry()
    wanted = cells(registry, recipe="tiny", attacks=["all"], objectives=["all"],
                   defenses=["all"], seeds=range(134))
    todo = plan(registry, wanted)
    seconds = time.perf_counter() - begun
    print(f"\n{len(wanted):,} cells, {len(todo.nodes):,} stages: {seconds:.1f} s")
    assert len(wanted) > 10_000
    assert seconds < 10
