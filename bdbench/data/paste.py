"""Patches of noise, and pasting patches on batches of images."""

from __future__ import annotations

import torch
from torch import Tensor

from bdbench.errors import BdbenchError


def room(side: int, size: int, margin: int = 0) -> int:
    """The largest row (or column) at which a patch fits, `margin` px from the far edge.

    `side`: height (or width) of the image; `size`: of the patch. All in pixels. Raises
    BdbenchError where no place fits.
    """
    if size + margin > side:
        raise BdbenchError(
            f"a patch of `{size}` px with a margin of `{margin}` px does not fit an image of "
            f"`{side}` px",
            hint=f"--set attack.size={max(1, side // 4)} --set attack.margin=0",
        )
    return side - size - margin


def blocks(noise: Tensor, levels: int, block: int, height: int, width: int) -> Tensor:
    """Uniform noise in [0, 1) as squares of one colour, with `levels` equally likely values.

    `noise`: float [..., rows, columns], a value per square of `block` px; returns float
    [..., height, width] from 0 to 1, both included, the last squares cut off at the edge.
    """
    values = (noise * levels).floor() / (levels - 1)
    return values.repeat_interleave(block, -2).repeat_interleave(block, -1)[..., :height, :width]


def paste(images: Tensor, patches: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """A copy of `images` with one patch on each, its pixels unchanged.

    `images`: float [b, c, h, w]; `patches`: the same type, [b, c, p, q], or [c, p, q] for one
    patch on all; `top`, `left`: int64 [b], where the patch's upper left pixel goes.
    """
    height, width = patches.shape[-2:]
    device = images.device
    image = torch.arange(len(images), device=device)[:, None, None]
    rows = top[:, None, None] + torch.arange(height, device=device)[:, None]
    columns = left[:, None, None] + torch.arange(width, device=device)
    pasted = images.clone()
    pasted[image, :, rows, columns] = patches.movedim(-3, -1)
    return pasted
