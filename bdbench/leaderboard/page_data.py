"""What the page shows of each track, as JSON data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bdbench.cards.escape import clean
from bdbench.cards.fit import Table
from bdbench.cards.text import percent
from bdbench.leaderboard.folder import Entry
from bdbench.leaderboard.page_cards import Pool, card_data, digits, short
from bdbench.leaderboard.rank import Axis, Group, Row, rank
from bdbench.leaderboard.standing import Standing, cards, parts
from bdbench.leaderboard.statistic import Finding
from bdbench.leaderboard.tables import facts, tables
from bdbench.leaderboard.text import statistic
from bdbench.schema import Card, Statistic, Submission
from bdbench.statistics import Mean


def data(standings: Iterable[Standing]) -> dict[str, Any]:
    """All that the page shows, rates in [0, 1]."""
    pool = Pool()
    tracks = [_track(standing, pool) for standing in standings]
    return {"tracks": tracks, "pool": pool.values}


def claim(declared: Statistic, found: Finding) -> str:
    """What the declared statistic says, in a sentence."""
    told = [
        f"{_compared(mean, declared.baseline)} on {name}" for name, mean in found.removed.items()
    ]
    return (
        f"Against {declared.attack} at equal accuracy, {declared.defense} {' and '.join(told)}"
        f" (95 % intervals over {len(declared.seeds)} seeds)."
    )


def _compared(mean: Mean, baseline: str) -> str:
    value, low, high = mean.value, mean.low, mean.high
    assert low is not None
    assert high is not None
    if low <= 0 <= high:
        return (
            f"cannot be told from {baseline} ({percent(value)} points"
            f" [{percent(low)}, {percent(high)}])"
        )
    word = "more" if low > 0 else "less"
    least, most = sorted((abs(low), abs(high)))
    return (
        f"removes {percent(abs(value))} points [{percent(least)}, {percent(most)}] {word} ASR than"
        f" {baseline}"
    )


def _track(standing: Standing, pool: Pool) -> dict[str, Any]:
    board, track = standing.board, standing.board.track
    told = [*(entry.submission for entry in board.entries), *board.evidence]
    at = {id(card): i for i, one in enumerate(told) for card in one.cards}
    seen: dict[Any, Card] = {}
    for card in cards(board, "defense"):
        seen.setdefault(card.cell, card)
    evidence = [card for one in board.evidence for card in one.cards]
    beyond = _beyond_the_track(standing)
    return {
        "name": board.name, "summary": short(track.summary), "facts": short(facts(standing)),
        "attacks": _names(standing, "attack"), "objectives": _names(standing, "objective"),
        "seeds": track.seeds, "statistic": _statistic(standing),
        "reported": [
            _table(table) for table in tables(standing) if table.title.startswith("Reported")
        ],
        "entries": [
            *(_entry(entry) for entry in board.entries), *(map(_evidence, board.evidence))
        ],
        "rows": {axis: [_row(standing, axis, row, beyond.get((axis, row.name)))
                        for row in standing.rows[axis]]
                 for axis in ("defense", "attack", "objective")},
        "cards": [card_data(card, at[id(card)], pool) for card in seen.values()],
        "evidence": [card_data(card, at[id(card)], pool) for card in evidence],
    }


def _names(standing: Standing, axis: Axis) -> list[str]:
    """The methods of an axis, the track's first and then what was submitted."""
    own = standing.board.track.attacks if axis == "attack" else standing.board.track.objectives
    told = [entry.submission for entry in standing.board.entries]
    return list(dict.fromkeys([*own, *(one.name for one in told if one.kind == axis)]))


def _beyond_the_track(standing: Standing) -> dict[tuple[Axis, str], Row]:
    """Rows over submitted attacks and objectives too: they hold groups that no rank rests on."""
    board, track = standing.board, standing.board.track
    attacks, objectives = _names(standing, "attack"), _names(standing, "objective")
    if len(attacks) + len(objectives) == len(track.attacks) + len(track.objectives):
        return {}
    wide = track.model_copy(update={"attacks": tuple(attacks), "objectives": tuple(objectives)})
    axes: tuple[Axis, ...] = ("defense", "attack")
    return {
        (axis, row.name): row
        for axis in axes
        for row in rank(
            cards(board, axis), wide, axis, [row.name for row in standing.rows[axis]]
        )
    }


def _statistic(standing: Standing) -> dict[str, Any] | None:
    """The declared statistic, as far as it is measured."""
    declared, found = standing.board.track.statistic, standing.finding
    if declared is None:
        return None
    first, second = declared.objectives
    means = {**found.removed, f"{first} minus {second}": found.difference} if found else {}
    return {
        "text": short(statistic(standing)), "claim": short(claim(declared, found)) if found else "",
        "attack": declared.attack, "defense": declared.defense, "baseline": declared.baseline,
        "means": [[name, *_mean(mean)] for name, mean in means.items()],
        "seeds": [
            [objective, seed, digits(found.by_seed[objective][seed]) if found else None,
             bool(found and (objective, seed) in found.failed)]
            for objective in declared.objectives for seed in declared.seeds
        ],
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
        "authors": [short(author) for author in told.authors],
        "folder": "submissions", "sha256": entry.sha256, "level": entry.level,
        "word": word and {
            "by": short(word.by), "on": word.on.isoformat(), "cells": word.cells,
            "difference": word.largest_difference,
        },
    }


def _evidence(told: Submission) -> dict[str, Any]:
    return {"name": told.name, "folder": "evidence"}


def _row(standing: Standing, axis: Axis, row: Row, beyond: Row | None) -> dict[str, Any]:
    at, entry = standing.position(axis, row.name), standing.entry(axis, row.name)
    further = [] if beyond is None else [g for g in beyond.groups if g not in row.groups]
    by = {} if axis == "objective" else parts(row, axis)
    if beyond is not None:
        by = parts(beyond, axis) | by
    worst = [i for i, group in enumerate(row.groups) if group is row.worst]
    return {
        "name": row.name, "entry": at, "level": entry.level if entry else "built-in",
        "rank": row.rank, "apart": row.apart,
        "unranked": row.unranked, "worst": worst[0] if worst else None,
        "loss": _mean(row.loss), "cells": row.cells, "failed": row.failed,
        "groups": [_group(group) for group in row.groups],
        "further": [_group(group) for group in further],
        "parts": {
            name: [digits(part.worst.asr.value), digits(part.loss),
                   None if part.oracle_loss is None else digits(part.oracle_loss),
                   part.cleaned, part.cells]
            for name, part in by.items()
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
