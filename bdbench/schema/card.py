"""The result card: what one cell measured, and everything needed to check it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bdbench.schema.recipe import Recipe
from bdbench.schema.refs import Cell, Ref, Strict

CARD_VERSION: Literal[1] = 1

Status = Literal["ok", "attack_failed", "control"]


class Score(Strict):
    """A measured figure with its counts and 95 % interval."""

    value: float
    """A rate in [0, 1], or a difference of rates in [-1, 1]."""
    low: float
    high: float
    n: int = Field(ge=1)
    """Images counted."""
    k: int | None = None
    """Images that hit, so that `value` is k / n; None for a difference."""


class Point(Strict):
    """One model of the trajectory."""

    sweep: dict[str, float]
    """The swept parameters of the run; empty when the defense sweeps nothing."""
    order: int = Field(ge=0)
    """Rank of the run in the declared sweep, 0 the gentlest."""
    step: int = Field(ge=0)
    """Epochs of the defense, 0 for the starting model."""
    scores: dict[str, Score]
    """By metric, on the test set."""
    validation: Score
    """Zero-shot accuracy on the clean validation split: all that the blind rule sees."""
    further: dict[str, Score] = {}
    """Zero-shot accuracy on the dataset's further labelled sets, by name; ranks nothing."""


class Selections(Strict):
    """The models that the rules pick, as positions in `trajectory`; None when none qualifies."""

    oracle: dict[str, int | None]
    """By ASR bound: the highest clean accuracy among models within the bound. Uses the trigger."""
    last: int
    """Last epoch of the entry's default parameters."""
    blind: int
    """The most aggressive model within the tolerance on validation. Uses no trigger."""


class Verdict(Strict):
    """Whether the undefended attack worked."""

    status: Status
    reason: str


class Poison(Strict):
    """What was done to the training pairs."""

    target: str
    requested: int
    """Pairs that the poison rate asks for."""
    poisoned: int
    """Pairs poisoned; fewer than requested where the attack found no more candidates."""
    pairs: int
    """Training pairs in all."""
    examples: tuple[tuple[str, str], ...] = ()
    """A few captions, before and after."""


class Stage(Strict):
    """One stage that the card rests on."""

    stage: str
    label: str
    key: str
    files: dict[str, str]
    """sha256 by file name."""


class Cost(Strict):
    """What a stage took, when it was computed."""

    seconds: float
    samples: int
    """Image-caption pairs (or images) that went through the model."""


class Provenance(Strict):
    """Where the figures come from."""

    versions: dict[str, str]
    git: str | None
    """Commit of the bdbench checkout, with `+dirty` if changed; None for an installed package."""
    seeds: dict[str, int]
    """By purpose: data, poison, pretrain, defend."""
    threads: dict[str, int]
    stages: tuple[Stage, ...]


class Card(Strict):
    """The result of one cell."""

    version: Literal[1] = CARD_VERSION
    cell: Cell
    verdict: Verdict
    components: dict[str, Ref]
    """attack, objective, defense, dataset: every parameter, and which were overridden."""
    metrics: tuple[Ref, ...]
    recipe: Recipe
    """As resolved, overrides included."""
    overridden: dict[str, Any] = {}
    """What `--set` changed in the recipe."""
    data: dict[str, float]
    """Sizes of the splits and known reference figures, rates in [0, 1]."""
    left_out: dict[str, int] = {}
    """Samples of the files that could not be used, by kind."""
    poison: Poison
    trajectory: tuple[Point, ...]
    """The starting model first, then every epoch of every run."""
    selections: Selections
    provenance: Provenance
    cost: dict[str, Cost]
    """By stage."""

    def without_times(self) -> dict[str, Any]:
        """The card as JSON data, less the seconds: bit-identical between equal runs."""
        data = self.model_dump(mode="json")
        for cost in data["cost"].values():
            del cost["seconds"]
        return data
