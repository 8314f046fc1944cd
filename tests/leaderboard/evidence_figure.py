"""Draw `leaderboards/<track>/evidence.png`: `python -m tests.leaderboard.evidence_figure TRACK`.

What the defenses of the declared statistic leave of the attack.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bdbench.cards.frontiers import curve, figure
from bdbench.leaderboard.folder import load_track, read_submission
from bdbench.registry import share_dir

COMMAND = "python -m tests.leaderboard.evidence_figure"


def curves(track: str) -> dict[str, dict[str, list[list[float]]]]:
    """By objective and defense, for each seed: the lowest ASR within each loss."""
    declared = load_track(track).statistic
    assert declared is not None
    found: dict[str, dict[str, list[list[float]]]] = {name: {} for name in declared.objectives}
    for defense in (declared.defense, declared.baseline):
        path = share_dir("leaderboards") / track / "evidence" / f"{defense}.json"
        cards = read_submission(path).cards
        for objective in declared.objectives:
            chosen = [card for card in cards if card.cell.objective == objective]
            assert {card.cell.seed for card in chosen} == set(declared.seeds)
            found[objective][defense] = [curve(card) for card in chosen]
    return found


def draw(track: str, path: Path) -> None:
    """Write the figure as PNG."""
    found = curves(track)
    figure({f"pre-trained with {name}": lines for name, lines in found.items()}, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        draw(name, share_dir("leaderboards") / name / "evidence.png")
