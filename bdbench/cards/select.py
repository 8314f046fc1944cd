"""The rules that pick one model of a trajectory, and the verdict on the undefended attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bdbench.errors import BdbenchError
from bdbench.schema import Gate, Point, Poison, Selection, Selections, Verdict

PAPER_BOUND = 0.05
"""The ASR bound that Verma et al. (TMLR 2025) call cleaned."""

# Accuracies are counts over counts: a difference below this is rounding, not an image.
_ROUNDING = 1e-9


def values(points: Sequence[Point], metric: str) -> list[float]:
    """The figures of one metric along a trajectory, rates in [0, 1]."""
    for point in points:
        if metric not in point.scores:
            raise BdbenchError(
                f"the trajectory has no `{metric}`",
                "a card needs at least clean_top1, asr_top1 and lift",
            )
    return [point.scores[metric].value for point in points]


def frontier(acc: Sequence[float], asr: Sequence[float]) -> list[int]:
    """Positions that no other model beats on clean accuracy and ASR at once, by rising ASR.

    The first is the lowest ASR with its best accuracy, the last the best accuracy with its
    lowest ASR; of equal models the first in the trajectory stands for all.
    """
    kept: list[int] = []
    for i in sorted(range(len(acc)), key=lambda i: (asr[i], -acc[i], i)):
        if not kept or acc[i] > acc[kept[-1]]:
            kept.append(i)
    return kept


def oracle(acc: Sequence[float], asr: Sequence[float], bound: float) -> int | None:
    """The highest clean accuracy among all models with ASR at most `bound`; None if there is none.

    The rule of Verma et al. (TMLR 2025). It reads the trigger and the test set, so it is an upper
    bound on a defense and no way to use one. Of equal accuracies the lower ASR wins.
    """
    within = [i for i in frontier(acc, asr) if asr[i] <= bound]
    return within[-1] if within else None


def lowest_asr(points: Sequence[Point], loss: float) -> float:
    """The lowest ASR among models that lose at most `loss` of the first one's clean accuracy."""
    accuracy, asr = values(points, "clean_top1"), values(points, "asr_top1")
    floor = accuracy[0] - loss - _ROUNDING
    return min(s for a, s in zip(accuracy, asr, strict=True) if a >= floor)


def last(points: Sequence[Point], default: Mapping[str, float]) -> int:
    """The last epoch of the run whose swept parameters are the entry's `default`.

    A sweep that leaves the default out counts by its gentlest run, the one that flatters the
    defense least. The starting model stands for a defense that ran nothing.
    """
    after = [i for i, point in enumerate(points) if point.step > 0]
    runs = [i for i in after if points[i].sweep == dict(default)]
    if not runs:
        gentlest = min((points[i].order for i in after), default=0)
        runs = [i for i in after if points[i].order == gentlest]
    return max(runs, key=lambda i: points[i].step, default=0)


def blind(points: Sequence[Point], tolerance: float) -> int:
    """The most aggressive model whose validation accuracy is within `tolerance` of the start's.

    Most aggressive: the largest `order`, then the last step. The trigger is not used. The start
    (position 0) is picked when no other model qualifies.
    """
    floor = points[0].validation.value - tolerance - _ROUNDING
    within = [i for i, p in enumerate(points) if p.step > 0 and p.validation.value >= floor]
    return max(within, key=lambda i: (points[i].order, points[i].step), default=0)


def select(
    points: Sequence[Point], rules: Selection, default: Mapping[str, float]
) -> Selections:
    """All three rules on one trajectory, the starting model first.

    `default` are the values of the swept parameters that the entry itself names. The keys of
    `oracle` are the bounds as rates, such as "0.05".
    """
    acc, asr = values(points, "clean_top1"), values(points, "asr_top1")
    return Selections(
        oracle={f"{bound:g}": oracle(acc, asr, bound) for bound in rules.oracle},
        last=last(points, default),
        blind=blind(points, rules.tolerance),
    )


def verdict(
    start: Point, poison: Poison, gate: Gate, declared: bool | None = None
) -> Verdict:
    """Whether the attack worked on the undefended model `start`; a control if nothing is poisoned.

    The gate asks for a lift (ASR minus base rate) and a clean accuracy, both as rates. `declared`
    is for a model from elsewhere, of which no count is known: whether an attack is looked for.
    """
    if declared is False:
        return Verdict(
            status="control", reason="the model is from elsewhere, and no attack is looked for"
        )
    if not (poison.poisoned or declared):
        asked = f"although {poison.requested} were asked for" if poison.requested else "by design"
        return Verdict(status="control", reason=f"no training pair is poisoned, {asked}")
    (lift,), (acc,) = values([start], "lift"), values([start], "clean_top1")
    figures = (
        f"lift {lift:.3f} (gate {gate.lift:g}), clean_top1 {acc:.3f} (gate {gate.clean_top1:g})"
    )
    short = [
        name
        for name, value, least in (("lift", lift, gate.lift), ("clean_top1", acc, gate.clean_top1))
        if value < least
    ]
    if short:
        return Verdict(
            status="attack_failed",
            reason=f"the undefended model falls short on {' and '.join(short)}: {figures}",
        )
    return Verdict(status="ok", reason=f"the undefended model reaches the gate: {figures}")
