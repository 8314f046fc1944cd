"""Tracks, submissions to them, and what maintainers and papers say of them."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bdbench.schema.card import Card
from bdbench.schema.recipe import Gate
from bdbench.schema.refs import Cell, Kind, Strict

SUBMISSION_VERSION: Literal[1] = 1
SUBMITTABLE: tuple[Kind, ...] = ("attack", "objective", "defense")
"""What has rows on a board: the axes of a cell that a track varies."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""A registered name, also that of a file: nothing that could leave a folder or open markup."""
Line = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
Url = Annotated[str, Field(max_length=300, pattern=r"^(https://[^\s<>\"'`\\]+)?$")]
Rate = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Level = Literal["replayed", "reproduced"]
"""Evaluation re-run from the hashed checkpoints, or the defense re-run."""
LARGEST_DIFFERENCE: dict[Level, float] = {"replayed": 0.005, "reproduced": 0.1}
"""Of a rate, between a submission and what another machine finds.

The same model turns a few answers that were close, and a training that rounds differently ends at
another model. Both are what maintainers accept; neither was measured between machines.
"""


class Statistic(Strict):
    """One derived figure, declared before the runs: what a defense adds to a baseline.

    f_m(x) is the lowest ASR among all models of method m with clean accuracy at least the start's
    minus x. Per objective and seed the statistic is the mean over `losses` of f_baseline(x) -
    f_defense(x): the ASR that the defense removes beyond the baseline at equal accuracy.
    """

    attack: Name
    defense: Name
    baseline: Name
    objectives: tuple[Name, Name]
    """The difference is the first minus the second."""
    losses: tuple[Rate, ...] = Field(min_length=1)
    """Losses of clean accuracy, in [0, 1]."""
    seeds: tuple[int, ...] = Field(min_length=5)
    """Of cells of their own, apart from the seeds of the ranking."""

    def cells(self, recipe: str) -> tuple[Cell, ...]:
        """The cells that the figure is made from."""
        return tuple(
            Cell(recipe=recipe, attack=self.attack, objective=objective, defense=defense, seed=seed)
            for objective in self.objectives
            for defense in (self.baseline, self.defense)
            for seed in self.seeds
        )


class Track(Strict):
    """What every entry of a board runs, and how it is ranked."""

    summary: Line
    edition: int = Field(ge=1)
    """Raised when entries stop being comparable with earlier ones."""
    recipe: Name
    attacks: tuple[Name, ...] = Field(min_length=1)
    objectives: tuple[Name, ...] = Field(min_length=1)
    defenses: tuple[Name, ...] = Field(min_length=1)
    """Built-in defenses; what an attack or an objective is submitted with."""
    seeds: tuple[int, ...] = ()
    gate: Gate = Gate()
    """A cell counts if its undefended attack reaches this."""
    accuracy_loss: Rate = 0.05
    """A defense is ranked if its mean loss of clean accuracy is at most this on every objective."""
    max_poison_rate: Rate = 1.0
    """An attack may poison at most this share of the training pairs."""
    reference: Sha256 | None = None
    """Of `submissions/none.json`, the undefended models that every entry starts from."""
    statistic: Statistic | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Track:
        for name in ("attacks", "objectives", "defenses", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice")
        if self.statistic and set(self.statistic.seeds) & set(self.seeds):
            raise ValueError("the seeds of the statistic must be fresh")
        return self

    def cells(self, kind: Kind, name: str) -> tuple[Cell, ...]:
        """The cells of an entry: the method in its place, everything else as the track has it."""
        axes = {"attack": self.attacks, "objective": self.objectives, "defense": self.defenses}
        axes[kind] = (name,)
        return tuple(
            Cell(recipe=self.recipe, attack=attack, objective=objective, defense=defense, seed=seed)
            for attack in axes["attack"]
            for objective in axes["objective"]
            for defense in axes["defense"]
            for seed in self.seeds
        )


class Submission(Strict):
    """One method on one track: `submissions/<name>.json`."""

    version: Literal[1] = SUBMISSION_VERSION
    track: Name
    edition: int = Field(ge=1)
    kind: Literal["attack", "objective", "defense"]
    name: Name
    summary: Line
    authors: tuple[Line, ...] = Field(min_length=1, max_length=50)
    url: Url = ""
    """Where code and description are."""
    cards: tuple[Card, ...] = Field(min_length=1, max_length=5000)

    @model_validator(mode="after")
    def _one_method(self) -> Submission:
        cells = [card.cell for card in self.cards]
        if len(set(cells)) != len(cells):
            raise ValueError("two cards are of the same cell")
        for cell in cells:
            if getattr(cell, self.kind) != self.name:
                raise ValueError(f"a card is of another {self.kind} than the submission")
        return self


class Verification(Strict):
    """What a maintainer found: `verified/<name>.json`. Any edit of the submission drops it."""

    submission_sha256: Sha256
    level: Level
    by: Line
    on: date
    cells: int = Field(ge=1)
    """Cells that were run again."""
    seed: int = Field(ge=0)
    """Of their draw from all cells of the submission."""
    identical: bool
    """Whether all predictions (replayed) or all models (reproduced) are the submitted ones."""
    largest_difference: Rate
    """Between a submitted rate and the one found, over those cells."""

    @model_validator(mode="after")
    def _close(self) -> Verification:
        allowed = 0.0 if self.identical else LARGEST_DIFFERENCE[self.level]
        if self.largest_difference > allowed:
            raise ValueError(
                f"a difference of {self.largest_difference:g} is more than the {allowed:g} of an"
                f" {'identical' if self.identical else 'equivalent'} result"
            )
        return self


class Cleaned(Strict):
    """A reported model."""

    clean_top1: Rate
    asr_top1: Rate


class ReportedRow(Strict):
    """Figures that a paper or its authors published."""

    setting: Line
    attack: Name
    objective: Name
    defense: Name
    start: Cleaned
    points: int = Field(ge=1)
    """Models that the best was picked from."""
    best: dict[str, Cleaned | None]
    """By ASR bound, as a rate: the most accurate model within it; None where none is."""


class Reported(Strict):
    """Figures published elsewhere: `reported/<name>.json`; never ranked with measured rows."""

    source: Line
    url: Url
    note: Line
    rows: tuple[ReportedRow, ...] = Field(min_length=1)
