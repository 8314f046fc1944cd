"""A submission with all it is compared with, and what a check says of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, cast

from bdbench.api import Dataset
from bdbench.errors import BdbenchError
from bdbench.leaderboard.folder import read_submission
from bdbench.plan import Plan, add_cell
from bdbench.registry import Registry
from bdbench.resolve import Resolved
from bdbench.schema import Card, Cell, Kind, Recipe, Ref, Stage, Submission, Track

Outcome = Literal["yes", "warning", "no"]
AXES: tuple[Kind, ...] = ("attack", "objective", "defense")
ROLES: tuple[Kind, ...] = (*AXES, "dataset")
"""The components of a card."""

Sweep = Mapping[str, Sequence[float]]


class Said(NamedTuple):
    """One thing that a check found."""

    outcome: Outcome
    text: str


def no(text: str) -> Said:
    """Something that must not be."""
    return Said("no", text)


def doubt(text: str) -> Said:
    """Something to know that is no mistake."""
    return Said("warning", text)


def note(text: str) -> Said:
    """What a check that passes has to add."""
    return Said("yes", text)


@dataclass(frozen=True)
class Check:
    """One yes or no, with the reason."""

    name: str
    claim: str
    """What holds if the answer is yes."""
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Case:
    """A submission whose track is known."""

    path: Path
    sha256: str
    submission: Submission
    track: Track
    recipe: Recipe
    """The track's, as the registry here has it."""
    registry: Registry
    root: Path
    """The folder `leaderboards`."""

    @cached_property
    def evidence(self) -> bool:
        """Whether these are cells of the declared statistic, which have seeds of their own."""
        declared = self.track.statistic
        return declared is not None and all(
            card.cell.seed in declared.seeds for card in self.submission.cards
        )

    @cached_property
    def undefended(self) -> bool:
        """Whether these are the track's undefended models, which all others are compared with."""
        sub = self.submission
        return (sub.kind, sub.name) == ("defense", "none") and not self.evidence

    @cached_property
    def reference(self) -> tuple[Card, ...]:
        """The cards that these must agree with on data, poison and undefended models.

        Those of the track's `none` submission, then, of a submitted attack or objective, its own
        without a defense. The statistic has seeds of its own: there, those of the other method.
        """
        sub, folder = self.submission, self.root / self.submission.track
        if self.undefended:
            return ()
        paths = [folder / "submissions" / "none.json"]
        if self.evidence:
            paths = [
                path for path in sorted((folder / "evidence").glob("*.json"))
                if path.stem != sub.name
            ]
        found = [read_submission(path) for path in paths if path.is_file()]
        cards = [card for other in found if other.kind == "defense" for card in other.cards]
        if sub.kind != "defense":
            cards += [card for card in self.cards if card.cell.defense == "none"]
        return tuple(cards)

    @cached_property
    def wanted(self) -> tuple[Cell, ...]:
        """The cells that the track asks of this method."""
        kind, name = self.submission.kind, self.submission.name
        if not self.evidence:
            return self.track.cells(kind, name)
        return evidence_cells(self.track, name) if kind == "defense" else ()

    @cached_property
    def cards(self) -> tuple[Card, ...]:
        """The cards of cells that the track asks for: all that the other checks look at."""
        wanted = set(self.wanted)
        return tuple(card for card in self.submission.cards if card.cell in wanted)

    @cached_property
    def built_in(self) -> bool:
        """Whether the submitted method is one that bdbench ships."""
        kind, name = self.submission.kind, self.submission.name
        return any(
            (e.kind, e.name, e.origin) == (kind, name, "built-in") for e in self.registry.entries()
        )

    def shipped(self, kind: Kind, name: str) -> tuple[Ref, Sweep]:
        """A built-in component as the recipe sets it; BdbenchError where there is none.

        Nothing that somebody else installed is imported.
        """
        entry = self.registry.entry(kind, name)
        if entry.origin != "built-in":
            raise BdbenchError(f"the {kind} `{name}` comes from {entry.origin}, not from bdbench")
        defaults = getattr(self.recipe, f"{kind}s", {}).get(name)
        return self.registry.resolve(kind, name, defaults)

    def submitted(self, kind: Kind) -> bool:
        """Whether this component of a cell is the submitted one, and not bdbench's."""
        return kind == self.submission.kind and not self.built_in

    def sweep(self, card: Card) -> Sweep:
        """The declared sweep of a card's defense; a submitted one's, as its trajectory shows it.

        BdbenchError where the runs are no product: one that a file names could be endless.
        """
        if not self.submitted("defense"):
            return self.shipped("defense", card.cell.defense)[1]
        defaults = self.recipe.defenses.get(card.cell.defense)
        sweep = swept(card) | (dict(defaults.sweep) if defaults else {})
        runs, full = len(runs_of(card)), math.prod(map(len, sweep.values()))
        if runs != full:
            raise BdbenchError(
                f"{where(card.cell)}: {several(runs, 'run')}, and all combinations of the swept"
                f" parameters `{', '.join(sweep)}` are {full:,}"
            )
        return sweep

    def rebuild(self, card: Card) -> tuple[Plan, str]:
        """The stages of a cell, and the key of its card.

        The submitted component is the card's own; everything else is the track's.
        """
        def find(kind: Kind, name: str) -> Ref:
            return card.components[kind] if self.submitted(kind) else self.shipped(kind, name)[0]

        dataset, _ = self.shipped("dataset", self.recipe.dataset)
        cell, result = card.cell, Plan()
        found = Resolved(
            recipe=self.recipe, dataset=dataset, data=dataset, tests=None, metrics=card.metrics,
            sweep=self.sweep(card), attack=find("attack", cell.attack),
            objective=find("objective", cell.objective), defense=find("defense", cell.defense),
            seeded=cast(Dataset, self.registry.build("dataset", dataset.identity())).seeded,
        )
        key = add_cell(result, cell, found)
        result.cards[cell] = key
        return result, key


Rule = Callable[[Case], Iterator[Said]]


def evidence_cells(track: Track, name: str) -> tuple[Cell, ...]:
    """The cells of a track's declared statistic that run a defense."""
    declared = track.statistic.cells(track.recipe) if track.statistic else ()
    return tuple(cell for cell in declared if cell.defense == name)


def several(n: int, noun: str) -> str:
    """A number with its noun."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def where(cell: Cell) -> str:
    """A cell in a message."""
    return f"`{cell.attack} / {cell.objective} / {cell.defense} / seed {cell.seed}`"


def runs_of(card: Card) -> list[dict[str, float]]:
    """The swept parameters of each run, in the order of the trajectory."""
    found: dict[int, dict[str, float]] = {}
    for point in card.trajectory[1:]:
        found.setdefault(point.order, point.sweep)
    return list(found.values())


def swept(card: Card) -> dict[str, Sequence[float]]:
    """The sweep whose product the runs of a card are, the slowest field first."""
    runs = runs_of(card)
    params = card.components["defense"].params if "defense" in card.components else {}

    def first_change(field: str) -> int:
        values = [run.get(field) for run in runs]
        return next((i for i, value in enumerate(values) if value != values[0]), 0)

    fields = sorted(runs[0] if runs else {}, key=first_change, reverse=True)
    return {
        field: list(dict.fromkeys(
            # A card holds floats; the entry's own value says whether the field is an integer.
            int(run[field]) if type(params.get(field)) is int and run[field].is_integer()
            else run[field]
            for run in runs if field in run
        ))
        for field in fields
    }


def product(sweep: Sweep) -> list[dict[str, float]]:
    """The runs that a declared sweep asks for, in order."""
    values = itertools.product(*sweep.values())
    return [dict(zip(sweep, point, strict=True)) for point in values]


def stages(card: Card, name: str) -> list[Stage]:
    """The stages of one kind that a card rests on, in the order of the runs."""
    return [stage for stage in card.provenance.stages if stage.stage == name]
