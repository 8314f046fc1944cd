"""Draw `leaderboards/<track>/evidence.png`: `python -m tests.leaderboard.evidence_figure TRACK`.

What the defenses of the declared statistic leave of the attack: the lowest ASR among the models
that lose at most so much clean accuracy, a thin line per seed and the mean over the seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bdbench.leaderboard.folder import load_track, read_submission
from bdbench.leaderboard.statistic import lowest_asr
from bdbench.registry import share_dir
from bdbench.schema import Card

COMMAND = "python -m tests.leaderboard.evidence_figure"
LOSSES: NDArray[np.float64] = np.linspace(0, 0.10, 101)
COLOURS = ("#c1121f", "#1d4e89")
"""Of the defense and of the baseline."""
INK = "#222222"


def lowest(card: Card) -> NDArray[np.float64]:
    """The lowest ASR within each of `LOSSES`, all in [0, 1]."""
    return np.array([lowest_asr(card.trajectory, loss) for loss in LOSSES])


def curves(track: str) -> dict[tuple[str, str], NDArray[np.float64]]:
    """By objective and defense, [seeds, losses]."""
    declared = load_track(track).statistic
    assert declared is not None
    found = {}
    for defense in (declared.defense, declared.baseline):
        path = share_dir("leaderboards") / track / "evidence" / f"{defense}.json"
        cards = read_submission(path).cards
        for objective in declared.objectives:
            chosen = [card for card in cards if card.cell.objective == objective]
            assert {card.cell.seed for card in chosen} == set(declared.seeds)
            found[objective, defense] = np.array([lowest(card) for card in chosen])
    return found


def draw(track: str, path: Path) -> None:
    """Write the figure as PNG."""
    found = curves(track)
    objectives = list(dict.fromkeys(objective for objective, _ in found))
    defenses = list(dict.fromkeys(defense for _, defense in found))
    with style.context("default", after_reset=True):
        page = Figure(figsize=(7.2, 3.4), dpi=200, facecolor="white", layout="constrained")
        axes = page.subplots(1, len(objectives), sharey=True)
        for place, objective in zip(axes, objectives, strict=True):
            for colour, defense in zip(COLOURS, defenses, strict=True):
                for seed in found[objective, defense]:
                    place.step(100 * LOSSES, 100 * seed, colour, where="post", lw=0.6, alpha=0.35)
                mean = found[objective, defense].mean(0)
                place.step(100 * LOSSES, 100 * mean, colour, where="post", lw=2, label=defense)
            place.set_title(f"pre-trained with {objective}", fontsize=9, color=INK, loc="left")
            place.set_xlabel("clean accuracy lost at most, points", fontsize=8, color=INK)
            place.set_xlim(0, 100 * LOSSES[-1])
            place.set_ylim(-2, 102)
            place.tick_params(labelsize=8, colors=INK)
            place.grid(color="#e5e7eb", lw=0.6)
            place.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel("lowest ASR, per cent", fontsize=8, color=INK)
        axes[-1].legend(frameon=False, fontsize=8)
        page.savefig(path, format="png", metadata={"Software": None})


if __name__ == "__main__":
    for name in sys.argv[1:]:
        draw(name, share_dir("leaderboards") / name / "evidence.png")
