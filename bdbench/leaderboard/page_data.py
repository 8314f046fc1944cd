"""The figures of the page as JSON data: short arrays, four digits, what cards share said once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bdbench.cards.escape import clean
from bdbench.cards.select import frontier, values
from bdbench.cards.text import HEADLINE, parameters, place, rules, setting
from bdbench.leaderboard.folder import Entry
from bdbench.leaderboard.rank import Axis, Group, Row
from bdbench.leaderboard.standing import Standing, cards, parts
from bdbench.leaderboard.tables import Table, facts, tables
from bdbench.leaderboard.text import statistic
from bdbench.schema import Card, Score
from bdbench.statistics import Mean

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
        name = json.dumps(value)
        if name not in self._at:
            self._at[name] = len(self.values)
            self.values.append(value)
        return self._at[name]

    def about(self, card: Card) -> int:
        """The position of `_about(card)`, which is made once for equal cards."""
        name = card.model_dump_json(include=_ABOUT)
        if name not in self._cards:
            self._cards[name] = self.add(_about(card))
        return self._cards[name]


def data(standings: Iterable[Standing]) -> dict[str, Any]:
    """All that the page shows, rates in [0, 1]."""
    pool = Pool()
    tracks = [_track(standing, pool) for standing in standings]
    return {"tracks": tracks, "pool": pool.values}


def short(value: object) -> str:
    """A string of someone else on one line, without control characters, cut at `LONGEST`."""
    text = clean(str(value)[: 2 * LONGEST])
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def digits(value: float) -> float:
    """Four digits behind the point."""
    return round(value, 4)


def _track(standing: Standing, pool: Pool) -> dict[str, Any]:
    board, track = standing.board, standing.board.track
    at = {id(card): i for i, entry in enumerate(board.entries) for card in entry.submission.cards}
    seen: dict[Any, Card] = {}
    for card in cards(board, "defense"):
        seen.setdefault(card.cell, card)
    further = [table for table in tables(standing) if table.title.startswith(("Decl", "Rep"))]
    return {
        "name": board.name, "summary": short(track.summary), "facts": short(facts(standing)),
        "attacks": track.attacks, "objectives": track.objectives, "seeds": track.seeds,
        "statistic": short(statistic(standing)), "tables": [_table(table) for table in further],
        "entries": [_entry(entry) for entry in board.entries],
        "rows": {axis: [_row(standing, axis, row) for row in standing.rows[axis]]
                 for axis in ("defense", "attack", "objective")},
        "cards": [_card(card, at[id(card)], pool) for card in seen.values()],
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": short(table.title), "head": [short(head) for head in table.head],
        "right": sorted(table.right), "rows": [[short(cell) for cell in row] for row in table.rows],
        "note": clean(table.note),
    }


def _entry(entry: Entry) -> dict[str, Any]:
    told, word = entry.submission, entry.verification
    return {
        "kind": told.kind, "name": told.name, "summary": short(told.summary), "url": told.url,
        "authors": [short(author) for author in told.authors], "sha256": entry.sha256,
        "level": entry.level, "cards": len(told.cards),
        "word": word and {
            "by": short(word.by), "on": word.on.isoformat(), "cells": word.cells,
            "difference": word.largest_difference,
        },
    }


def _row(standing: Standing, axis: Axis, row: Row) -> dict[str, Any]:
    at, entry = standing.position(axis, row.name), standing.entry(axis, row.name)
    worst = [i for i, group in enumerate(row.groups) if group is row.worst]
    return {
        "name": row.name, "entry": at, "level": entry.level if entry else "built-in",
        "rank": row.rank, "apart": row.apart,
        "unranked": row.unranked, "worst": worst[0] if worst else None,
        "loss": _mean(row.loss), "cells": row.cells, "failed": row.failed,
        "groups": [_group(group) for group in row.groups],
        "parts": {} if axis == "objective" else {
            name: [digits(part.worst.asr.value), digits(part.loss),
                   None if part.oracle_loss is None else digits(part.oracle_loss),
                   part.cleaned, part.cells]
            for name, part in parts(row, axis).items()
        },
    }


def _mean(mean: Mean) -> list[float | None]:
    return [None if v is None else digits(v) for v in (mean.value, mean.low, mean.high)]


def _group(group: Group) -> list[Any]:
    return [
        *group.where, digits(group.start.value), _mean(group.asr), digits(group.loss.value),
        None if group.oracle_loss is None else digits(group.oracle_loss.value), group.cleaned,
        group.asr.n,
    ]


def _card(card: Card, entry: int, pool: Pool) -> dict[str, Any]:
    """Cell, entry, models as flat quadruples, and positions in the pool for everything else."""
    cell, points = card.cell, card.trajectory
    flat: list[float] = []
    for point in points:
        flat += [digits(point.scores["clean_top1"].value), digits(point.scores["asr_top1"].value),
                 point.order, point.step]
    runs = {point.order: short(setting(point.sweep)) for point in points if point.step}
    told = card.provenance
    return {
        "cell": [cell.attack, cell.objective, cell.defense, cell.seed], "entry": entry,
        "status": card.verdict.status, "reason": pool.add(short(card.verdict.reason)),
        "points": flat, "runs": pool.add(sorted(runs.items())),
        "front": frontier(values(points, "clean_top1"), values(points, "asr_top1")),
        "rules": [[name, i] for name, i in rules(card)],
        "picked": {
            i: [short(place(points[i])), *(_score(points[i].scores.get(name)) for name in HEADLINE)]
            for i in sorted({i for _, i in rules(card) if i is not None})
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
    "cell": {"recipe"}, "components": True, "recipe": True, "overridden": True, "data": True,
    "poison": True, "provenance": {"versions", "git", "threads"},
}


def _about(card: Card) -> dict[str, Any]:
    """What most cards of one attack and one defense have in common."""
    told, poison = card.provenance, card.poison
    return {
        "recipe": [short(card.cell.recipe), short(card.recipe.summary)],
        "parameters": [
            [short(owner), short(name), short(value), changed]
            for owner, name, value, changed in parameters(card)
        ],
        "poison": [
            ["target", short(poison.target)], ["requested", short(f"{poison.requested:,}")],
            ["poisoned", short(f"{poison.poisoned:,}")], ["pairs", short(f"{poison.pairs:,}")],
            *(["caption", f"{short(before)} → {short(after)}"]
              for before, after in poison.examples[:3]),
        ],
        "data": [[short(name), short(f"{value:g}")] for name, value in card.data.items()],
        "components": [
            [short(role), short(f"{ref.name}, {ref.use}, version {ref.version}"
                                + (f", {ref.source}" if ref.source else ""))]
            for role, ref in card.components.items()
        ],
        "versions": [*_pairs(told.versions), ["commit", short(told.git or "installed")]],
        "threads": _pairs(told.threads),
    }


def _pairs(found: Mapping[str, object]) -> list[list[str]]:
    return [[short(name), short(value)] for name, value in found.items()]


def _score(score: Score | None) -> list[float] | None:
    return None if score is None else [digits(v) for v in (score.value, score.low, score.high)]
