"""How fast `shapes` is made; run with `pytest -m benchmark -s`."""

from __future__ import annotations

import statistics
import time

import pytest

from bdbench.datasets.shapes import Shapes
from tests.benchmarks.conftest import Measured
from tests.benchmarks.table import spread

ROUNDS, LEAST = 5, 3000


@pytest.mark.benchmark
def test_images_per_second(measured: Measured) -> None:
    """At 32 px; numpy uses one thread for all that is done here."""
    dataset, speeds = Shapes(train=6000), []
    for round_ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        count = sum(len(rows.ids) for rows in dataset.rows("train", 32, round_))
        seconds, busy = time.perf_counter() - wall, time.process_time() - cpu
        assert busy < 1.2 * seconds
        speeds.append(count / seconds)
    measured("drawing images at 32 px", f"{spread(speeds, ',.0f')} a second", f"at least {LEAST:,}")
    assert statistics.median(speeds) >= LEAST
