"""Augmented views of images and captions, for the self-supervised terms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from bdbench.schema import Augment

_LUMA = (0.299, 0.587, 0.114)


def image_views(images: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """One augmented view of each image: crop, flip, rotation, then colour.

    `images`: float [b, 3, h, w] in [0, 1]; returns the same form. Every image draws its own
    parameters from `generator`, uniformly from the ranges of `augment`.
    """
    draws = torch.rand(8, len(images), generator=generator, device=generator.device)
    area, across, down, flip, turn, *colour = draws.to(images.device).unbind()
    zoom = (augment.crop + (1 - augment.crop) * area).sqrt()
    moved = warp(
        images,
        zoom=zoom,
        shift_x=(1 - zoom) * (2 * across - 1),
        shift_y=(1 - zoom) * (2 * down - 1),
        flip=flip < augment.flip,
        angle=math.radians(augment.rotate) * (2 * turn - 1),
    )
    return recolour(moved, *(1 + augment.colour * (2 * draw - 1) for draw in colour))


def warp(
    images: Tensor, zoom: Tensor, shift_x: Tensor, shift_y: Tensor, flip: Tensor, angle: Tensor
) -> Tensor:
    """Crop, flip and rotate in one bilinear resampling; beyond the edges the image is mirrored.

    `images`: float [b, 3, h, w]; the rest is [b]. `zoom`: side of the crop, as a share of the
    image's; `shift_x`, `shift_y`: its centre, where -1 and 1 are the edges; `flip`: bool, whether
    left and right change places; `angle`: radians, by which the crop is turned about its centre.
    """
    height, width = images.shape[-2:]
    x, y = (
        (2 * torch.arange(side, device=images.device, dtype=images.dtype) + 1) / side - 1
        for side in (width, height)
    )
    x = torch.where(flip, -zoom, zoom)[:, None] * x
    y = zoom[:, None] * y
    cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
    # Each coordinate is a sum over the columns' and the rows' part: no product with a full grid,
    # as affine_grid has it, which would take longer than the resampling.
    source_x = (cosine * x + shift_x[:, None])[:, None, :] - (sine * height / width * y)[:, :, None]
    source_y = (sine * width / height * x + shift_y[:, None])[:, None, :] + (cosine * y)[:, :, None]
    grid = torch.stack([source_x, source_y], -1).to(images)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def recolour(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Scale the brightness, then the contrast, then the saturation.

    `images`: float [b, 3, h, w] in [0, 1]; returns the same form. The factors are [b], at least 0;
    1 leaves the image. Each step is torchvision's (a mixture with black, with the mean luminance,
    with the luminance), but values are clipped once, at the end: then the three are one affine map
    of the colours.
    """
    luma = torch.tensor(_LUMA, device=images.device, dtype=images.dtype)
    mean = images.mean((2, 3)) @ luma
    grey = torch.ones_like(luma)[:, None] * luma
    colours = torch.eye(3, device=images.device, dtype=images.dtype)
    mix = torch.lerp(grey, colours, saturation[:, None, None].to(images))
    mix = mix * (brightness * contrast)[:, None, None]
    offset = ((1 - contrast) * brightness * mean)[:, None, None]
    return torch.baddbmm(offset, mix, images.flatten(2)).clamp_(0, 1).view_as(images)


def text_views(captions: Sequence[str], share: float, rng: np.random.Generator) -> list[str]:
    """One augmented view of each caption, in the same order (EDA, Wei and Zou 2019, 1901.11196).

    One of three operations, drawn uniformly for each caption: swap two words; insert a word of the
    caption at a random place; delete each word with probability `share`. Swap and insertion are
    done max(1, floor(share * words)) times. EDA's synonyms (replacement, and the source of the
    insertions) would need WordNet. Captions of fewer than two words come back as they are, and all
    do where `share`, in [0, 1], is 0.
    """
    if share == 0:
        return list(captions)
    operations = rng.integers(3, size=len(captions))
    return [
        _text_view(caption, operation, share, rng)
        for caption, operation in zip(captions, operations.tolist(), strict=True)
    ]


def _text_view(caption: str, operation: int, share: float, rng: np.random.Generator) -> str:
    words = caption.split()
    if len(words) < 2:
        return caption
    times = max(1, int(share * len(words)))
    if operation == 0:
        for _ in range(times):
            first, second = rng.choice(len(words), size=2, replace=False)
            words[first], words[second] = words[second], words[first]
    elif operation == 1:
        own = tuple(words)
        for _ in range(times):
            words.insert(rng.integers(len(words) + 1), own[rng.integers(len(own))])
    else:
        survivor = words[rng.integers(len(words))]
        kept = rng.random(len(words)) >= share
        words = [word for word, keep in zip(words, kept, strict=True) if keep] or [survivor]
    return " ".join(words)
