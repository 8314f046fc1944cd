"""What a repair must do: give a sound model of the same form, the same every time, and no more."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from bdbench.api import Defense, Repair
from bdbench.clip import Clip
from bdbench.contracts.effects import UNTOUCHED, drawn_on, refuse_global, written
from bdbench.contracts.property import BrokenError, Property
from bdbench.contracts.sample import SEED, SHAPES
from bdbench.data import DataCache, write
from bdbench.schema import Model, Recipe
from bdbench.stages.defend import budget_for, one_way
from bdbench.store import RESUME

PAIRS, RESOLUTION = 128, 32
SMALL = Model(name="bdbench-tiny", tokenizer="words")
"""Every repair is checked on this model, whatever the recipe's."""
LIMITS = {"epochs": 1, "batch": 32}
"""Fields with these names are lowered to these values, where the defense allows it."""

ROLE, REPAIRS, KEPT = "is a repair", "repair gives a model", "weights keep their form"

State = Mapping[str, Tensor]


def properties(defense: Defense, recipe: Recipe) -> Iterator[Property]:
    """The properties of a defense, one epoch on a small model and 128 clean pairs."""
    with TemporaryDirectory(prefix="bdbench-check-") as folder:
        trial = _Trial(defense, recipe, Path(folder))
        works = (ROLE, REPAIRS)
        yield Property(ROLE, trial.is_a_repair)
        yield Property(REPAIRS, trial.repair_gives_a_model, (ROLE,))
        yield Property(KEPT, trial.weights_keep_their_form, works)
        yield Property("weights are finite", trial.weights_are_finite, (*works, KEPT))
        yield Property("snapshots count from 1", trial.snapshots_count_from_1, works)
        yield Property("last snapshot is returned", trial.last_snapshot_is_returned, (*works, KEPT))
        yield Property("two runs are identical", trial.two_runs_are_identical, (*works, KEPT))
        yield Property("no file is left behind", trial.no_file_is_left_behind, works)
        yield Property(UNTOUCHED, lambda: refuse_global(trial.first.drawn, "repair"), works)


@dataclass(frozen=True)
class _Run:
    """What a repair left."""

    before: State
    returned: State
    snapshots: Mapping[int, State]
    drawn: list[str]
    files: list[Path]


class _Trial:
    def __init__(self, defense: Defense, recipe: Recipe, folder: Path) -> None:
        self.defense, self.recipe, self.folder = _lowered(defense), recipe, folder

    @cached_property
    def data(self) -> DataCache:
        (self.folder / "data").mkdir()
        write(SHAPES, RESOLUTION, SEED, self.folder / "data")
        return DataCache(self.folder / "data")

    def run(self, name: str) -> _Run:
        """Repair a model with random weights, as the stage `defend` does it."""
        assert isinstance(self.defense, Repair)
        work = self.folder / name
        (work / RESUME).mkdir(parents=True)
        with _quiet():
            clip = Clip.build(SMALL, self.data.pairs("train").captions, SEED)
        before = clip.state()
        with _threads(self.recipe.threads.defend), one_way(lambda progress: None) as report:
            budget = budget_for(self.data, PAIRS, self.recipe.augment, SEED, work, report, [])
            with drawn_on() as drawn, written() as files:
                repaired = self.defense.repair(clip, budget)
        if not isinstance(repaired, Clip):
            raise BrokenError(
                f"`repair` returns `{type(repaired).__name__}`: what it returns is evaluated;"
                " return the repaired `Clip`"
            )
        snapshots = {
            int(path.stem.partition("-")[2]): load_file(path)
            for path in sorted(work.glob("step-*.safetensors"))
        }
        outside = [path for path in files if self.folder.resolve() not in path.resolve().parents]
        return _Run(before, repaired.state(), snapshots, drawn, outside)

    @cached_property
    def first(self) -> _Run:
        return self.run("first")

    def models(self) -> Iterator[tuple[str, State]]:
        yield from ((f"snapshot {step}", state) for step, state in self.first.snapshots.items())
        yield "the returned model", self.first.returned

    def is_a_repair(self) -> None:
        if not isinstance(self.defense, Repair):
            raise BrokenError(
                f"`{type(self.defense).__name__}` is no repair, and this version runs repairs only:"
                " derive it from `bdbench.api.Repair`"
            )

    def repair_gives_a_model(self) -> None:
        _ = self.first

    def weights_keep_their_form(self) -> None:
        for name, state in self.models():
            if _form(state) != _form(self.first.before):
                odd = _form(state).items() ^ _form(self.first.before).items()
                raise BrokenError(
                    f"{name} differs in `{sorted(field for field, _ in odd)[0]}`: its weights are"
                    " read into the model that was handed over; keep names, shapes and types"
                )

    def weights_are_finite(self) -> None:
        for name, state in self.models():
            odd = [field for field, value in state.items() if not value.isfinite().all()]
            if odd:
                raise BrokenError(f"{name} holds NaN or infinity in `{odd[0]}`: it answers nothing")

    def snapshots_count_from_1(self) -> None:
        if 0 in self.first.snapshots:
            raise BrokenError(
                "`budget.snapshot` is called with step `0`: that is the starting model; count from"
                " 1, on from the epochs of `budget.fit`"
            )

    def last_snapshot_is_returned(self) -> None:
        steps = self.first.snapshots
        if steps and not _equal(steps[max(steps)], self.first.returned):
            raise BrokenError(
                f"the returned model is not snapshot `{max(steps)}`, the last: only snapshots are"
                " evaluated where there are any; end with `budget.snapshot(clip, step)`"
            )

    def two_runs_are_identical(self) -> None:
        first, second = self.first, self.run("second")
        if first.snapshots.keys() != second.snapshots.keys() or not all(
            _equal(first.snapshots[step], second.snapshots[step]) for step in first.snapshots
        ) or not _equal(first.returned, second.returned):
            raise BrokenError(
                "two runs give different weights: a card could not be reproduced; draw from"
                " `budget.seed` alone, and keep nothing between runs"
            )

    def no_file_is_left_behind(self) -> None:
        if self.first.files:
            raise BrokenError(
                f"`repair` leaves `{self.first.files[0]}`: runs side by side would meet there; keep"
                " models with `budget.snapshot` and write nothing else"
            )


def _lowered(defense: Defense) -> Defense:
    """The defense with its costly fields at `LIMITS`."""
    values = defense.model_dump()
    for name, limit in LIMITS.items():
        if isinstance(values.get(name), int) and values[name] > limit:
            # Where a bound of the class forbids it, it runs as it is.
            with suppress(ValidationError):
                defense = type(defense).model_validate(values | {name: limit})
                values[name] = limit
    return defense


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip warns at every model with random weights; these are meant."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _form(state: State) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}


def _equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
