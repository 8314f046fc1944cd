"""Draw `registry/datasets/shapes.png`: `python -m tests.datasets.contact_sheet`.

What the recipe `tiny` trains and tests on with seed 0: one training pair of each class, and one
test image as every attack of the recipe stamps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bdbench.api import Attack, Dataset, Target
from bdbench.data import Pairs, Trigger
from bdbench.datasets.shapes import SYNONYMS
from bdbench.hashing import derive_seed
from bdbench.plan import cells, plan
from bdbench.registry import Registry, share_dir

COMMAND = "python -m tests.datasets.contact_sheet"
SHEET = share_dir("registry") / "datasets" / "shapes.png"
RECIPE, STAMPED = "tiny", "mushroom"
COLUMNS, GAP, MARGIN = 8, 8, 32
SCALE, LARGE = 5, 7
BODY, HEAD, LEADING, TITLE = 19, 21, 23, 42
WIDE = 162
"""Pixels of a caption that fit under an image."""
CHUNKS = 6
"""Of 512 training pairs, enough to show every class."""
INK, QUIET, EDGE = (34, 34, 34), (107, 114, 128), (214, 217, 222)

Pixels = NDArray[np.uint8]


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own, the same on every machine."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def length(line: str) -> float:
    """Width of a line under an image, in pixels."""
    return font(BODY).getlength(line)


def wrapped(caption: str) -> list[str] | None:
    """The caption on one line, or on two of nearly the same width; None where it does not fit."""
    words = caption.split()
    ways = [[" ".join(words[:i]), " ".join(words[i:])] for i in range(1, len(words))]
    fits = [lines for lines in [[caption], *ways] if max(map(length, lines)) <= WIDE]
    return min(fits, key=lambda lines: (len(lines), max(map(length, lines))), default=None)


def nodes() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The specs of the data stage and of the poison stage of each attack of the recipe."""
    registry = Registry()
    attacks = list(registry.recipe(RECIPE).attacks)
    todo = plan(registry, cells(registry, recipe=RECIPE, attacks=attacks, objectives=["mmcl"],
                                defenses=["none"], seeds=[0])).nodes.values()
    (data,) = (node.spec for node in todo if node.stage == "data")
    return data, {node.label: node.spec for node in todo if node.stage == "poison"}


def examples(dataset: Dataset, resolution: int, seed: int) -> tuple[Pairs, dict[str, int]]:
    """Training pairs, and for each class the first whose caption is its own and short."""
    chunks = list(islice(dataset.rows("train", resolution, seed), CHUNKS))
    pairs = Pairs(
        torch.from_numpy(np.concatenate([rows.ids for rows in chunks])),
        torch.from_numpy(np.concatenate([rows.images for rows in chunks])),
        [caption for rows in chunks for caption in rows.captions],
    )
    labels = np.concatenate([rows.labels for rows in chunks])
    return pairs, {
        name: next(
            at for at in np.flatnonzero(labels == label).tolist()
            if {name, SYNONYMS[name]} & set(pairs.captions[at].split())
            and wrapped(pairs.captions[at])
        )
        for label, name in enumerate(dataset.classes())
    }


def stamped() -> Iterator[tuple[str, Pixels]]:
    """The clean test image and what each attack makes of it, with names; [3, side, side]."""
    registry = Registry()
    data, poisons = nodes()
    dataset = cast(Dataset, registry.build("dataset", data["dataset"]))
    pairs, _ = examples(dataset, data["resolution"], data["seed"])
    rows = next(dataset.rows("test", data["resolution"], data["seed"]))
    at = rows.labels.tolist().index(dataset.classes().index(STAMPED))
    ids, pixels = torch.from_numpy(rows.ids[[at]]), torch.from_numpy(rows.images[[at]])
    yield "clean", rows.images[at]
    for name, spec in poisons.items():
        attack = cast(Attack, registry.build("attack", spec["attack"]))
        target = Target(
            spec["target"], dataset.classes().index(spec["target"]), tuple(dataset.templates())
        )
        # As the poison stage does it, so that this is the very trigger of the cells with seed 0.
        rng = np.random.default_rng(derive_seed(spec["seed"], "prepare"))
        trigger = Trigger(
            attack, attack.prepare(pairs, target, rng), derive_seed(spec["seed"], "trigger")
        )
        image = trigger(pixels.to(torch.float32) / 255, ids)[0]
        yield name, (image * 255).round().to(torch.uint8).numpy()


def pairs_shown() -> Iterator[tuple[str, Pixels]]:
    """Caption and image of one training pair of each class, the most frequent first."""
    data, _ = nodes()
    dataset = cast(Dataset, Registry().build("dataset", data["dataset"]))
    pairs, chosen = examples(dataset, data["resolution"], data["seed"])
    for at in chosen.values():
        yield pairs.captions[at], pairs.pixels[at].numpy()


def draw() -> Image.Image:
    """The sheet."""
    pairs, attacks = list(pairs_shown()), list(stamped())
    small = pairs[0][1].shape[-1] * SCALE
    inner = COLUMNS * small + (COLUMNS - 1) * GAP
    scale = min(LARGE, (inner // len(attacks) - GAP) // attacks[0][1].shape[-1])
    large = attacks[0][1].shape[-1] * scale
    step = small + 2 * LEADING + 26
    below = MARGIN + TITLE + -(-len(pairs) // COLUMNS) * step + 14
    page = Image.new(
        "RGB", (inner + 2 * MARGIN, below + TITLE + large + LEADING + MARGIN + 8), "white"
    )
    pen = ImageDraw.Draw(page)

    def tile(x: int, y: int, pixels: Pixels, scale: int, lines: list[str]) -> None:
        """An image, every pixel as a square, with a hair line around it and text under it."""
        image = Image.fromarray(pixels.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1))
        page.paste(image, (x, y))
        pen.rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=EDGE)
        for j, line in enumerate(lines):
            under = y + image.height + LEADING * (j + 1)
            pen.text((x + image.width / 2, under), line, INK, font(BODY), "ms")

    for y, text in (
        (MARGIN, "Training pairs, one of each class, the most frequent class first"),
        (below, "A test image, clean and with the trigger of each attack"),
    ):
        pen.text((MARGIN, y + HEAD), text, QUIET, font(HEAD), "ls")
    for i, (caption, pixels) in enumerate(pairs):
        x, y = MARGIN + i % COLUMNS * (small + GAP), MARGIN + TITLE + i // COLUMNS * step
        tile(x, y, pixels, SCALE, wrapped(caption) or [])
    gap = (inner - len(attacks) * large) // (len(attacks) - 1)
    for i, (name, pixels) in enumerate(attacks):
        tile(MARGIN + i * (large + gap), below + TITLE, pixels, scale, [name])
    return page


def main(path: Path = SHEET) -> None:
    """Write the sheet."""
    draw().save(path, optimize=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
