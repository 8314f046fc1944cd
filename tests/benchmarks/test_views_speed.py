"""How fast views are made on one core; run with `pytest -m benchmark -s`."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from bdbench import wordnet
from bdbench.augment import image_views, text_views
from bdbench.schema import Augment
from bdbench.vision import declare_operators

BATCH, ROUNDS = 128, 20
SIDES = {32: 3000, 64: 1200}
"""Images a second, at least, by their side in pixels."""
CAPTIONS, LEAST, GROWTH = 1_000_000, 40_000, 64
"""Captions, how many a second at least, and by how many MiB memory may grow meanwhile."""


class Drawn(Sequence[str]):
    """Captions of eleven words, made as they are read."""

    NOUNS = ("dog", "bicycle", "train", "pizza", "umbrella", "kite", "horse", "laptop", "boat")

    def __len__(self) -> int:
        return CAPTIONS

    def __getitem__(self, i):
        noun, other = self.NOUNS[i % 9], self.NOUNS[i // 9 % 9]
        return f"A {noun} next to a large {other} in a sunny field."

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.benchmark
@pytest.mark.parametrize("side", SIDES)
def test_images_per_second(side: int) -> None:
    """Batched, against torchvision's transform of one image after the other."""
    declare_operators()
    from torchvision.transforms import AutoAugment

    pixels = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8)
    augment, generator = Augment(policy="autoaugment"), torch.Generator().manual_seed(0)
    transform = AutoAugment()

    def speed(views) -> float:
        views()
        start = time.process_time()
        for _ in range(ROUNDS):
            views()
        return ROUNDS * BATCH / (time.process_time() - start)

    ours = speed(lambda: image_views(pixels / 255, augment, generator))
    each = speed(lambda: torch.stack([transform(image) for image in pixels]) / 255)
    print(f"\nAutoAugment at {side} px: {ours:,.0f} images/s, one after the other {each:,.0f};"
          f" at least {SIDES[side]:,}")
    assert ours >= SIDES[side]
    assert ours > each


@pytest.mark.benchmark
@pytest.mark.parametrize("synonyms", [None, False, True])
def test_captions_per_second(synonyms: bool | None) -> None:
    if synonyms and not wordnet.installed():
        pytest.skip("WordNet's data is not installed")
    captions, augment = Drawn(), Augment(synonyms=synonyms)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    count = sum(1 for _ in text_views(captions, augment, np.random.default_rng(0)))
    speed = count / (time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"\nEDA, synonyms {synonyms}: {speed:,.0f} captions/s, at least {LEAST:,};"
          f" {grown:.0f} MiB more memory, at most {GROWTH}")
    assert count == len(captions)
    assert speed >= LEAST
    assert grown <= GROWTH
