"""What an objective must do: return losses that train the encoders, whatever the batch's order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bdbench.api import Features, Objective
from bdbench.contracts.effects import UNTOUCHED, untouched
from bdbench.contracts.property import BrokenError, Property
from bdbench.contracts.sample import SEED, same
from bdbench.schema import Recipe

PAIRS, WIDTH = 16, 12
TOLERANCE = 1e-5

VIEWS, TERMS, REPEATS = "views is 1 or 2", "loss gives named terms", "loss is deterministic"


def properties(objective: Objective, recipe: Recipe) -> Iterator[Property]:
    """The properties of an objective."""
    trial = _Trial(objective)
    works = (VIEWS, TERMS)
    yield Property(VIEWS, trial.views_is_1_or_2)
    yield Property(TERMS, trial.loss_gives_named_terms, (VIEWS,))
    yield Property("gradient reaches an encoder", trial.gradient_reaches_an_encoder, works)
    yield Property("gradient reaches the scale", trial.gradient_reaches_the_scale, works)
    yield Property(REPEATS, trial.loss_is_deterministic, works)
    yield Property("order of the batch is nothing", trial.order_is_nothing, (*works, REPEATS))
    yield Property("features are left alone", trial.features_are_left_alone, works)
    yield Property(UNTOUCHED, lambda: untouched(lambda: trial.loss(), "loss"), works)


@dataclass(frozen=True)
class _Leaves:
    """What gradients are taken for."""

    images: Tensor
    texts: Tensor
    log_scale: Tensor


class _Trial:
    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def leaves(self, log_scale: float = 2.0) -> _Leaves:
        generator = torch.Generator().manual_seed(SEED)
        shape = (self.objective.views, PAIRS, WIDTH)
        images, texts = (
            normalize(torch.randn(shape, generator=generator), dim=-1).requires_grad_()
            for _ in range(2)
        )
        return _Leaves(images, texts, torch.tensor(log_scale, requires_grad=True))

    def heads(self) -> nn.Module | None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return self.objective.heads(WIDTH)

    def terms(self, leaves: _Leaves, order: Tensor | None = None) -> dict[str, Tensor]:
        at = torch.arange(PAIRS) if order is None else order
        features = Features(leaves.images[:, at], leaves.texts[:, at])
        return self.objective.loss(features, self.heads(), leaves.log_scale.exp())

    def loss(self, leaves: _Leaves | None = None, order: Tensor | None = None) -> Tensor:
        terms = self.terms(self.leaves() if leaves is None else leaves, order)
        return torch.stack(list(terms.values())).sum()

    def views_is_1_or_2(self) -> None:
        if self.objective.views not in (1, 2):
            raise BrokenError(
                f"`views` is `{self.objective.views}`: the loop makes the clean view and one"
                " augmented view; set `views: ClassVar[int]` to 1 or 2"
            )

    def loss_gives_named_terms(self) -> None:
        terms = self.terms(self.leaves())
        if not isinstance(terms, dict) or not terms:
            raise BrokenError(
                f"`loss` returns `{terms!r}`: the loop sums the terms and logs them by name; return"
                " a dict with at least one"
            )
        for name, term in terms.items():
            if not isinstance(term, Tensor) or term.ndim:
                raise BrokenError(
                    f"the term `{name}` is `{term!r}`: the loop sums the terms; return a tensor"
                    " without dimensions (`.mean()`)"
                )
            if not term.isfinite():
                raise BrokenError(f"the term `{name}` is `{term.item()}`: nothing trains on it")
            if not term.requires_grad:
                raise BrokenError(
                    f"the term `{name}` has no gradient: nothing trains on it; compute it from the"
                    " features without `detach`, `item` or `no_grad`"
                )

    def gradient_reaches_an_encoder(self) -> None:
        leaves = self.leaves()
        found = torch.autograd.grad(
            self.loss(leaves), [leaves.images, leaves.texts], allow_unused=True
        )
        if not any(cast(Tensor | None, part) is not None and part.any() for part in found):
            raise BrokenError(
                "no gradient reaches the images or the texts: no encoder would learn; compute the"
                " loss from `features` without `detach`"
            )

    def gradient_reaches_the_scale(self) -> None:
        leaves, warmer = self.leaves(), self.leaves(log_scale=2.5)
        loss = self.loss(leaves)
        if same(loss.detach(), self.loss(warmer).detach()):
            return
        (found,) = torch.autograd.grad(loss, [leaves.log_scale], allow_unused=True)
        if cast(Tensor | None, found) is None:
            raise BrokenError(
                "the loss depends on `scale`, but no gradient reaches it: the temperature would"
                " stay where it starts; use `scale` without `detach`"
            )

    def loss_is_deterministic(self) -> None:
        if not same(self.loss().detach(), self.loss().detach()):
            raise BrokenError(
                "`loss` returns other values for the same features: a run could not be reproduced;"
                " compute it from its arguments alone"
            )

    def order_is_nothing(self) -> None:
        order = torch.arange(PAIRS - 1, -1, -1)
        before, after = float(self.loss().detach()), float(self.loss(order=order).detach())
        if abs(before - after) > TOLERANCE * max(1.0, abs(before)):
            raise BrokenError(
                f"the loss is `{before:.6f}`, and `{after:.6f}` for the same pairs in another"
                " order: batches are shuffled; treat all pairs alike"
            )

    def features_are_left_alone(self) -> None:
        leaves = self.leaves()
        with torch.no_grad():
            images, texts = leaves.images.clone(), leaves.texts.clone()
            features = Features(images, texts)
            self.objective.loss(features, self.heads(), leaves.log_scale.exp())
            if not same(images, leaves.images) or not same(texts, leaves.texts):
                raise BrokenError(
                    "`loss` writes to the features: gradients would be those of other numbers;"
                    " write to a copy"
                )
