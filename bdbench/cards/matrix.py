"""Many cards in one table: a row per attack, objective and defense, the mean over the seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from bdbench.cards.fit import Table
from bdbench.cards.text import percent
from bdbench.schema import Card, Point

PICKS: Mapping[str, Callable[[Card], int | None]] = {
    "start": lambda card: 0,
    "blind": lambda card: card.selections.blind,
    "last": lambda card: card.selections.last,
    "oracle 5 %": lambda card: card.selections.oracle.get("0.05"),
}
"""The models of a card that tables of many cards show, as positions in its trajectory."""
_NOTE = "clean/ASR in per cent"


def grouped(cards: Iterable[Card]) -> dict[tuple[str, str, str], list[Card]]:
    """The cards of each attack, objective and defense, which differ in their seeds."""
    found: dict[tuple[str, str, str], list[Card]] = {}
    for card in cards:
        cell = card.cell
        found.setdefault((cell.attack, cell.objective, cell.defense), []).append(card)
    return found


def matrix(cards: Sequence[Card]) -> Table:
    """Clean accuracy and ASR of the start and of each selection, the mean over the seeds.

    Seeds whose attack failed are left out of a mean, unless it failed in all of them.
    Where all rows have the same seeds, the note tells them instead of a column.
    """
    groups = grouped(cards)
    seeds = [", ".join(str(card.cell.seed) for card in same) for same in groups.values()]
    alike = len(set(seeds)) == 1
    head = ["attack", "objective", "defense", *([] if alike else ["seeds"]), "status"]
    told = f"seed{'s' if ',' in seeds[0] else ''} {seeds[0]}" if alike and seeds else ""
    if any(len(same) > 1 for same in groups.values()):
        told += ", the mean over the seeds"
    return Table(
        title="", head=(*head, *PICKS),
        right=frozenset(range(len(head), len(head) + len(PICKS))),
        rows=tuple(
            (
                *names, *([] if alike else [own]), _statuses(same),
                *(_figures(same, pick) for pick in PICKS.values()),
            )
            for (names, same), own in zip(groups.items(), seeds, strict=True)
        ),
        note=f"{_NOTE}; {told}" if told else _NOTE,
    )


def worked(cards: Iterable[Card]) -> list[Card]:
    """The cards whose attack did not fail: only they tell what a defense leaves of it."""
    return [card for card in cards if card.verdict.status != "attack_failed"]


def picked(cards: Iterable[Card], pick: Callable[[Card], int | None]) -> list[Point]:
    """The model that a rule picks of each card where it picks one."""
    return [card.trajectory[i] for card in cards if (i := pick(card)) is not None]


def _statuses(cards: Sequence[Card]) -> str:
    counts = Counter(card.verdict.status for card in cards)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({n}/{len(cards)})" for name, n in counts.items() if name != "ok")


def _figures(cards: Sequence[Card], pick: Callable[[Card], int | None]) -> str:
    points = picked(worked(cards) or cards, pick)
    if not points:
        return "none"
    clean, asr = (
        [point.scores[name].value for point in points] for name in ("clean_top1", "asr_top1")
    )
    text = f"{percent(sum(clean) / len(clean))}/{percent(sum(asr) / len(asr))}"
    if len(points) < len(cards):
        text += f" ({len(points)}/{len(cards)})"
    return text
