"""Augmented views of images: geometry and colour, or a policy."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from bdbench.augment.autoaugment import autoaugment
from bdbench.group import ALONE, Group
from bdbench.schema import Augment

_LUMA = (0.299, 0.587, 0.114)


def image_views(
    images: Tensor, augment: Augment, generator: torch.Generator, group: Group = ALONE
) -> Tensor:
    """One augmented view of each image: crop, flip, rotation, then colour; or `augment.policy`.

    `images`: float [b, 3, h, w] in [0, 1]; returns the same form. Every image draws its own
    parameters from `generator`, uniformly from the ranges of `augment`, or as the policy has it.
    `group`: the processes of which this one has a share of the batch; together they draw as one.
    """
    if augment.policy == "autoaugment":
        return autoaugment(images, generator, group)
    whole = (8, group.size * len(images))
    draws = group.share(torch.rand(whole, generator=generator, device=generator.device), 1)
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
