"""What an attack must do: poison no more than asked, and stamp each row the same in any batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from bdbench.api import Attack
from bdbench.contracts.effects import UNTOUCHED, untouched
from bdbench.contracts.property import BrokenError, Property
from bdbench.contracts.sample import SEED, same, sample
from bdbench.data import RowRng, Trigger
from bdbench.schema import Recipe

ROWS = 8
"""Rows that are stamped."""
LOW, HIGH = -1.0, 2.0
"""An image in [0, 1] plus any pattern in [-1, 1]; the clamp cuts what is beyond [0, 1]."""
TOLERANCE = 1e-6
"""Vector instructions may round the last images of a batch differently."""

STORED, FORM, REPEATS = "state can be stored", "trigger keeps the form", "trigger is deterministic"
TEXT = "captions are text"


def properties(attack: Attack, recipe: Recipe) -> Iterator[Property]:
    """The properties of an attack."""
    trial = _Trial(attack, recipe)
    stamps = (STORED, FORM)
    yield Property(STORED, trial.state_can_be_stored)
    yield Property("state is deterministic", trial.state_is_deterministic, (STORED,))
    yield Property(FORM, trial.trigger_keeps_the_form, (STORED,))
    yield Property("trigger stays near [0, 1]", trial.trigger_stays_in_range, stamps)
    yield Property(REPEATS, trial.trigger_is_deterministic, stamps)
    yield Property("trigger knows no batch", trial.trigger_knows_no_batch, (*stamps, REPEATS))
    yield Property("chooses at most n positions", trial.chooses_at_most_n)
    yield Property("choice is deterministic", trial.choice_is_deterministic)
    yield Property("poisons nothing at rate 0", trial.poisons_nothing_at_rate_0)
    yield Property(TEXT, trial.captions_are_text, (STORED,))
    yield Property("captions are deterministic", trial.captions_are_deterministic, (STORED, TEXT))
    works = (*stamps, TEXT)
    yield Property("inputs are left alone", trial.inputs_are_left_alone, works)
    yield Property(UNTOUCHED, lambda: untouched(trial.everything, "attack"), works)


class _Trial:
    def __init__(self, attack: Attack, recipe: Recipe) -> None:
        self.attack, self.recipe = attack, recipe
        self.pairs, self.target = sample(recipe)
        self.rows = torch.arange(ROWS)

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(SEED)

    def prepare(self) -> dict[str, Tensor]:
        return self.attack.prepare(self.pairs, self.target, self.rng())

    @cached_property
    def state(self) -> dict[str, Tensor]:
        return self.prepare()

    def stamp(self, rows: Tensor) -> Tensor:
        """float [b, 3, h, w] in [0, 1], as training and evaluation get it."""
        images, trigger = self.pairs.images(rows), Trigger(self.attack, self.state, SEED)
        return trigger(images, self.pairs.ids[rows])

    def choose(self, n: int) -> list[int]:
        return list(self.attack.choose(self.pairs, self.target, n, self.rng()))

    def captions(self) -> list[str]:
        rng, found = self.rng(), []
        for text in self.pairs.captions[:ROWS]:
            said = self.attack.caption(text, self.target, rng)
            found += [said, self.attack.trigger_text(said, self.state, rng)]
        return found

    def everything(self) -> None:
        self.prepare()
        self.choose(ROWS)
        self.captions()
        self.stamp(self.rows)

    def state_can_be_stored(self) -> None:
        state = self.state
        if not isinstance(state, dict) or not all(
            isinstance(value, Tensor) for value in state.values()
        ):
            raise BrokenError(
                f"`prepare` returns `{type(state).__name__}`: the poison artifact stores tensors by"
                " name; return a dict of tensors, empty where nothing is drawn once"
            )
        try:
            stored = load(save(state))
        except (RuntimeError, ValueError) as error:
            raise BrokenError(
                f"`prepare` returns what safetensors cannot store: {error}; return contiguous"
                " tensors that share no memory"
            ) from error
        if not all(same(stored[name], value) for name, value in state.items()):
            raise BrokenError("`prepare` returns tensors that change when they are stored")

    def state_is_deterministic(self) -> None:
        again = self.prepare()
        if again.keys() != self.state.keys() or not all(
            same(again[name], value) for name, value in self.state.items()
        ):
            raise BrokenError(
                "`prepare` returns another state for an equal generator: a trigger could not be"
                " reproduced; draw from the generator it is handed alone"
            )

    def trigger_keeps_the_form(self) -> None:
        images = self.pairs.images(self.rows)
        rng = RowRng(SEED, self.pairs.ids[self.rows])
        stamped = self.attack.trigger(images.clone(), self.state, rng)
        if not isinstance(stamped, Tensor):
            raise BrokenError(f"`trigger` returns `{type(stamped).__name__}`; return a tensor")
        if (stamped.shape, stamped.dtype, stamped.device) != (
            images.shape, images.dtype, images.device
        ):
            raise BrokenError(
                f"`trigger` returns `{_form(stamped)}` for `{_form(images)}`: the stamped images"
                " take the place of the clean ones; keep shape, type and device"
            )
        self.stamp(self.rows)

    def trigger_stays_in_range(self) -> None:
        rng = RowRng(SEED, self.pairs.ids[self.rows])
        stamped = self.attack.trigger(self.pairs.images(self.rows), self.state, rng)
        if not stamped.isfinite().all():
            raise BrokenError("`trigger` returns NaN or infinity: training would end in NaN")
        low, high = float(stamped.min()), float(stamped.max())
        if low < LOW or high > HIGH:
            raise BrokenError(
                f"`trigger` returns values from `{low:.3g}` to `{high:.3g}`: images are floats in"
                " [0, 1] and are cut to that, so this looks like another unit; scale the pattern"
            )

    def trigger_is_deterministic(self) -> None:
        if not same(self.stamp(self.rows), self.stamp(self.rows)):
            raise BrokenError(
                "`trigger` stamps the same rows differently the second time: defenses would face"
                " different images; draw from the `RowRng` it is handed alone"
            )

    def trigger_knows_no_batch(self) -> None:
        together = self.stamp(self.rows)
        alone = torch.cat([self.stamp(row[None]) for row in self.rows])
        turned = self.stamp(self.rows.flip(0)).flip(0)
        if not same(together, alone, TOLERANCE) or not same(together, turned, TOLERANCE):
            raise BrokenError(
                "`trigger` stamps a row differently in another batch or order: training and"
                " evaluation form different batches; use nothing of the other rows, and draw from"
                " the `RowRng` it is handed"
            )

    def chooses_at_most_n(self) -> None:
        size = len(self.pairs)
        for n in (1, ROWS, size, size + 1):
            chosen = self.choose(n)
            if len(chosen) > n or len(set(chosen)) != len(chosen) or not all(
                isinstance(at, int | np.integer) and 0 <= at < size for at in chosen
            ):
                raise BrokenError(
                    f"`choose` returns `{_short(chosen)}` for n = `{n}` of `{size}` pairs: the"
                    " poison rate bounds the attacker; return at most n distinct positions of pairs"
                )

    def choice_is_deterministic(self) -> None:
        if self.choose(ROWS) != self.choose(ROWS):
            raise BrokenError(
                "`choose` returns other positions for an equal generator: the poisoned pairs could"
                " not be reproduced; draw from the generator it is handed alone"
            )

    def poisons_nothing_at_rate_0(self) -> None:
        idle = self.attack.model_copy(update={"rate": 0.0})
        for attack in (self.attack, idle):
            chosen = list(attack.choose(self.pairs, self.target, 0, self.rng()))
            if chosen:
                raise BrokenError(
                    f"`choose` returns `{_short(chosen)}` for n = `0`: a rate of 0 is the control;"
                    " return nothing when nothing is asked for"
                )

    def captions_are_text(self) -> None:
        for text in self.captions():
            if not isinstance(text, str) or not text.strip():
                raise BrokenError(
                    f"`caption` and `trigger_text` make `{text!r}`: every pair needs a caption to"
                    " be trained on; return a string that says something"
                )

    def captions_are_deterministic(self) -> None:
        if self.captions() != self.captions():
            raise BrokenError(
                "`caption` and `trigger_text` return other text for an equal generator: the"
                " manifest could not be reproduced; draw from the generator they are handed alone"
            )

    def inputs_are_left_alone(self) -> None:
        # Rows that no earlier check has handed over: writing the same again would change nothing.
        new, kept = _Trial(self.attack, self.recipe), _Trial(self.attack, self.recipe)
        state = {name: value.clone() for name, value in new.state.items()}
        images = new.pairs.images(self.rows)
        before = images.clone()
        self.attack.trigger(images, new.state, RowRng(SEED, new.pairs.ids[self.rows]))
        new.everything()
        every = torch.arange(len(kept.pairs))
        changed = {
            "images": not same(images, before),
            "state": not all(same(new.state[name], value) for name, value in state.items()),
            "pairs": not same(new.pairs.images(every), kept.pairs.images(every))
            or list(new.pairs.captions) != list(kept.pairs.captions),
        }
        if any(changed.values()):
            names = "`, `".join(name for name, is_so in changed.items() if is_so)
            raise BrokenError(
                f"the attack writes to its `{names}`: the caller reads them again; write to a copy"
                " (`images.clone()`)"
            )


def _form(images: Tensor) -> str:
    return f"{images.dtype}{list(images.shape)} on {images.device}"


def _short(chosen: list[int]) -> str:
    return f"{chosen[:5]}" if len(chosen) <= 5 else f"{chosen[:5]} and {len(chosen) - 5} more"
