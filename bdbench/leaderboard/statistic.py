"""The statistic that a track declares: what a defense adds to a baseline, per objective."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bdbench.cards.select import lowest_asr
from bdbench.cards.select import verdict as judge
from bdbench.schema import Card, Cell, Statistic, Track
from bdbench.statistics import Mean, mean


@dataclass(frozen=True)
class Finding:
    """The statistic with its intervals over the seeds; ASR as rates, positive: the defense adds."""

    removed: dict[str, Mean]
    """By objective: the ASR removed beyond the baseline at equal accuracy."""
    by_seed: dict[str, dict[int, float]]
    """The same of each seed."""
    difference: Mean
    """First objective minus second, paired by seed."""
    failed: tuple[tuple[str, int], ...]
    """Objective and seed whose undefended attack missed the gate; counted all the same."""


def removed(baseline: Card, defense: Card, losses: Sequence[float]) -> float:
    """The mean over `losses` of the ASR that the defense removes beyond the baseline."""
    return mean([
        lowest_asr(baseline.trajectory, loss) - lowest_asr(defense.trajectory, loss)
        for loss in losses
    ]).value


def finding(track: Track, declared: Statistic, cards: Iterable[Card]) -> Finding | None:
    """The statistic from the cards of its cells; None while any of them is missing."""
    by_cell = {card.cell: card for card in cards}
    if not all(cell in by_cell for cell in declared.cells(track.recipe)):
        return None

    def card(objective: str, defense: str, seed: int) -> Card:
        return by_cell[Cell(
            recipe=track.recipe, attack=declared.attack, objective=objective, defense=defense,
            seed=seed,
        )]

    by_seed = {
        objective: {
            seed: removed(
                card(objective, declared.baseline, seed), card(objective, declared.defense, seed),
                declared.losses,
            )
            for seed in declared.seeds
        }
        for objective in declared.objectives
    }
    first, second = (by_seed[objective] for objective in declared.objectives)
    failed = [
        (objective, seed)
        for objective in declared.objectives
        for seed in declared.seeds
        for start in [card(objective, declared.defense, seed)]
        if judge(start.trajectory[0], start.poison, track.gate).status != "ok"
    ]
    return Finding(
        removed={objective: mean(list(seeds.values())) for objective, seeds in by_seed.items()},
        by_seed=by_seed,
        difference=mean([first[seed] - second[seed] for seed in declared.seeds]),
        failed=tuple(failed),
    )
