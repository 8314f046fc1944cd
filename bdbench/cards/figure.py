"""The figure of a card: clean accuracy against attack success rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdbench.cards.select import PAPER_BOUND
from bdbench.cards.text import clean, setting
from bdbench.schema import Card, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Entry = tuple[Any, str]
"""What a legend shows: a drawn handle and its label."""

SHAPE_BLIND = "shape_blind_oracle"
"""The entry of `card.data` drawn as a reference line, where a dataset has it."""

_INK, _QUIET, _REGION, _MARK = "#222222", "#6b7280", "#2a9d8f", "#c1121f"
# From the gentlest run to the most aggressive; the pale end of the scale is left out.
_SCALE, _SCALE_FROM, _SCALE_TO = "viridis_r", 0.12, 0.95
_NEAR = 20.0
"""Points of accuracy within which the shape-blind oracle widens the axes."""
_LEGEND_RUNS = 9
_LEGEND_ROW = 0.058
"""Height of a row as a share of the axes."""


def draw(card: Card, path: Path) -> None:
    """Write the figure to `path` as PNG, the same bytes for the same card.

    A line per run, coloured by its place in the sweep, with a point per epoch; the starting model
    as a star; the selections ringed; the region that the paper and the recipe would accept shaded.
    Both axes are in per cent.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context("default", after_reset=True):
        page = Figure(figsize=(7.2, 4.5), dpi=200, facecolor="white")
        axes = page.add_axes((0.085, 0.125, 0.615, 0.735))
        _frame(axes, card)
        region = _region(axes, card)
        runs = list(_runs(axes, card))
        _legends(axes, [*_marks(axes, card), region], runs)
        _title(page, card)
        page.savefig(path, format="png", metadata={"Software": None})


def _xy(point: Point) -> tuple[float, float]:
    return 100 * point.scores["clean_top1"].value, 100 * point.scores["asr_top1"].value


def _frame(axes: Axes, card: Card) -> None:
    """Limits, labels and grid. The accepted region is always in view."""
    start = _xy(card.trajectory[0])[0]
    seen = [_xy(point)[0] for point in card.trajectory]
    for point in _selected(card):
        score = point.scores["clean_top1"]
        seen += [100 * score.low, 100 * score.high]
    seen.append(start - 100 * card.recipe.selection.tolerance)
    if SHAPE_BLIND in card.data and 100 * card.data[SHAPE_BLIND] > min(seen) - _NEAR:
        seen.append(100 * card.data[SHAPE_BLIND])
    margin = 0.05 * (max(seen) - min(seen)) + 0.5
    axes.set_xlim(max(min(seen) - margin, -1.5), min(max(seen) + margin, 101.5))
    axes.set_ylim(-3, 103)
    axes.set_xlabel("Clean zero-shot accuracy (%)", color=_INK)
    axes.set_ylabel("Attack success rate (%)", color=_INK)
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")


def _region(axes: Axes, card: Card) -> Entry:
    """Where a defense has worked, and what is reached without seeing the shape."""
    from matplotlib.patches import Rectangle

    tolerance = 100 * card.recipe.selection.tolerance
    left = _xy(card.trajectory[0])[0] - tolerance
    low, right = axes.get_ylim()[0], axes.get_xlim()[1]
    size = right - left, 100 * PAPER_BOUND - low
    region = Rectangle((left, low), *size, color=_REGION, alpha=0.25, linewidth=0)
    axes.add_patch(region)
    if SHAPE_BLIND in card.data:
        blind, (left, right) = 100 * card.data[SHAPE_BLIND], axes.get_xlim()
        seen = left <= blind <= right
        if seen:
            axes.axvline(blind, color=_QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        # Beyond the axes it is told at the edge: a far line would squeeze everything else.
        axes.annotate(
            f"{'' if seen else '← ' if blind < left else '→ '}shape-blind oracle {blind:.1f}",
            (min(max(blind, left), right), 50), (3 if blind <= right else -9, 0),
            textcoords="offset points", rotation=90, va="center", fontsize=7, color=_QUIET,
        )
    return region, f"accepted: ASR ≤ {100 * PAPER_BOUND:g} %,\naccuracy loss ≤ {tolerance:g} points"


def _runs(axes: Axes, card: Card) -> Iterator[Entry]:
    """Draw every run from the starting model on; its handle and label for the legend."""
    from matplotlib import colormaps

    runs: dict[int, list[Point]] = {}
    for point in card.trajectory[1:]:
        runs.setdefault(point.order, []).append(point)
    orders = sorted(runs)
    for i, order in enumerate(orders):
        share = i / (len(orders) - 1) if len(orders) > 1 else 0.6
        colour = colormaps[_SCALE](_SCALE_FROM + (_SCALE_TO - _SCALE_FROM) * share)
        run = sorted(runs[order], key=lambda point: point.step)
        x, y = zip(*map(_xy, [card.trajectory[0], *run]), strict=True)
        axes.plot(x[:2], y[:2], color=colour, linewidth=0.9, linestyle=":", zorder=2)
        (line,) = axes.plot(
            x[1:], y[1:], color=colour, linewidth=1.5, marker="o", markersize=3.6,
            markeredgecolor="white", markeredgewidth=0.4, zorder=3,
        )
        axes.plot(
            x[-1:], y[-1:], color=colour, marker="o", markersize=5.5, markeredgecolor="white",
            markeredgewidth=0.6, zorder=3,
        )
        yield line, clean(setting(run[0].sweep) or card.cell.defense)


def _marks(axes: Axes, card: Card) -> Iterator[Entry]:
    """Draw the starting model and the selections; shapes nest, so that all show on one model."""
    start, picked = card.trajectory[0], card.selections
    star = axes.scatter(*_xy(start), marker="*", s=120, color=_INK, linewidth=0, zorder=4)
    yield star, "undefended"
    for point in _selected(card):
        x, y = _xy(point)
        cross: dict[str, Any] = {"color": _MARK, "linewidth": 0.8, "alpha": 0.6, "zorder": 2.5}
        across, along = point.scores["clean_top1"], point.scores["asr_top1"]
        axes.hlines(y, 100 * across.low, 100 * across.high, **cross)
        axes.vlines(x, 100 * along.low, 100 * along.high, **cross)
    for position, marker, size, label in (
        (picked.blind, "o", 150, "blind (ranked)"),
        (picked.last, "s", 240, "last epoch, default"),
        (_oracle(card), "D", 290, f"oracle, ASR ≤ {100 * PAPER_BOUND:g} %"),
    ):
        if position is not None:
            ring = axes.scatter(
                *_xy(card.trajectory[position]), marker=marker, s=size, facecolor="none",
                edgecolor=_MARK, linewidth=1.4, zorder=5, clip_on=False,
            )
            yield ring, label


def _oracle(card: Card) -> int | None:
    """What the paper's rule picked, if the recipe asked for its bound and a model is within."""
    bounds = card.selections.oracle.items()
    return next((i for bound, i in bounds if float(bound) == PAPER_BOUND), None)


def _selected(card: Card) -> list[Point]:
    """The marked models, each once."""
    positions = {card.selections.blind, card.selections.last, _oracle(card)}
    return [card.trajectory[i] for i in sorted(i for i in positions if i is not None)]


def _legends(axes: Axes, marks: list[Entry], runs: list[Entry]) -> None:
    """Two keys beside the axes: the selected models, and the runs from gentle to aggressive."""
    from matplotlib.legend import Legend

    title = "Runs, a point per epoch"
    if len(runs) > _LEGEND_RUNS:
        title += f",\n{_LEGEND_RUNS} of {len(runs)} named"
        step = (len(runs) - 1) / (_LEGEND_RUNS - 1)
        runs = [runs[round(i * step)] for i in range(_LEGEND_RUNS)]
    top = 1.0
    for heading, entries in (("Models with 95 % intervals", marks), (title, runs)):
        if not entries:
            continue
        handles, labels = zip(*entries, strict=True)
        key = Legend(
            axes, handles, labels, title=heading, loc="upper left", alignment="left",
            bbox_to_anchor=(1.03, top), borderaxespad=0, frameon=False, fontsize=8,
            title_fontsize=8, labelspacing=0.7, markerscale=0.65,
        )
        key.get_title().set_fontweight("bold")
        for text in key.get_texts():
            text.set_parse_math(False)
        axes.add_artist(key)
        top -= _LEGEND_ROW * (len(entries) + heading.count("\n") + 2.4)


def _title(page: Figure, card: Card) -> None:
    cell = card.cell
    state = {"ok": "", "attack_failed": "  ·  attack failed, not ranked", "control": "  ·  control"}
    page.text(
        0.085, 0.94, clean(f"{cell.defense} against {cell.attack} on {cell.objective}"),
        fontsize=11, fontweight="bold", color=_INK, parse_math=False,
    )
    page.text(
        0.085, 0.895, clean(f"recipe {cell.recipe}, seed {cell.seed}") + state[card.verdict.status],
        fontsize=8, color=_QUIET, parse_math=False,
    )
