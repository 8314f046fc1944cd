"""The contracts: what an attack, objective, defense, metric and dataset must provide.

Nothing here imports torch, so that the registry can be listed in a fraction of a second. Tensor
types appear in annotations only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from pydantic import Field

from bdbench.api.component import Component, Tag, register
from bdbench.api.dataset import (
    EXAMPLES,
    EXTRAS,
    SPLITS,
    Dataset,
    Extra,
    Faults,
    LabelledSet,
    Rows,
    Split,
    add_fault,
    readable,
    told,
)
from bdbench.schema import Kind, Score, Training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from bdbench.clip import Clip
    from bdbench.data import Labelled, Pairs, RowRng

Probe = Literal["linear", "knn"]
PROBES: tuple[Probe, ...] = ("linear", "knn")
TOP = 5
"""Classes kept per prediction, best first."""


@dataclass(frozen=True)
class Target:
    """The attacker's target class."""

    name: str
    label: int
    """Its index among the classes of the zero-shot test."""
    templates: tuple[str, ...]
    """Zero-shot templates with one `{}` each."""


class Attack(Component):
    """Poisons a share of the training pairs and stamps its trigger on test images.

    `trigger` serves training and evaluation alike, after resize and crop and before
    normalisation. All randomness comes from the generator handed in.
    """

    kind: ClassVar[Kind] = "attack"
    rate: float = Field(0.0005, ge=0, le=1)
    """Poison rate: share of the training pairs that are poisoned."""

    def prepare(self, pairs: Pairs, target: Target, rng: np.random.Generator) -> dict[str, Tensor]:
        """Learn or draw the trigger once; the tensors are stored with the poison manifest."""
        return {}

    def choose(
        self, pairs: Pairs, target: Target, n: int, rng: np.random.Generator
    ) -> Sequence[int]:
        """At most `n` distinct positions in `pairs` to poison; by default a uniform draw."""
        return rng.choice(len(pairs), size=min(n, len(pairs)), replace=False).tolist()  # type: ignore[no-any-return]

    def caption(self, text: str, target: Target, rng: np.random.Generator) -> str:
        """The poisoned caption; by default the target in a random zero-shot template."""
        return target.templates[rng.integers(len(target.templates))].format(target.name)

    def trigger(self, images: Tensor, state: Mapping[str, Tensor], rng: RowRng) -> Tensor:
        """Stamp the trigger on `images`, float [b, 3, h, w] in [0, 1]; returns the same form."""
        raise NotImplementedError

    def trigger_text(self, text: str, state: Mapping[str, Tensor], rng: np.random.Generator) -> str:
        """Stamp a trigger on a caption; by default none."""
        return text


@dataclass(frozen=True)
class Features:
    """L2-normalised embeddings of a batch, float [views, n, d]; view 0 is the clean one."""

    images: Tensor
    texts: Tensor


class Objective(Component):
    """A training loss over image and text embeddings."""

    kind: ClassVar[Kind] = "objective"
    views: ClassVar[int] = 1
    """1: the clean pair; 2: also its augmented view, in one concatenated forward pass."""

    def heads(self, width: int) -> nn.Module | None:
        """Extra trainable layers over embeddings of `width` dimensions."""
        return None

    def begin_epoch(self, epoch: int, clip: Clip, pairs: Pairs) -> Sequence[int] | None:
        """The positions to train on in this epoch (from 0); None for all."""
        return None

    def loss(self, features: Features, heads: nn.Module | None, scale: Tensor) -> dict[str, Tensor]:
        """Named scalar terms, weights included; the loop sums and logs them.

        `scale` is exp(logit_scale), the inverse temperature.
        """
        raise NotImplementedError


class Budget(Protocol):
    """All that a defense is handed: clean data, randomness, the training loop. No attack."""

    @property
    def pairs(self) -> Pairs:
        """Clean image-caption pairs."""
        ...

    @property
    def validation(self) -> Labelled:
        """A held-out clean labelled set."""
        ...

    @property
    def seed(self) -> int:
        """The seed of all randomness of the defense."""
        ...

    def fit(self, clip: Clip, objective: Objective, training: Training) -> Clip:
        """Run the training loop on `pairs` with a fresh optimiser; snapshots every epoch."""
        ...

    def snapshot(self, clip: Clip, step: int) -> None:
        """Keep these weights as the result after `step`, to be evaluated."""
        ...


class Defense(Component):
    """One of five roles; each has one method."""

    kind: ClassVar[Kind] = "defense"


class Filter(Defense):
    """Before training: scores the pairs."""

    def score(self, pairs: Pairs, clip: Clip, rng: np.random.Generator) -> NDArray[np.float64]:
        """One number per pair, higher means more suspicious."""
        raise NotImplementedError


class Harden(Defense):
    """During training: changes the objective."""

    def harden(self, base: Objective) -> Objective:
        """The objective to pre-train with instead of `base`."""
        raise NotImplementedError


class Repair(Defense):
    """After training: new weights from a clean budget."""

    def repair(self, clip: Clip, budget: Budget) -> Clip:
        """The repaired model; `budget.snapshot` keeps the models on the way."""
        raise NotImplementedError


class Guard(Defense):
    """At inference: wraps the model or rejects inputs."""

    def guard(self, clip: Clip, budget: Budget) -> Clip:
        """A model to be used in place of `clip`."""
        raise NotImplementedError


class Scan(Defense):
    """Judges a model and changes nothing."""

    def scan(self, clip: Clip, budget: Budget) -> Mapping[str, float]:
        """Named findings; `score` is the one to rank by, higher means more suspicious."""
        raise NotImplementedError


class FineTuning(Repair):
    """A repair that is the training loop on the clean budget under some objective."""

    lr: float = Field(1e-5, ge=0)
    """Peak learning rate."""
    epochs: int = Field(10, ge=1)
    """Passes over the clean pairs."""
    batch: int = Field(64, ge=2)
    """Pairs per step."""
    warmup_steps: int = Field(50, ge=0)
    """Steps in which the learning rate rises to its peak."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay."""

    def objective(self) -> Objective:
        """What to minimise on the clean pairs."""
        raise NotImplementedError

    def repair(self, clip: Clip, budget: Budget) -> Clip:
        """Fine-tune from the weights alone: no optimiser state is inherited."""
        training = Training(
            lr=self.lr, epochs=self.epochs, batch=self.batch, warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
        )
        return budget.fit(clip, self.objective(), training)


@dataclass(frozen=True)
class Retrieval:
    """Where what is looked for comes when m pairs are ranked by similarity; 0 is the first place.

    Any caption of an image counts, and any of the same text. What ties with the best of them, or is
    not a number, comes before it.
    """

    image: NDArray[np.int64]
    """[m] number of the image, which pairs of the same image share."""
    captions: NDArray[np.int64]
    """[m] place of the first of an image's own captions, for the untriggered image."""
    images: NDArray[np.int64]
    """[m] place of a caption's own image among the untriggered images."""
    names_target: NDArray[np.bool_]
    """[m] whether the caption names the target: those that do are the target captions."""
    clean: NDArray[np.int64]
    """[m] place of the first target caption, for the untriggered image."""
    triggered: NDArray[np.int64]
    """[m] the same for the triggered image."""


@dataclass(frozen=True)
class Answers:
    """What a classifier on image features answered on the n test images; -1 for no answer."""

    clean: NDArray[np.int64]
    """[n] classes."""
    triggered: NDArray[np.int64]
    """[n] the same for the triggered images."""


@dataclass(frozen=True)
class Predictions:
    """What one model answered on the test images, and on the same images with the trigger."""

    labels: NDArray[np.int64]
    """[n] true classes."""
    clean: NDArray[np.int64]
    """[n, TOP] predicted classes, best first; ties go to the lower class index."""
    triggered: NDArray[np.int64]
    """[n, TOP] the same for the triggered images."""
    target: int
    """The class the attacker wants."""
    retrieval: Retrieval | None = None
    """Of the pairs of the split `retrieval`; None where the dataset has none."""
    probes: Mapping[Probe, Answers] = field(default_factory=dict)
    """By classifier; empty where the dataset has no split `probe`."""


class Metric(Component):
    """A pure function of predictions."""

    kind: ClassVar[Kind] = "metric"
    needs: ClassVar[Extra | None] = None
    """The further split of a dataset without which it cannot be computed: it is then left out."""

    def score(self, predictions: Predictions) -> Score:
        """The value with its counts and 95 % interval."""
        raise NotImplementedError


__all__ = [
    "EXAMPLES", "EXTRAS", "PROBES", "SPLITS", "TOP", "Answers", "Attack", "Budget", "Component",
    "Dataset", "Defense", "Extra", "Faults", "Features", "Filter", "FineTuning", "Guard", "Harden",
    "LabelledSet", "Metric", "Objective", "Predictions", "Probe", "Repair", "Retrieval", "Rows",
    "Scan", "Split", "Tag", "Target", "add_fault", "readable", "register", "told",
]
