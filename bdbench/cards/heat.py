"""A heat map of one attack: what each defense leaves of it, on models of each objective."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdbench.cards.matrix import PICKS, grouped, picked, worked
from bdbench.cards.text import clean
from bdbench.schema import Card

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _QUIET, _FAILED = "#222222", "#6b7280", "#d1d5db"
_MAP = "YlOrRd"
"""From pale to dark in greyscale too."""
_DARK = 0.62
"""ASR from which on the figures are white."""


def draw(cards: Sequence[Card], path: Path) -> None:
    """Write the figure as PNG, the same bytes for the same cards of one attack.

    A place is coloured by the ASR of the blind selection, the mean over the seeds whose undefended
    attack worked, with the points of clean accuracy that were lost below.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    cell = cards[0].cell
    objectives = list(dict.fromkeys(card.cell.objective for card in cards))
    defenses = list(dict.fromkeys(card.cell.defense for card in cards))
    seeds = len({card.cell.seed for card in cards})
    widest = max(map(len, map(clean, defenses)))
    with style.context("default", after_reset=True):
        page = Figure(
            figsize=(1.6 + 0.075 * widest + 1.35 * len(objectives), 1.15 + 0.52 * len(defenses)),
            dpi=200, facecolor="white", layout="constrained",
        )
        axes = page.subplots()
        for (_, objective, defense), same in grouped(cards).items():
            _place(axes, objectives.index(objective), defenses.index(defense), same)
        axes.set_xlim(-0.5, len(objectives) - 0.5)
        axes.set_ylim(len(defenses) - 0.5, -0.5)
        axes.set_xticks(range(len(objectives)), list(map(clean, objectives)))
        axes.set_yticks(range(len(defenses)), list(map(clean, defenses)))
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)
        axes.tick_params(length=0, labelsize=9, colors=_INK, labeltop=True, labelbottom=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        page.suptitle(
            clean(f"{cell.attack} on {cell.recipe}" + (f", {seeds} seeds" if seeds > 1 else "")),
            fontsize=10, fontweight="bold", color=_INK, x=0.01, ha="left", parse_math=False,
        )
        page.supxlabel(
            "ASR of the blind selection, per cent\nbelow: points of clean accuracy lost",
            fontsize=7, color=_QUIET, x=0.01, ha="left",
        )
        page.savefig(path, format="png", metadata={"Software": None})


def _place(axes: Axes, x: int, y: int, cards: Sequence[Card]) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    counted = worked(cards)
    corner = (x - 0.48, y - 0.46)
    if not counted:
        axes.add_patch(Rectangle(
            corner, 0.96, 0.92, facecolor="white", edgecolor=_FAILED, hatch="////", linewidth=0,
        ))
        axes.text(x, y, "attack failed", ha="center", va="center", fontsize=7, color=_QUIET,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
        return
    points = picked(counted, PICKS["blind"])
    asr = sum(point.scores["asr_top1"].value for point in points) / len(points)
    lost = sum(
        card.trajectory[0].scores["clean_top1"].value - point.scores["clean_top1"].value
        for card, point in zip(counted, points, strict=True)
    ) / len(points)
    ink = "white" if asr > _DARK else _INK
    axes.add_patch(Rectangle(corner, 0.96, 0.92, color=colormaps[_MAP](0.9 * asr), linewidth=0))
    axes.text(x, y - 0.1, f"{100 * asr:.1f}", ha="center", va="center", fontsize=11, color=ink)
    some = f"  ({len(counted)} of {len(cards)} seeds)" if len(counted) < len(cards) else ""
    axes.text(
        x, y + 0.26, f"{100 * lost:z.1f}{some}".replace("-", "−"), ha="center", va="center",
        fontsize=6.5, color=ink,
    )
