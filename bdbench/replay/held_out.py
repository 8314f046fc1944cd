"""Cells with a seed and a target class that nobody could prepare for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import cast

from bdbench.api import Dataset
from bdbench.errors import BdbenchError
from bdbench.execute import execute, read_card
from bdbench.plan import Plan, plan
from bdbench.registry import Registry
from bdbench.replay.again import Runner, same_method
from bdbench.schema import Card, Cell
from bdbench.store import Store
from bdbench.verify import Case, Check

LEAST_SPREAD = 0.01
"""Standard deviation between seeds below which three of them are no evidence."""


@dataclass(frozen=True)
class HeldOut:
    """One fresh cell beside the submitted ones of the same setting."""

    target: str
    none: Card
    """The same cell without a defense."""
    card: Card
    submitted: tuple[Card, ...]
    """One for each of the track's seeds."""

    @property
    def asr(self) -> float:
        """ASR of the blind selection."""
        return blind_asr(self.card)

    @property
    def bound(self) -> float | None:
        """What the ASR of a further seed stays below with 95 % probability; None if unknown.

        Student's one-sided prediction bound, mean + t s sqrt(1 + 1/n), over the n submitted seeds
        whose attack worked, with a spread s of at least one point.
        """
        from scipy.stats import t

        found = [blind_asr(card) for card in self.submitted if card.verdict.status == "ok"]
        n = len(found)
        if n < 2:
            return None
        spread = max(stdev(found), LEAST_SPREAD)
        return min(1.0, fmean(found) + float(t.ppf(0.95, n - 1)) * spread * sqrt(1 + 1 / n))

    @property
    def check(self) -> Check:
        """Whether the fresh cell is as the submitted ones foretell."""
        claim = "a fresh seed and target leave no more ASR than the submitted seeds foretell"
        cell, bound = self.card.cell, self.bound
        at = f"`{cell.attack} / {cell.objective}`, seed `{cell.seed}`, target `{self.target}`"
        if self.none.verdict.status != "ok":
            text = f"{at}: the undefended attack failed, {self.none.verdict.reason}"
            return Check("held-out", claim, "warning", text)
        if bound is None:
            text = f"{at}: ASR `{self.asr:.3f}`; fewer than two submitted seeds foretell nothing"
            return Check("held-out", claim, "warning", text)
        text = f"{at}: ASR `{self.asr:.3f}`, and at most `{bound:.3f}` is foretold"
        return Check("held-out", claim, "yes" if self.asr <= bound else "no", text)


def blind_asr(card: Card) -> float:
    """ASR of the model that the blind rule picks."""
    return card.trajectory[card.selections.blind].scores["asr_top1"].value


def held_out(
    case: Case, n: int, seed: int, store: Store, plugins: Sequence[Path] = (),
    run: Runner = execute,
) -> list[HeldOut]:
    """n cells of the submission with a fresh seed and target each, drawn from `seed`.

    Trains from scratch, into the given store. `plugins` are executed.
    """
    same_method(case, plugins)
    settings: dict[tuple[str, str, str], list[Card]] = {}
    for card in case.cards:
        if card.verdict.status != "control":
            cell = card.cell
            settings.setdefault((cell.attack, cell.objective, cell.defense), []).append(card)
    if not settings:
        raise BdbenchError("no cell of the submission has an attack", "leave `--held-out` out")
    rng, registry = random.Random(seed), Registry(plugins)
    dataset = registry.build("dataset", case.shipped("dataset", case.recipe.dataset)[0].identity())
    targets = [name for name in cast(Dataset, dataset).classes() if name != case.recipe.target]
    todo, drawn = Plan(), []
    for where in rng.choices(sorted(settings), k=n):
        target, fresh = rng.choice(targets), rng.randrange(2**31)
        attack, objective, defense = where
        cells = [
            Cell(recipe=case.track.recipe, attack=attack, objective=objective, defense=name,
                 seed=fresh)
            for name in ("none", defense)
        ]
        part = plan(registry, cells, {"recipe": {"target": target}})
        todo.nodes |= part.nodes
        todo.stages |= part.stages
        drawn.append((target, [part.cards[cell] for cell in cells], settings[where]))
    run(todo, store, plugins)
    return [
        HeldOut(target, read_card(store, none), read_card(store, own), tuple(cards))
        for target, (none, own), cards in drawn
    ]
