"""AutoAugment: the ImageNet policy (Cubuk et al. 2019, 1805.09501), a whole batch at a time.

Verma et al. apply it to the file's image and resize afterwards (protocol section 1.2). Here it
works on the cached image, at the recipe's resolution: no image is decoded twice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bdbench.group import ALONE, Group
from bdbench.vision import declare_operators

Step = tuple[str, float, int]
"""An operation, the probability that it is applied, and its magnitude from 0 to 9."""

POLICY: tuple[tuple[Step, Step], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("saturation", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
    (("saturation", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear", 0.6, 5), ("equalize", 1.0, 0)),
    (("saturation", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)
"""Sub-policies: one is drawn for each image, and its two steps are taken one after the other."""
SIGNED = {"rotate", "shear", "saturation", "contrast", "sharpness"}
"""Operations that go either way, with equal chance."""


def autoaugment(images: Tensor, generator: torch.Generator, group: Group = ALONE) -> Tensor:
    """One view of each image by the policy.

    `images`: float [b, 3, h, w] in [0, 1]; returns the same form, in steps of 1/255: the operations
    are defined on bytes. `group`: as in `image_views`.
    """
    pixels = images.mul(255).round_().to(torch.uint8)
    for name, level, rows in draw(len(images), generator, group):
        index = torch.tensor(rows, device=images.device)
        pixels[index] = operate(pixels.index_select(0, index), name, level)
    return pixels.to(images.dtype).div_(255)


def draw(
    count: int, generator: torch.Generator, group: Group = ALONE
) -> Iterator[tuple[str, float, list[int]]]:
    """What happens to `count` images, in order: operation, level and the rows that share both."""
    device, whole = generator.device, group.size * count
    policies = torch.randint(len(POLICY), (whole,), generator=generator, device=device)
    chances = torch.rand(2, whole, generator=generator, device=device)
    signs = torch.randint(2, (2, whole), generator=generator, device=device)
    chosen = group.share(policies).tolist()
    drawn, sign_of = group.share(chances, 1).tolist(), group.share(signs, 1).tolist()
    for step in (0, 1):
        groups: defaultdict[tuple[str, float], list[int]] = defaultdict(list)
        for row, number in enumerate(chosen):
            name, probability, magnitude = POLICY[number][step]
            if drawn[step][row] < probability:
                sign = -1 if name in SIGNED and sign_of[step][row] == 0 else 1
                groups[name, sign * magnitude / 9].append(row)
        for (name, level), rows in groups.items():
            yield name, level, rows


def operate(pixels: Tensor, name: str, level: float) -> Tensor:
    """An operation at `level`, in [-1, 1]: a share of the policy's largest magnitude.

    `pixels`: uint8 [b, 3, h, w]; returns the same form. What moves in from beyond the edges is
    black, and nothing is interpolated, as is torchvision's default.
    """
    function = _torchvision()
    changed: Tensor
    match name:
        case "rotate":
            changed = function.rotate(pixels, 30 * level)
        case "shear":
            shear = [math.degrees(math.atan(0.3 * level)), 0.0]
            changed = function.affine(pixels, 0.0, [0, 0], 1.0, shear, center=[0.0, 0.0])
        case "saturation" | "contrast" | "sharpness":
            changed = getattr(function, f"adjust_{name}")(pixels, 1 + 0.9 * level)
        case "posterize":
            changed = function.posterize(pixels, 8 - round(4 * level))
        case "solarize":
            changed = function.solarize(pixels, 255 - 255 * level)
        case _:
            changed = getattr(function, name)(pixels)
    return changed


@cache
def _torchvision() -> Any:
    declare_operators()
    from torchvision.transforms.v2 import functional

    return functional
