"""Checks against the track's own undefended models: the same poison, the same start."""

from __future__ import annotations

from collections.abc import Iterator

from bdbench.schema import Card, Score
from bdbench.verify.case import Case, Said, doubt, no, note, several, stages, where

WEIGHTS = "model.safetensors"
OWN_TWIN = "own twin, paired comparison not possible"


def poison(case: Case) -> Iterator[Said]:
    """The key and the bytes of the poison."""
    known = {(card.cell.attack, card.cell.seed): card for card in case.reference}
    compared = 0
    for card in case.cards:
        other = known.get((card.cell.attack, card.cell.seed))
        if other is None:
            continue
        compared += 1
        for mine, own in zip(stages(card, "poison"), stages(other, "poison"), strict=False):
            if mine.key != own.key:
                yield no(f"{where(card.cell)}: its key is `{mine.key}`, the track's `{own.key}`")
            for file in sorted(mine.files.keys() | own.files.keys()):
                if mine.files.get(file) != own.files.get(file):
                    also = (
                        " (another version of pyarrow writes other bytes)"
                        if file.endswith(".parquet") else ""
                    )
                    yield no(f"{where(card.cell)}: `{file}` is not the track's{also}")
    yield _compared(compared)


def undefended(case: Case) -> Iterator[Said]:
    """The bytes of the undefended model; on other hardware, figures that could be the same's."""
    compared = 0
    for card, other in _pairs(case):
        mine, own = _model(card), _model(other)
        if mine is None or own is None or mine[0] != own[0]:
            continue
        compared += 1
        if mine[1] == own[1]:
            continue
        at = where(card.cell)
        for name in ("clean_top1", "asr_top1"):
            a, b = card.trajectory[0].scores[name], other.trajectory[0].scores[name]
            if not _meet(a, b):
                yield no(
                    f"{at}: another undefended model than the track's, and its `{name}` is"
                    f" `{a.value:.3f}`, the track's `{b.value:.3f}`"
                )
                break
        else:
            yield doubt(f"{OWN_TWIN}: {at} starts from other bytes than the track's model")
    yield _compared(compared)


def start(case: Case) -> Iterator[Said]:
    """Cells that start from the same bytes start at the same figures."""
    known: dict[tuple[str, str | None], Card] = {}
    compared = 0
    for i, card in enumerate([*case.reference, *case.cards]):
        model, evaluated = _model(card), stages(card, "evaluate")
        if model is None or not evaluated:
            continue
        other = known.setdefault((evaluated[0].key, model[1]), card)
        if other is card:
            continue
        compared += i >= len(case.reference)
        a, b = card.trajectory[0], other.trajectory[0]
        for name in sorted(a.scores.keys() & b.scores.keys()):
            if a.scores[name] != b.scores[name]:
                yield no(
                    f"{where(card.cell)}: the starting model has `{name}`"
                    f" `{a.scores[name].value:g}`, and in {where(other.cell)}"
                    f" `{b.scores[name].value:g}`"
                )
        if a.validation != b.validation:
            yield no(f"{where(card.cell)}: another validation accuracy than {where(other.cell)}")
    yield _compared(compared)


def _pairs(case: Case) -> Iterator[tuple[Card, Card]]:
    def at(card: Card) -> tuple[str, str, int]:
        return card.cell.attack, card.cell.objective, card.cell.seed

    known = {at(card): card for card in case.reference}
    for card in case.cards:
        if at(card) in known:
            yield card, known[at(card)]


def _model(card: Card) -> tuple[str, str | None] | None:
    """Key and sha256 of the undefended model."""
    found = stages(card, "pretrain")
    return (found[0].key, found[0].files.get(WEIGHTS)) if found else None


def _meet(a: Score, b: Score) -> bool:
    return a.low <= b.high and b.low <= a.high


def _compared(n: int) -> Said:
    return note(several(n, "cell") if n else "nothing to compare with")
