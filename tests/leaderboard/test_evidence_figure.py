"""The figures of the declared statistics, in pictures and words, are of the checked in evidence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from bdbench.cards.frontiers import LOSSES
from bdbench.leaderboard.folder import load, load_track, names
from bdbench.leaderboard.standing import standing
from bdbench.registry import share_dir
from tests.leaderboard.evidence_figure import COMMAND, curves, draw
from tests.pictures import alike

FOLDER = share_dir("leaderboards")
DRAWN = [name for name in names() if (FOLDER / name / "evidence").is_dir()]


@pytest.mark.parametrize("track", DRAWN)
def test_the_committed_figure_is_what_the_script_draws(track: str, tmp_path: Path) -> None:
    stale = f"leaderboards/{track}/evidence.png is old; run `{COMMAND} {track}`"
    draw(track, tmp_path / "new.png")
    assert alike(FOLDER / track / "evidence.png", tmp_path / "new.png"), stale


@pytest.mark.parametrize("track", DRAWN)
def test_the_curves_are_those_of_the_statistic(track: str) -> None:
    declared, found = load_track(track).statistic, standing(load(track)).finding
    assert declared is not None
    assert found is not None
    drawn = curves(track)
    at = [int(np.flatnonzero(np.isclose(LOSSES, loss))[0]) for loss in declared.losses]
    for objective in declared.objectives:
        lines = {name: np.array(seeds) for name, seeds in drawn[objective].items()}
        gap = lines[declared.baseline] - lines[declared.defense]
        assert gap[:, at].mean() == pytest.approx(found.removed[objective].value, abs=1e-9)


def mean_of_five(values: list[float]) -> str:
    half = 2.776445 * np.std(values, ddof=1) / 5**0.5  # Student's 97.5 % quantile, 4 degrees
    middle = np.mean(values)
    return f"{middle:.1f} [{middle - half:.1f}, {middle + half:.1f}]"


def test_what_the_readme_says_of_coco_mini() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lowest: dict[tuple[str, str, int], dict[int, float]] = {}
    lost: dict[str, list[float]] = {"mmcl": [], "mmcl_ssl": []}
    for defense in ("finetune", "cleanclip"):
        path = FOLDER / "coco_mini" / "evidence" / f"{defense}.json"
        for card in json.loads(path.read_text(encoding="utf-8"))["cards"]:
            objective, seed = card["cell"]["objective"], card["cell"]["seed"]
            models = [
                tuple(100 * one["scores"][name]["value"] for name in ("clean_top1", "asr_top1"))
                for one in card["trajectory"]
            ]
            start, asr = models[0]
            assert (20.0 <= round(start, 1) <= 23.8 and 99.4 <= round(asr, 1) <= 100.0
                    if objective == "mmcl" else
                    22.9 <= round(start, 1) <= 26.3 and 71.6 <= round(asr, 1) <= 94.6)
            lowest[defense, objective, seed] = {
                loss: min(asr for clean, asr in models if clean >= start - loss - 1e-9)
                for loss in (3, 5, 8)
            }
            if clean := [clean for clean, asr in models if asr <= 1]:
                lost[objective].append(start - max(clean))
    block = re.search(r"<!-- coco_mini -->\n(.*?)\n\n", readme, re.DOTALL)
    assert block
    rows = iter(block[1].splitlines()[2:])
    seeds = sorted({seed for _, _, seed in lowest})
    for objective in ("mmcl", "mmcl_ssl"):
        for defense in ("finetune", "cleanclip"):
            cells = [cell.strip() for cell in next(rows).split("|")[3:6]]
            assert cells == [
                mean_of_five([lowest[defense, objective, seed][loss] for seed in seeds])
                for loss in (3, 5, 8)
            ]
    text = " ".join(readme.split())
    for defense, words in {"finetune": "with fine-tuning", "cleanclip": "with CleanCLIP"}.items():
        apart = mean_of_five([
            lowest[defense, "mmcl_ssl", seed][5] - lowest[defense, "mmcl", seed][5]
            for seed in seeds
        ])
        assert f"{apart} {words}" in text.replace("points of ASR [", "[")
    assert "by eight of the ten sweeps" in text
    assert "a loss of 3.2 to 5.6 points, and by none" in text
    at_one = lost["mmcl"]
    assert (len(at_one), f"{min(at_one):.1f}", f"{max(at_one):.1f}") == (8, "3.2", "5.6")
    assert lost["mmcl_ssl"] == []
