"""What a dataset must provide: pairs to train on, and labelled images to test on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from bdbench.api.component import Component
from bdbench.schema import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Split = Literal["train", "budget", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "budget", "validation", "test")

Extra = Literal["retrieval", "probe"]
EXTRAS: tuple[Extra, ...] = ("retrieval", "probe")

Faults = dict[str, tuple[int, list[str]]]
"""Samples that cannot be used, by kind: how many, and the first few."""
EXAMPLES = 3
"""Samples of a kind that are named."""


def add_fault(faults: Faults, kind: str, examples: Sequence[str], count: int = 1) -> None:
    """Count faults of a kind, and keep the first few examples."""
    known, before = faults.get(kind, (0, []))
    faults[kind] = known + count, [*before, *map(readable, examples)][:EXAMPLES]


def readable(name: str) -> str:
    """A file's name as one line of text: it may hold line breaks, and bytes that are no text."""
    return " ".join(name.encode("utf-8", "replace").decode().split())


def told(faults: Mapping[str, tuple[int, Sequence[str]]]) -> list[str]:
    """A line for each kind: how many, and the first few; the most frequent first."""
    order = sorted(faults.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        f"{count:,} x {kind} ({', '.join(f'`{example}`' for example in examples)}"
        f"{', ...' if count > len(examples) else ''})"
        for kind, (count, examples) in order
    ]


@dataclass(frozen=True)
class LabelledSet:
    """What a zero-shot test on a set needs besides its images."""

    classes: list[str]
    """By label."""
    templates: list[str]
    """With one `{}` each."""


@dataclass(frozen=True)
class Rows:
    """A chunk of a split."""

    ids: NDArray[np.int64]
    """[n] unique over all splits; randomness is addressed by them."""
    images: NDArray[np.uint8] | list[bytes]
    """[n, 3, resolution, resolution], or n JPEG files of that size; one form per dataset."""
    captions: list[str]
    """n captions; empty strings in splits that are only labelled."""
    labels: NDArray[np.int64]
    """[n] class indices, -1 where unknown."""


class Dataset(Component):
    """Image-caption pairs to train on and labelled images to test on."""

    kind: ClassVar[Kind] = "dataset"
    seeded: ClassVar[bool] = False
    """Whether the content depends on the seed (generated data) or not (files)."""
    local: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where on this machine the data lie: in no key and on no card."""

    def classes(self) -> list[str]:
        """Names of the classes of the zero-shot test; the index is the label."""
        raise NotImplementedError

    def templates(self) -> list[str]:
        """Zero-shot templates with one `{}` each."""
        raise NotImplementedError

    def rows(self, split: str, resolution: int, seed: int) -> Iterator[Rows]:
        """The split, one of `SPLITS`, `tests()` or `extras()`, in chunks, in a fixed order."""
        raise NotImplementedError

    def tests(self) -> dict[str, LabelledSet]:
        """Labelled sets besides the test, by name: accuracy on them is reported, and ranks none."""
        return {}

    def splits(self) -> Sequence[Split]:
        """Those that it has: all of `SPLITS`, or what one of `halves()` has of them."""
        return SPLITS

    def halves(self) -> tuple[Self, Self] | None:
        """What is trained on, with the validation, and what only tests: for data worth keeping.

        They are stored apart, so that another test needs no other training. None: all in one.
        """
        return None

    def extras(self) -> Sequence[Extra]:
        """Which further splits there are, for metrics that need them.

        `retrieval`: image-caption pairs that are ranked against each other, some of them naming the
        target. `probe`: labelled images of the classes of the test, to fit a classifier on.
        """
        return ()

    def facts(self, seed: int) -> dict[str, float]:
        """Known reference figures, rates in [0, 1], for the card (for example shortcuts)."""
        return {}

    def fingerprint(self) -> str:
        """64 hex digits for the content of the files, for a field `digest`; "" if generated.

        BdbenchError where a file is missing: it is called before anything is run.
        """
        return ""

    def prepare(
        self, resolution: int, work: Path, report: Callable[[int, int], None]
    ) -> None:
        """Whatever takes long, before rows are asked for, in `work`, which a restart finds again.

        `report` gets the samples done and those in all.
        """

    def faults(self) -> Faults:
        """Samples that were left out of the rows, once all of them have been read."""
        return {}
