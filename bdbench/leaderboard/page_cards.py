"""Cards as JSON data for the page: short arrays, six digits, what cards share said once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from typing import Any

from bdbench.cards.escape import clean
from bdbench.cards.select import frontier, values
from bdbench.cards.text import HEADLINE, parameters, place, rules, setting
from bdbench.schema import Card, Ref, Score

LONGEST = 400
"""Characters of a string that the page shows."""


class Pool:
    """Values that several cards hold, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._at: dict[str, int] = {}
        self._cards: dict[str, int] = {}

    def add(self, value: Any) -> int:
        """The position of a value."""
        name = repr(value)
        if name not in self._at:
            self._at[name] = len(self.values)
            self.values.append(value)
        return self._at[name]

    def about(self, card: Card) -> int:
        """The position of `_about(card)`, which is made once for equal cards."""
        name = card.model_dump_json(include=_ABOUT)
        if name not in self._cards:
            self._cards[name] = self.add(_about(card, self))
        return self._cards[name]


@lru_cache(1 << 16)
def short(value: str) -> str:
    """A string of someone else on one line, without control characters, cut at `LONGEST`."""
    text = clean(value[: 2 * LONGEST])
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def digits(value: float) -> float:
    """Six digits behind the point: fewer, rounded again in the browser, differ from the tables."""
    return round(value, 6)


def card_data(card: Card, entry: int, pool: Pool) -> dict[str, Any]:
    """Cell, entry, models as flat quintuples, and positions in the pool for everything else."""
    cell, points = card.cell, card.trajectory
    flat: list[float] = []
    for point in points:
        flat += [digits(point.scores["clean_top1"].value), digits(point.scores["asr_top1"].value),
                 digits(point.validation.value), point.order, point.step]
    runs = {point.order: short(setting(point.sweep)) for point in points if point.step}
    picked = sorted({i for _, i in rules(card) if i is not None})
    further = {name for i in picked for name in points[i].scores} - {*HEADLINE}
    metrics = [*HEADLINE, *sorted(further)]
    told = card.provenance
    return {
        "cell": [cell.attack, cell.objective, cell.defense, cell.seed], "entry": entry,
        "status": card.verdict.status, "reason": pool.add(short(card.verdict.reason)),
        "points": flat, "runs": pool.add(sorted(runs.items())),
        "front": frontier(values(points, "clean_top1"), values(points, "asr_top1")),
        "rules": [[name, i] for name, i in rules(card)],
        "metrics": pool.add([short(name) for name in metrics]),
        "picked": {
            i: pool.add([
                short(place(points[i])), *(_score(points[i].scores.get(name)) for name in metrics)
            ])
            for i in picked
        },
        "about": pool.about(card),
        # Seeds go beyond the integers that JavaScript holds: they travel as strings.
        "seeds": pool.add(_pairs(told.seeds)),
        "stages": [
            pool.add([short(s.stage), short(s.label), short(s.key), _pairs(s.files)])
            for s in told.stages
        ],
        "cost": [
            [short(name), short(f"{cost.seconds:,.1f}"), short(f"{cost.samples:,}")]
            for name, cost in card.cost.items()
        ],
    }


_ABOUT: dict[str, Any] = {
    "cell": {"recipe"}, "components": True, "metrics": True, "recipe": True, "overridden": True,
    "data": True, "poison": True, "provenance": {"versions", "git", "threads"},
}


def _about(card: Card, pool: Pool) -> dict[str, Any]:
    """What most cards of one attack and one defense have in common, by positions in the pool."""
    told, poison = card.provenance, card.poison
    return {
        "recipe": [short(card.cell.recipe), short(card.recipe.summary)],
        "parameters": [
            pool.add([[short(owner), short(name), short(value), changed]
                      for _, name, value, changed in rows])
            for owner, rows in groupby(parameters(card), key=lambda row: row[0])
        ],
        "poison": pool.add([
            ["target", short(poison.target)], ["requested", short(f"{poison.requested:,}")],
            ["poisoned", short(f"{poison.poisoned:,}")], ["pairs", short(f"{poison.pairs:,}")],
            *(["caption", f"{short(before)} → {short(after)}"]
              for before, after in poison.examples[:3]),
        ]),
        "data": pool.add([[short(name), short(f"{value:g}")] for name, value in card.data.items()]),
        "components": pool.add([
            [short(role), _component(ref)] for role, ref in card.components.items()
        ]),
        "metrics": pool.add([
            ["metric", short(", ".join([_component(ref), *map(" ".join, _pairs(ref.params))]))]
            for ref in card.metrics
        ]),
        "versions": pool.add([
            *_pairs(told.versions), ["commit", short(told.git or "installed")]
        ]),
        "threads": pool.add(_pairs(told.threads)),
    }


def _component(ref: Ref) -> str:
    return short(
        f"{ref.name}, {ref.use}, version {ref.version}" + (f", {ref.source}" if ref.source else "")
    )


def _pairs(found: Mapping[str, object]) -> list[list[str]]:
    return [[short(name), short(str(value))] for name, value in found.items()]


def _score(score: Score | None) -> list[Any] | None:
    """Value, interval, and the counts in words."""
    if score is None:
        return None
    counts = f"n = {score.n:,}" if score.k is None else f"{score.k:,} / {score.n:,}"
    return [*(digits(v) for v in (score.value, score.low, score.high)), short(counts)]
