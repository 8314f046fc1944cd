"""Datasets that break one rule each."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np

from bdbench import register
from bdbench.api import SPLITS, Dataset, Rows

CALLS = itertools.count()


class Squares(Dataset):
    """Four images of noise in each split: sound."""

    def classes(self):
        return ["ball", "box"]

    def templates(self):
        return ["a {}"]

    def chunk(self, split, resolution, seed):
        number = SPLITS.index(split)
        rng = np.random.default_rng([seed, number])
        captions = ["a ball", "a box"] * 2 if split in ("train", "budget") else [""] * 4
        return Rows(
            ids=np.arange(4) + 10 * number, captions=captions, labels=np.array([0, 1, 0, 1]),
            images=rng.integers(256, size=(4, 3, resolution, resolution), dtype=np.uint8),
        )

    def rows(self, split, resolution, seed):
        yield self.changed(self.chunk(split, resolution, seed), split)

    def changed(self, rows, split):
        return rows


@register("twins")
class Twins(Squares):
    """Names two classes the same."""

    def classes(self):
        return ["ball", "ball"]


@register("placeless")
class Placeless(Squares):
    """A template without a place for the class."""

    def templates(self):
        return ["a {}", "a thing"]


@register("named_place")
class NamedPlace(Squares):
    """A template whose place has a name."""

    def templates(self):
        return ["a {} and a {name}"]


@register("no_test")
class NoTest(Squares):
    """Has no test split."""

    def rows(self, split, resolution, seed):
        if split != "test":
            yield self.chunk(split, resolution, seed)


@register("floating")
class Floating(Squares):
    """Gives floats."""

    def changed(self, rows, split):
        return dataclasses.replace(rows, images=rows.images / 255)


@register("channels_last")
class ChannelsLast(Squares):
    """Gives height, width, channels."""

    def changed(self, rows, split):
        return dataclasses.replace(rows, images=rows.images.transpose(0, 2, 3, 1))


@register("captionless")
class Captionless(Squares):
    """Gives fewer captions than rows."""

    def changed(self, rows, split):
        return dataclasses.replace(rows, captions=rows.captions[:1])


@register("renumbered")
class Renumbered(Squares):
    """Numbers the rows of every split from 0."""

    def changed(self, rows, split):
        return dataclasses.replace(rows, ids=np.arange(4))


@register("from_one")
class FromOne(Squares):
    """Counts classes from 1."""

    def changed(self, rows, split):
        return dataclasses.replace(rows, labels=rows.labels + 1)


@register("unlabelled")
class Unlabelled(Squares):
    """Does not know the classes of its test images."""

    def changed(self, rows, split):
        return dataclasses.replace(rows, labels=np.full(4, -1))


@register("blank")
class Blank(Squares):
    """Has pairs without a caption."""

    def changed(self, rows, split):
        return dataclasses.replace(rows, captions=[" "] * 4)


@register("live")
class Live(Squares):
    """Gives other images every time."""

    def chunk(self, split, resolution, seed):
        return super().chunk(split, resolution, next(CALLS))


@register("overlapping")
class Overlapping(Squares):
    """Tests on an image of the training split."""

    def rows(self, split, resolution, seed):
        rows = self.chunk(split, resolution, seed)
        if split == "test":
            rows.images[2] = self.chunk("train", resolution, seed).images[3]
        yield rows


@register("shuffling")
class Shuffling(Squares):
    """Draws from Python's global generator, and uses nothing of it."""

    def changed(self, rows, split):
        random.random()
        return rows
