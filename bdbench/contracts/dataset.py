"""What a dataset must give: disjoint splits in the stated form, the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import combinations, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bdbench.api import SPLITS, Dataset, Extra, Rows, Split
from bdbench.contracts.effects import UNTOUCHED, untouched
from bdbench.contracts.property import BrokenError, Property
from bdbench.contracts.sample import SEED
from bdbench.schema import Recipe

CHUNKS = 4
"""Chunks that are read of each split: a large dataset is checked by its beginning."""
PAIRED: tuple[Split | Extra, ...] = ("train", "budget", "retrieval")

FORM = "rows have their form"


def properties(dataset: Dataset, recipe: Recipe) -> Iterator[Property]:
    """The properties of a dataset."""
    trial = _Trial(dataset, recipe)
    yield Property("classes are distinct names", trial.classes_are_distinct_names)
    yield Property("templates have one place", trial.templates_have_one_place)
    yield Property(FORM, trial.rows_have_their_form)
    yield Property("ids are unique", trial.ids_are_unique, (FORM,))
    yield Property("labels are classes", trial.labels_are_classes, (FORM,))
    yield Property("pairs have captions", trial.pairs_have_captions, (FORM,))
    yield Property("reads the same twice", trial.reads_the_same_twice, (FORM,))
    yield Property("splits share no image", trial.splits_share_no_image, (FORM,))
    yield Property(UNTOUCHED, lambda: untouched(trial.read, "rows"), (FORM,))


class _Trial:
    def __init__(self, dataset: Dataset, recipe: Recipe) -> None:
        self.dataset, self.resolution = dataset, recipe.resolution

    def read(self) -> dict[Split | Extra, list[Rows]]:
        return {
            split: list(islice(self.dataset.rows(split, self.resolution, SEED), CHUNKS))
            for split in (*SPLITS, *self.dataset.extras())
        }

    @cached_property
    def splits(self) -> dict[Split | Extra, list[Rows]]:
        return self.read()

    def classes_are_distinct_names(self) -> None:
        classes = self.dataset.classes()
        if len(set(classes)) != len(classes) or len(classes) < 2 or not all(
            isinstance(name, str) and name and name == name.strip() for name in classes
        ):
            raise BrokenError(
                f"`classes` returns `{classes[:5]}`...: the target is one of them, by name; return"
                " at least two distinct names without space around them"
            )

    def templates_have_one_place(self) -> None:
        templates = self.dataset.templates()
        if not templates:
            raise BrokenError("`templates` returns none: prompts are made of them; return `a {}`")
        for template in templates:
            if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
                raise BrokenError(
                    f"the template `{template}` does not hold `{{}}` once, and no other brace: the"
                    " class is put there"
                )

    def rows_have_their_form(self) -> None:
        side = self.resolution
        for split, chunks in self.splits.items():
            if not sum(len(rows.ids) for rows in chunks):
                raise BrokenError(f"`{split}` has no row: every split that there is is read")
            for rows in chunks:
                n = len(rows.ids)
                for name, dtype, shape in (
                    ("ids", np.int64, (n,)), ("images", np.uint8, (n, 3, side, side)),
                    ("labels", np.int64, (n,)),
                ):
                    found = getattr(rows, name)
                    if not isinstance(found, np.ndarray) or (
                        found.dtype, found.shape
                    ) != (dtype, shape):
                        raise BrokenError(
                            f"`{name}` of `{split}` are `{_form(found)}`, not"
                            f" `{np.dtype(dtype)}{list(shape)}`: the cache lays them out so"
                        )
                if len(rows.captions) != n or not all(
                    isinstance(text, str) for text in rows.captions
                ):
                    raise BrokenError(
                        f"`captions` of `{split}` are not `{n}` strings: one belongs to each row,"
                        " empty where there is none"
                    )

    def ids_are_unique(self) -> None:
        every = np.concatenate([rows.ids for chunks in self.splits.values() for rows in chunks])
        ids, counts = np.unique(every, return_counts=True)
        if (counts > 1).any():
            raise BrokenError(
                f"the id `{ids[counts > 1][0]}` occurs `{counts.max()}` times: randomness is"
                " addressed by ids; number the rows through all splits"
            )

    def labels_are_classes(self) -> None:
        highest = len(self.dataset.classes()) - 1
        for split, chunks in self.splits.items():
            lowest = -1 if split in PAIRED else 0
            labels = np.concatenate([rows.labels for rows in chunks])
            if labels.min() < lowest or labels.max() > highest:
                raise BrokenError(
                    f"labels of `{split}` run from `{labels.min()}` to `{labels.max()}`: they are"
                    f" positions in `classes`, `{lowest}` to `{highest}` here"
                    + (", -1 where unknown" if split in PAIRED else "")
                )

    def pairs_have_captions(self) -> None:
        for split in PAIRED:
            for rows in self.splits.get(split, []):
                for at, text in zip(rows.ids, rows.captions, strict=True):
                    if not text.strip():
                        raise BrokenError(
                            f"row `{at}` of `{split}` has no caption: pairs are trained on; leave"
                            " such rows out"
                        )

    def reads_the_same_twice(self) -> None:
        for split, chunks in self.read().items():
            first = self.splits[split]
            if len(chunks) != len(first) or not all(
                np.array_equal(getattr(a, name), getattr(b, name))
                for a, b in zip(first, chunks, strict=True)
                for name in ("ids", "images", "labels", "captions")
            ):
                raise BrokenError(
                    f"`{split}` is different when it is read again: results could not be"
                    " reproduced; derive everything from the seed, and sort what is listed"
                )

    def splits_share_no_image(self) -> None:
        seen = {
            split: {_digest(np.asarray(image)) for rows in chunks for image in rows.images}
            for split, chunks in self.splits.items()
        }
        for one, other in combinations(seen, 2):
            shared = len(seen[one] & seen[other])
            if shared:
                raise BrokenError(
                    f"`{one}` and `{other}` share `{shared}` images, pixel by pixel: a test on what"
                    " was trained on says nothing; leave them out of one"
                )


def _form(found: object) -> str:
    if isinstance(found, np.ndarray):
        return f"{found.dtype}{list(found.shape)}"
    return type(found).__name__


def _digest(image: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
