"""Run parts of a submission again, from the artifacts in the store, and compare with its cards."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from bdbench.execute import execute, read_card
from bdbench.replay.again import Runner, again, choose, same_method
from bdbench.replay.badge import badge
from bdbench.replay.compare import (
    Replay,
    bytes_check,
    distance,
    figures,
    largest,
    meet,
    rows,
    same_bytes,
    unlike,
)
from bdbench.replay.held_out import HeldOut, held_out
from bdbench.schema import Card
from bdbench.store import Store
from bdbench.verify import Case, Check, Outcome
from bdbench.verify.case import runs_of, several, where

TOLERANCE = 0.005
"""Largest difference of a rate between machines: rounding turns a few answers that were close."""


def draw(seed: int | None) -> int:
    """The seed of what is chosen: the given one, or one that nobody could foresee."""
    return secrets.randbelow(2**31) if seed is None else seed


def replay(
    case: Case, n: int, seed: int, store: Store, plugins: Sequence[Path] = (),
    run: Runner = execute,
) -> Replay:
    """Score the stored predictions of n cells again, then evaluate their models again.

    BdbenchError when fewer than n cells have the models and predictions of their cards here.
    """
    cells = [(card, 0) for card in case.cards]
    chosen = [card for card, _ in choose(case, cells, n, seed, store, plugins, None)]
    whole: list[tuple[Card, int | None]] = [(card, None) for card in chosen]
    with again(case, whole, store, ("card",), plugins, run) as (place, keys):
        scored = [read_card(place, key) for key in keys]
    wrong = [
        f"{where(card.cell)}, {text}" for card, new in zip(chosen, scored, strict=True)
        for text in unlike(card, new)
    ]
    with again(case, whole, store, ("evaluate", "card"), plugins, run) as (place, keys):
        evaluated = [read_card(place, key) for key in keys]
        turned, of = rows(store, place, chosen)
    far = max(max(largest(*pair), largest(*other)) for pair, other in zip(
        zip(chosen, scored, strict=True), zip(chosen, evaluated, strict=True), strict=True
    ))
    moved = max(largest(*pair) for pair in zip(scored, evaluated, strict=True))
    outcome: Outcome = "yes" if not turned else "warning" if moved <= TOLERANCE else "no"
    return Replay("replayed", tuple(chosen), (
        _check(
            "score", "the stored predictions give the submitted figures", wrong,
            several(len(chosen), "cell"),
        ),
        Check(
            "evaluate", "the stored models give the stored predictions", outcome,
            f"{turned} of {of} rows differ; largest difference of a rate {moved:.4f}",
        ),
    ), far)


def reproduce(
    case: Case, n: int, seed: int, store: Store, plugins: Sequence[Path] = (),
    run: Runner = execute,
) -> Replay:
    """Run the defense of n runs again, from the stored undefended models, and evaluate it.

    `plugins` are executed. BdbenchError when they are not the files that the cards were made with.
    """
    same_method(case, plugins)
    every = [(card, i) for card in case.cards for i in range(len(runs_of(card)))]
    chosen = choose(case, every, n, seed, store, plugins, ("data", "poison", "pretrain"))
    alike: list[bool] = []
    wrong: list[str] = []
    far = 0.0
    with again(
        case, chosen, store, ("defend", "evaluate", "card"), plugins, run
    ) as (place, keys):
        for (card, i), key in zip(chosen, keys, strict=True):
            at = f"{where(card.cell)}, run {i}"
            identical = same_bytes(card, i, place, key)
            alike += identical
            old = [point for point in card.trajectory[1:] if point.order == i]
            new = read_card(place, key).trajectory[1:]
            if len(old) != len(new):
                wrong.append(f"{at}: {len(new)} models, not {len(old)}")
                continue
            apart = max(map(distance, old, new))
            far = max(far, apart)
            if not meet(old[-1], new[-1]) or (all(identical) and apart > TOLERANCE):
                wrong.append(f"{at}: {figures(old[-1], new[-1])}")
    cards = {id(card): card for card, _ in chosen}
    return Replay("reproduced", tuple(cards.values()), (
        bytes_check(alike),
        _check(
            "reproduce", "the defense makes models with the submitted figures", wrong,
            f"{several(len(chosen), 'run')}; largest difference of a rate {far:.4f}",
        ),
    ), far)


def _check(name: str, claim: str, wrong: Sequence[str], right: str) -> Check:
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return Check(name, claim, "no" if wrong else "yes", f"{wrong[0]}{more}" if wrong else right)


__all__ = [
    "HeldOut", "Replay", "Runner", "badge", "draw", "held_out", "replay", "reproduce",
]
