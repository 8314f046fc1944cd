"""The picture of the data in the README is what the recipe trains and tests on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bdbench.registry import Registry
from tests.datasets.contact_sheet import COMMAND, RECIPE, SHEET, draw, pairs_shown, stamped

STALE = f"registry/datasets/shapes.png is not what the recipe makes; run `{COMMAND}`"


@pytest.fixture(scope="module")
def sheet():
    return draw()


def test_the_committed_sheet_is_what_the_script_draws(sheet):
    with Image.open(SHEET) as image:
        committed = np.asarray(image.convert("RGB")).astype(int)
    drawn = np.asarray(sheet).astype(int)
    assert committed.shape == drawn.shape, STALE
    # Type may be smoothed a little differently elsewhere, and a pixel rounded the other way.
    apart = np.abs(committed - drawn).max(2)
    assert apart.mean() < 0.1, STALE
    assert (apart > 48).sum() < 60, STALE


def test_drawing_it_again_gives_the_same_pixels(sheet):
    assert draw().tobytes() == sheet.tobytes()


def test_it_is_small_and_shows_every_class_and_attack():
    assert SHEET.stat().st_size < 400_000
    with Image.open(SHEET) as image:
        assert 1100 <= image.width <= 1400
    assert len({caption for caption, _ in pairs_shown()}) == 32
    (first, clean), *others = stamped()
    assert first == "clean"
    assert [name for name, _ in others] == list(Registry().recipe(RECIPE).attacks)
    for _, image in others:
        assert (image != clean).any()
