"""What defenses leave of an attack: the lowest ASR among models that lose so much accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdbench.cards.matrix import grouped, worked
from bdbench.cards.select import lowest_asr
from bdbench.cards.text import clean
from bdbench.schema import Card

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = [step / 1000 for step in range(101)]
"""Losses of clean accuracy that are drawn: none to ten points."""
COLOURS = (
    "#c1121f", "#1d4e89", "#2a9d8f", "#e09f3e", "#7b2d8b", "#6b7280", "#8d5524", "#d6669c",
)
"""One per defense, in the order given; told apart by the colour-blind as far as eight can be."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)))
"""Of the first eight defenses, the next eight, and so on."""
_INK, _ACROSS = "#222222", 4

Curves = Mapping[str, Sequence[Sequence[float]]]
"""By defense, for each seed: the lowest ASR within each of `LOSSES`."""


def curve(card: Card) -> list[float]:
    """The lowest ASR within each of `LOSSES`, rates in [0, 1]."""
    return [lowest_asr(card.trajectory, loss) for loss in LOSSES]


def draw(cards: Sequence[Card], path: Path) -> None:
    """Write the figure of one objective as PNG: a panel per attack, a line per defense.

    Seeds whose attack failed are left out, and with all of them the panel.
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    for (attack, _, defense), same in grouped(cards).items():
        if counted := worked(same):
            some = f" ({len(counted)} of {len(same)} seeds)" if len(counted) < len(same) else ""
            lines = found.setdefault(f"against {attack}{some}", {})
            lines[defense] = [curve(card) for card in counted]
    seeds = len({card.cell.seed for card in cards})
    figure(
        found, path,
        f"{cards[0].cell.recipe}, pre-trained with {cards[0].cell.objective}"
        + (f", {seeds} seeds: a thin line each, and their mean" if seeds > 1 else ""),
    )


def figure(panels: Mapping[str, Curves], path: Path, title: str = "") -> None:
    """Write panels of curves, by their titles, as PNG; the same bytes for the same curves."""
    from matplotlib import style
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    across = min(len(panels), _ACROSS)
    down = -(-len(panels) // across)
    with style.context("default", after_reset=True):
        page = Figure(
            figsize=(max(4.2, 2.9 * across + 0.6), 2.9 * down + 0.5), dpi=200, facecolor="white",
            layout="constrained",
        )
        places = page.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat
        for axes, (heading, lines) in zip(places, panels.items(), strict=False):
            _panel(axes, heading, lines, names)
        for axes in list(places)[len(panels):]:
            axes.set_visible(False)
        _labels(page, title, names)
        page.savefig(path, format="png", metadata={"Software": None})


def _panel(axes: Axes, heading: str, lines: Curves, names: Sequence[str]) -> None:
    across = [100 * loss for loss in LOSSES]
    for name, seeds in lines.items():
        look: dict[str, Any] = _look(names.index(name)) | {"where": "post"}
        for seed in seeds if len(seeds) > 1 else ():
            axes.step(across, [100 * asr for asr in seed], lw=0.6, alpha=0.35, **look)
        mean = [100 * sum(column) / len(column) for column in zip(*seeds, strict=True)]
        axes.step(across, mean, lw=1.8, **look)
    axes.set_title(clean(heading), fontsize=9, color=_INK, loc="left", parse_math=False)
    axes.set_xlim(0, across[-1])
    axes.set_ylim(-2, 102)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(color="#e5e7eb", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _look(place: int) -> dict[str, Any]:
    turn, place = divmod(place, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": DASHES[turn % len(DASHES)]}


def _labels(page: Figure, title: str, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    page.supxlabel("clean accuracy lost at most, points", fontsize=8, color=_INK)
    page.supylabel("lowest ASR, per cent", fontsize=8, color=_INK)
    if title:
        page.suptitle(
            clean(title), fontsize=9, color=_INK, x=0.01, ha="left", parse_math=False
        )
    key = page.legend(
        [Line2D([], [], lw=1.8, **_look(i)) for i in range(len(names))], list(map(clean, names)),
        loc="outside right upper", frameon=False, fontsize=8,
    )
    for text in key.get_texts():
        text.set_parse_math(False)
