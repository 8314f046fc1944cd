"""The whole default command on an empty store: wall time and memory against its bare loops."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bdbench.api import FineTuning, Objective
from bdbench.clip import Clip
from bdbench.data import DataCache
from bdbench.environment import cores
from bdbench.plan import cells, plan
from bdbench.registry import Registry
from bdbench.schema import Training
from bdbench.store import Store
from tests.benchmarks.bare import loop, ready
from tests.benchmarks.conftest import Measured

FACTOR, START, LONGEST, MEMORY = 1.25, 15.0, 180.0, 2e9


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def memory(pid: int) -> int:
    """Bytes of a process and its descendants, shared pages counted once."""
    total = 0
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def bare_seconds(home: Path) -> float:
    """The bare loops of the default cell: the pre-training, then the sweep spread over the cores.

    The runs of the sweep are timed alone on one thread, which is faster than side by side.
    """
    registry, store = Registry(), Store(home)
    todo = plan(registry, cells(registry, recipe="tiny", attacks=["badnet"],
                                objectives=["mmcl_ssl"], defenses=["cleanclip"], seeds=[0]))
    recipe, nodes = registry.recipe("tiny"), list(todo.nodes.values())
    data = DataCache(store.open("data", next(n.key for n in nodes if n.stage == "data")).path)
    objective = registry.build(
        "objective", next(n.spec["objective"] for n in nodes if n.stage == "pretrain")
    )
    assert isinstance(objective, Objective)
    pairs = data.pairs("train")
    clip = Clip.build(recipe.model, pairs.captions, 0)
    torch.set_num_threads(recipe.threads.pretrain)
    batches = ready(clip, objective, pairs, recipe.pretrain.batch)
    seconds = loop(clip, objective, batches, recipe.pretrain).whole
    torch.set_num_threads(recipe.threads.defend)
    defends = [n for n in nodes if n.stage == "defend"]
    defense = registry.build("defense", defends[0].spec["defense"])
    assert isinstance(defense, FineTuning)
    training = Training(lr=defense.lr, epochs=defense.epochs, batch=defense.batch)
    batches = ready(clip, defense.objective(), data.pairs("budget"), training.batch)
    one = loop(clip, defense.objective(), batches, training).whole
    return seconds + len(defends) * one / min(cores(), len(defends))


@pytest.mark.benchmark
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_the_default_command(measured: Measured, tmp_path: Path) -> None:
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, "-c", "from bdbench.cli.main import main; main()", "run"],
        env={**os.environ, "BDBENCH_HOME": str(tmp_path)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.2)
    ours = time.perf_counter() - begun
    assert process.returncode == 0
    floor = bare_seconds(tmp_path)
    measured(
        "the first command above, all of it", f"{ours:.0f} s, of which bare loops {floor:.0f} s",
        f"{FACTOR} x bare + {START:.0f} s = {FACTOR * floor + START:.0f} s",
    )
    measured("its peak memory, all processes", f"{peak / 1e9:.2f} GB", f"{MEMORY / 1e9:.0f} GB")
    assert ours <= min(FACTOR * floor + START, LONGEST)
    assert peak <= MEMORY
