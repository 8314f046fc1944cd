"""Checks against the reference: the same data, the same poison, the same undefended models."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

from bdbench.hashing import file_digest
from bdbench.schema import Card, Cell, Score
from bdbench.verify.case import Case, Said, doubt, no, note, several, stages, where

WEIGHTS = "model.safetensors"
OWN_TWIN = "own twin, paired comparison not possible"


def reference(case: Case) -> Iterator[Said]:
    """The sha256 of the track's `none` submission."""
    if case.evidence:
        yield note("the declared statistic has seeds of its own, which no reference has")
        return
    path = case.root / case.submission.track / "submissions" / "none.json"
    found, pinned = case.sha256, case.track.reference
    if not case.undefended:
        found = file_digest(path) if path.is_file() else ""
    if pinned is None and found:
        yield doubt(f'`track.toml` pins none; it does with `reference = "{found}"`')
    elif pinned is not None and found != pinned:
        yield no(f"the `none` submission has the sha256 `{found}`, and pinned is `{pinned}`")


def data(case: Case) -> Iterator[Said]:
    """The key and the bytes of the data."""
    return _same(case, "data", lambda cell: cell.seed)


def poison(case: Case) -> Iterator[Said]:
    """The key and the bytes of the poison."""
    return _same(case, "poison", lambda cell: (cell.attack, cell.seed))


def undefended(case: Case) -> Iterator[Said]:
    """The bytes of the undefended model; on other hardware, figures that could be the same's."""
    compared = 0
    for card, other in _pairs(case, lambda cell: (cell.attack, cell.objective, cell.seed)):
        mine, own = _model(card), _model(other)
        if mine is None or own is None:
            continue
        compared += 1
        at = where(card.cell)
        if mine[0] != own[0]:
            yield no(f"{at}: its key is `{mine[0]}`, the reference's `{own[0]}`")
        elif mine[1] != own[1]:
            apart = next(
                (name for name, a, b in _figures(card, other)
                 if not (a.low <= b.high and b.low <= a.high)), None,
            )
            yield doubt(
                f"{OWN_TWIN}: {at} starts from other bytes than the reference"
            ) if apart is None else no(
                f"{at}: another undefended model than the reference, and the intervals of its"
                f" `{apart}` do not meet"
            )
    yield _told(case, compared)


def start(case: Case) -> Iterator[Said]:
    """Cells that start from the same bytes start at the same figures."""
    known = {_evaluated(card): card for card in reversed(case.reference)}
    compared = 0
    for card in case.cards:
        other = known.get(_evaluated(card))
        if other is None:
            known[_evaluated(card)] = card
            continue
        compared += 1
        for name, a, b in _figures(card, other):
            if a != b:
                yield no(
                    f"{where(card.cell)}: the starting model has `{name}` `{a.value:g}`, and in"
                    f" {where(other.cell)} `{b.value:g}`"
                )
    yield _told(case, compared, doubt)


def _same(case: Case, name: str, place: Callable[[Cell], Hashable]) -> Iterator[Said]:
    """Key and files of a stage, against the reference's card at the same place."""
    compared = 0
    for card, other in _pairs(case, place):
        compared += 1
        for mine, own in zip(stages(card, name), stages(other, name), strict=False):
            if mine.key != own.key:
                yield no(
                    f"{where(card.cell)}: its key is `{mine.key}`, the reference's `{own.key}`"
                )
            for file in sorted(mine.files.keys() | own.files.keys()):
                if mine.files.get(file) != own.files.get(file):
                    also = (
                        " (another version of pyarrow writes other bytes)"
                        if file.endswith(".parquet") else ""
                    )
                    yield no(f"{where(card.cell)}: `{file}` is not the reference's{also}")
    yield _told(case, compared)


def _pairs(case: Case, place: Callable[[Cell], Hashable]) -> Iterator[tuple[Card, Card]]:
    """Each card with the first of the reference at the same place, where there is one."""
    known = {place(card.cell): card for card in reversed(case.reference)}
    for card in case.cards:
        if place(card.cell) in known:
            yield card, known[place(card.cell)]


def _figures(card: Card, other: Card) -> Iterator[tuple[str, Score, Score]]:
    """What was measured of two undefended models."""
    a, b = card.trajectory[0], other.trajectory[0]
    for name in sorted(a.scores.keys() & b.scores.keys()):
        yield name, a.scores[name], b.scores[name]
    yield "validation", a.validation, b.validation


def _model(card: Card) -> tuple[str, str | None] | None:
    """Key and sha256 of the undefended model."""
    found = stages(card, "pretrain")
    return (found[0].key, found[0].files.get(WEIGHTS)) if found else None


def _evaluated(card: Card) -> Hashable:
    """What was evaluated, on what: key of the evaluation and sha256 of the model."""
    model, evaluated = _model(card), stages(card, "evaluate")
    return (evaluated[0].key, model[1]) if model and evaluated else card.cell


def _told(case: Case, compared: int, lack: Callable[[str], Said] | None = None) -> Said:
    """How many cells were compared; a defense that starts from anywhere proves nothing."""
    if case.undefended:
        return note("the reference itself")
    if compared == len(case.cards):
        return note(several(compared, "cell"))
    if lack is None:
        lack = no if case.submission.kind == "defense" and not case.evidence else doubt
    return lack(
        f"{len(case.cards) - compared} of {several(len(case.cards), 'cell')} have nothing to be"
        " compared with in the reference"
    )
