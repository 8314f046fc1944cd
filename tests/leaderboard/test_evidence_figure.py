"""The figures of the declared statistics are drawn from the evidence that is checked in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdbench.leaderboard.folder import load, load_track, names
from bdbench.leaderboard.standing import standing
from bdbench.registry import share_dir
from tests.leaderboard.evidence_figure import COMMAND, LOSSES, curves, draw

FOLDER = share_dir("leaderboards")
DRAWN = [name for name in names() if (FOLDER / name / "evidence").is_dir()]


@pytest.mark.parametrize("track", DRAWN)
def test_the_committed_figure_is_what_the_script_draws(track: str, tmp_path: Path) -> None:
    stale = f"leaderboards/{track}/evidence.png is old; run `{COMMAND} {track}`"
    draw(track, tmp_path / "new.png")
    pixels = []
    for path in (FOLDER / track / "evidence.png", tmp_path / "new.png"):
        with Image.open(path) as image:
            pixels.append(np.asarray(image.convert("RGB")).astype(int))
    assert pixels[0].shape == pixels[1].shape, stale
    # Type may be smoothed a little differently elsewhere.
    assert np.abs(pixels[0] - pixels[1]).max(2).mean() < 0.5, stale


@pytest.mark.parametrize("track", DRAWN)
def test_the_curves_are_those_of_the_statistic(track: str) -> None:
    declared, found = load_track(track).statistic, standing(load(track)).finding
    assert declared is not None
    assert found is not None
    drawn = curves(track)
    at = [int(np.flatnonzero(np.isclose(LOSSES, loss))[0]) for loss in declared.losses]
    for objective in declared.objectives:
        gap = drawn[objective, declared.baseline] - drawn[objective, declared.defense]
        assert gap[:, at].mean() == pytest.approx(found.removed[objective].value, abs=1e-9)
