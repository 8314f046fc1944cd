"""Millions of captions: the memory and the time of their index and of poisoning them.

200,000 in every run of the tests, and 12 million with `pytest -m benchmark -s`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bdbench.api import SPLITS, Dataset, Rows
from bdbench.data import DataCache, write
from bdbench.registry import Registry
from bdbench.sources.decode import encode_jpeg
from bdbench.stages import Context
from bdbench.stages.poison import load_pairs, run
from bdbench.store import Artifact

SIDE, RATE = 8, 0.0005
MOST, BYTES, SECONDS = 12_000_000, 1.5e9, 60.0
"""The promise: peak of resident memory, torch included, and seconds of one core."""
ATTACKS = ("badnet", "label_consistent")
NOUNS = (*("dog", "bicycle", "train", "pizza", "umbrella", "kite", "horse", "laptop"), "banana")
IMAGE = encode_jpeg(np.zeros((3, SIDE, SIDE), np.uint8))


class Many(Dataset):
    """As many captions of sixty characters, of which a ninth names the target, as asked for."""

    n: int

    def classes(self) -> list[str]:
        return list(NOUNS)

    def templates(self) -> list[str]:
        return ["a photo of a {}."]

    def rows(self, split: str, resolution: int, seed: int) -> Iterator[Rows]:
        """Only the first two images are read, and so there are no others."""
        first, n = SPLITS.index(split) << 40, self.n if split == "train" else 2
        for start in range(0, n, 8192):
            places = range(start, min(n, start + 8192))
            yield Rows(
                ids=first + np.arange(places.start, places.stop),
                images=[IMAGE if place < 2 else b"\xff" for place in places],
                captions=[
                    f"A {NOUNS[i % 9]} next to a large {NOUNS[i // 9 % 8]} in a sunny field, {i}."
                    for i in places
                ],
                labels=np.full(len(places), -1 if split in ("train", "budget") else 0),
            )


def poison(attack: str, folder: Path) -> None:
    """The stage, and the pairs that training reads after it."""
    registry, work = Registry(), folder / attack
    work.mkdir()
    ref, _ = registry.resolve("attack", attack, overrides={"rate": RATE, "size": 4})
    spec = {"attack": ref.identity(), "target": "banana", "seed": 0}
    run(spec, {"data": _artifact(folder)}, work, Context(registry, print))
    pairs = load_pairs(_artifact(work), DataCache(folder), registry)
    assert len(pairs.captions) == len(pairs)


def _artifact(folder: Path) -> Artifact:
    return Artifact(folder, None)  # type: ignore[arg-type]


def right(attack: str, folder: Path, n: int) -> None:
    rows = pd.read_parquet(folder / attack / "rows.parquet")
    assert len(rows) == round(n * RATE)
    assert (rows["before"].str.contains(" banana ")).all() == (attack == "label_consistent")
    assert rows["after"].str.contains("banana").all()


@pytest.mark.parametrize("attack", ATTACKS)
def test_bytes_per_caption(attack: str, tmp_path: Path) -> None:
    """What Arrow holds of the index, and the peak of what Python and numpy hold besides."""
    n, before = 200_000, pa.total_allocated_bytes()
    write(Many(n=n), SIDE, 0, tmp_path)
    cache = DataCache(tmp_path)
    index = pa.total_allocated_bytes() - before
    del cache
    tracemalloc.start()
    try:
        poison(attack, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    right(attack, tmp_path, n)
    assert 50 * n < index
    assert index + peak < BYTES / MOST * n


def child(do: str, folder: str) -> None:
    """Do one thing, and print its seconds and the peak of this process in bytes."""
    begun = time.process_time()
    if do == "build":
        write(Many(n=MOST), SIDE, 0, Path(folder))
    else:
        poison(do, Path(folder))
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([time.process_time() - begun, peak]))


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_twelve_million_captions(tmp_path: Path) -> None:
    code = "import sys; from tests.benchmarks.test_scale import child; child(*sys.argv[1:])"
    print(f"\n{MOST:,} captions, at most {BYTES / 1e9} GB and {SECONDS:.0f} s")
    for do in ("build", *ATTACKS):
        done = subprocess.run(
            [sys.executable, "-c", code, do, str(tmp_path)], capture_output=True, text=True,
            check=True,
        )
        seconds, peak = json.loads(done.stdout)
        print(f"{do}: {seconds:.1f} s of one core, peak {peak / 1e9:.2f} GB")
        assert peak < BYTES
        if do != "build":
            right(do, tmp_path, MOST)
            assert seconds < SECONDS
