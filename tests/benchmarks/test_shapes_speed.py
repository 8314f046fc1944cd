"""How fast `shapes` is made; run with `pytest -m benchmark -s`."""

from __future__ import annotations

import statistics
import time

import pytest

from bdbench.datasets.shapes import Shapes

ROUNDS, LEAST = 5, 3000


@pytest.mark.benchmark
def test_images_per_second() -> None:
    """At 32 px; numpy uses one thread for all that is done here."""
    dataset, speeds = Shapes(train=6000), []
    for round_ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        count = sum(len(rows.ids) for rows in dataset.rows("train", 32, round_))
        seconds, busy = time.perf_counter() - wall, time.process_time() - cpu
        assert busy < 1.2 * seconds
        speeds.append(count / seconds)
    print(f"\nshapes at 32 px: median {statistics.median(speeds):,.0f} images/s"
          f" ({min(speeds):,.0f} to {max(speeds):,.0f}) of {ROUNDS}, at least {LEAST:,}")
    assert statistics.median(speeds) >= LEAST
