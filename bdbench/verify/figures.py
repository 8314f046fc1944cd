"""Checks of what was measured: rates, differences, counts, and what is picked from them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import isclose

from bdbench.cards.select import select, verdict
from bdbench.leaderboard.folder import NEEDED
from bdbench.schema import Point, Score
from bdbench.statistics import rate
from bdbench.verify.case import Case, Said, doubt, no, note, several, where

DIFFERENCES = ("lift",)
"""Metrics that are no share of images."""
REQUIRED = (*NEEDED, "clean_top5", "asr_all", "base_rate", "triggered_top1")
"""Metrics that are held against each other here. One that bdbench gains later is not among them:
cards that were made before it would be turned down."""
OTHERS = ("asr_top1", "base_rate", "lift")
"""Metrics that leave the target's own images out."""
_ROUNDING = 1e-9

_rate = cache(rate)


def sound(case: Case) -> Iterator[Said]:
    """What the other checks of figures stand on."""
    for card in case.submission.cards:
        at = where(card.cell)
        measured = {ref.name for ref in card.metrics}
        if not card.trajectory:
            yield no(f"{at}: the trajectory is empty")
        if lacking := sorted(set(REQUIRED) - measured):
            yield no(f"{at}: it has no `{'`, `'.join(lacking)}`")
        for i, point in enumerate(card.trajectory):
            if set(point.scores) != measured:
                odd = sorted(set(point.scores) ^ measured)[0]
                yield no(f"{at}, model {i}: `{odd}` is not both a metric and a score")


def _scores(case: Case) -> Iterator[tuple[str, Point, str, Score]]:
    for card in case.cards:
        for i, point in enumerate(card.trajectory):
            at = f"{where(card.cell)}, model {i}"
            for name, score in [*point.scores.items(), ("validation", point.validation)]:
                yield at, point, name, score


def _close(a: float, b: float) -> bool:
    return isclose(a, b, rel_tol=0, abs_tol=_ROUNDING)


def rates(case: Case) -> Iterator[Said]:
    """Value and interval, from k and n."""
    count = 0
    for at, _, name, score in _scores(case):
        if name in DIFFERENCES:
            continue
        count += 1
        if score.k is None or not 0 <= score.k <= score.n:
            yield no(f"{at}: `{name}` counts `{score.k}` of `{score.n}` images")
            continue
        own = _rate(score.k, score.n)
        if not _close(score.value, own.value):
            yield no(
                f"{at}: `{name}` is `{score.value:g}`, and {score.k} of {score.n} is"
                f" `{own.value:g}`"
            )
        elif not (_close(score.low, own.low) and _close(score.high, own.high)):
            yield no(
                f"{at}: the interval of `{name}` is `[{score.low:g}, {score.high:g}]`, and"
                f" Wilson's `[{own.low:g}, {own.high:g}]`"
            )
    yield note(several(count, "rate"))


def lift(case: Case) -> Iterator[Said]:
    """The difference of two rates."""
    for at, point, name, score in _scores(case):
        if name not in DIFFERENCES:
            continue
        own = point.scores["asr_top1"].value - point.scores["base_rate"].value
        if score.k is not None:
            yield no(f"{at}: `lift` counts images, and it is a difference")
        if not _close(score.value, own):
            yield no(f"{at}: `lift` is `{score.value:g}`, and ASR less base rate `{own:g}`")
        elif not -1 <= score.low <= score.value <= score.high <= 1:
            yield no(f"{at}: `lift` is outside of its interval `[{score.low:g}, {score.high:g}]`")


def counts(case: Case) -> Iterator[Said]:
    """How many images were looked at."""
    dataset, _ = case.shipped("dataset", case.recipe.dataset)
    known = {card.cell.seed: card for card in reversed(case.reference)}
    others: dict[int, int] = {}
    for card in case.cards:
        at, seed = where(card.cell), card.cell.seed
        for split, size in card.data.items():
            rows = dataset.params.get(split)
            if isinstance(rows, int) and size != rows:
                yield no(f"{at}: `{split}` has `{size:g}` rows, not `{rows}`")
        if seed in known and not _alike(card.data, known[seed].data):
            yield no(f"{at}: its data are not those of the reference")
        test, held_out = card.data.get("test"), card.data.get("validation")
        if test is None or held_out is None:
            yield no(f"{at}: it does not tell the sizes of its splits")
            continue
        reference = known.get(seed, card)
        apart = others.setdefault(seed, reference.trajectory[0].scores["asr_top1"].n)
        if not apart < test:
            yield no(f"{at}: the target's own images were not left out of `asr_top1`")
        for i, point in enumerate(card.trajectory):
            for text in _counted(point, int(test), int(held_out), apart):
                yield no(f"{at}, model {i}: {text}")


def _alike(data: dict[str, float], other: dict[str, float]) -> bool:
    return all(_close(data[name], other[name]) for name in data.keys() & other.keys())


def _counted(point: Point, test: int, held_out: int, others: int) -> Iterator[str]:
    if point.validation.n != held_out:
        yield f"`validation` is of `{point.validation.n}` images, not of `{held_out}`"
    for name, score in point.scores.items():
        expected = others if name in OTHERS else test
        if score.n != expected:
            yield f"`{name}` is of `{score.n}` images, not of `{expected}`"
    k = {name: score.k or 0 for name, score in point.scores.items()}
    if k["clean_top1"] > k["clean_top5"]:
        yield "`clean_top1` is above `clean_top5`"
    on_target = k["asr_all"] - k["asr_top1"]
    if not 0 <= on_target <= test - others:
        yield "`asr_all` and `asr_top1` cannot be of the same images"
    elif on_target > k["triggered_top1"]:
        yield "`triggered_top1` leaves images of the target out that `asr_all` counts"
    # An image that is taken for the target and is not of it is a wrong answer.
    for target, right in (("asr_top1", "triggered_top1"), ("base_rate", "clean_top1")):
        if k[target] + k[right] > test:
            yield f"`{target}` and `{right}` count an image twice"


def poisoned(case: Case) -> Iterator[Said]:
    """What was done to the pairs."""
    known = {(c.cell.attack, c.cell.seed): c.poison for c in reversed(case.reference)}
    for card in case.cards:
        at, poison = where(card.cell), card.poison
        if poison.target != case.recipe.target:
            yield no(f"{at}: its target is `{poison.target}`, not `{case.recipe.target}`")
        attack = card.components.get("attack")
        share = attack.params.get("rate") if attack else None
        if isinstance(share, int | float) and poison.requested != round(share * poison.pairs):
            yield no(f"{at}: `{poison.requested}` poisoned pairs are asked for, at rate `{share}`")
        most = round(case.track.max_poison_rate * poison.pairs)
        if poison.requested > most:
            yield no(
                f"{at}: `{poison.requested}` pairs are to be poisoned, and the track allows"
                f" `{most}`, at rate `{case.track.max_poison_rate:g}`"
            )
        if not 0 <= poison.poisoned <= poison.requested:
            yield no(f"{at}: `{poison.poisoned}` of `{poison.requested}` pairs are poisoned")
        if poison.pairs != card.data.get("train"):
            yield no(f"{at}: `{poison.pairs}` pairs, and a training split of another size")
        other = known.get((card.cell.attack, card.cell.seed))
        if other is None and poison.poisoned != poison.requested:
            yield doubt(f"{at}: `{poison.poisoned}` of `{poison.requested}` pairs are poisoned")
        elif other is not None and poison != other:
            yield no(f"{at}: the counts are not those of the reference")


def selections(case: Case) -> Iterator[Said]:
    """The rules, applied again."""
    for card in case.cards:
        if "defense" not in card.components:
            continue
        params = card.components["defense"].params
        default = {field: params[field] for field in case.sweep(card) if field in params}
        own = select(card.trajectory, case.recipe.selection, default)
        for rule, found, expected in (
            ("blind", card.selections.blind, own.blind),
            ("last", card.selections.last, own.last),
            ("oracle", card.selections.oracle, own.oracle),
        ):
            if found != expected:
                yield no(f"{where(card.cell)}: `{rule}` picks `{found}`, and here `{expected}`")


def judged(case: Case) -> Iterator[Said]:
    """The verdict on the undefended attack; later code may word its reason otherwise."""
    for card in case.cards:
        own = verdict(card.trajectory[0], card.poison, case.recipe.gate)
        if card.verdict.status != own.status:
            yield no(
                f"{where(card.cell)}: it is called `{card.verdict.status}`, and is `{own.status}`:"
                f" {own.reason}"
            )
        elif card.verdict.reason != own.reason:
            yield doubt(
                f"{where(card.cell)}: its reason reads `{card.verdict.reason}`, and here"
                f" `{own.reason}`"
            )
