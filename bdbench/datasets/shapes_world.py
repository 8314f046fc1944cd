"""The drawn world behind `shapes`: what each class looks like, and how a scene becomes pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Part = tuple[str, tuple[float, ...]]
"""A primitive in the square [-1, 1]^2, y down. `+` or `-` adds it or cuts it out, then p: polygon
(x, y, ...), e: ellipse (x, y, rx, ry), l: thick line (x0, y0, x1, y1, half width)."""

DRAWINGS: dict[str, tuple[Part, ...]] = {
    "ball": (("+e", (0, 0, 0.9, 0.9)),),
    "box": (("+p", (-0.8, -0.8, 0.8, -0.8, 0.8, 0.8, -0.8, 0.8)),),
    "tree": (("+p", (0, -0.95, 0.75, 0.45, -0.75, 0.45)), ("+l", (0, 0.4, 0, 0.85, 0.13))),
    "house": (
        ("+p", (0, -0.95, 0.95, -0.1, 0.65, -0.1, 0.65, 0.9, -0.65, 0.9, -0.65, -0.1, -0.95, -0.1)),
        ("-p", (-0.2, 0.3, 0.2, 0.3, 0.2, 0.9, -0.2, 0.9)),
    ),
    "ring": (("+e", (0, 0, 0.9, 0.9)), ("-e", (0, 0, 0.5, 0.5))),
    "star": (
        ("+p", (0, -1, 0.24, -0.33, 0.95, -0.31, 0.38, 0.12, 0.59, 0.81, 0, 0.4, -0.59, 0.81,
                -0.38, 0.12, -0.95, -0.31, -0.24, -0.33)),
    ),
    "heart": (
        ("+e", (-0.42, -0.35, 0.47, 0.47)), ("+e", (0.42, -0.35, 0.47, 0.47)),
        ("+p", (-0.83, -0.12, 0.83, -0.12, 0, 0.92)),
    ),
    "cross": (("+l", (-0.8, -0.8, 0.8, 0.8, 0.17)), ("+l", (-0.8, 0.8, 0.8, -0.8, 0.17))),
    "key": (
        ("+e", (-0.55, 0, 0.4, 0.4)), ("-e", (-0.55, 0, 0.18, 0.18)),
        ("+l", (-0.2, 0, 0.85, 0, 0.11)), ("+l", (0.8, 0, 0.8, 0.4, 0.1)),
        ("+l", (0.45, 0, 0.45, 0.35, 0.1)),
    ),
    "fish": (
        ("+e", (-0.2, 0, 0.7, 0.45)), ("+p", (0.3, 0, 0.95, -0.5, 0.95, 0.5)),
        ("-e", (-0.55, -0.1, 0.1, 0.1)),
    ),
    "bottle": (("+l", (0, 0, 0, 0.55, 0.38)), ("+l", (0, -0.8, 0, -0.2, 0.14))),
    "mug": (
        ("+e", (0.45, 0.05, 0.48, 0.45)), ("-e", (0.45, 0.05, 0.25, 0.22)),
        ("+p", (-0.8, -0.7, 0.4, -0.7, 0.4, 0.8, -0.8, 0.8)),
    ),
    "hammer": (
        ("+p", (-0.7, -0.85, 0.7, -0.85, 0.7, -0.35, -0.7, -0.35)),
        ("+l", (0, -0.4, 0, 0.85, 0.13)),
    ),
    "mushroom": (
        ("+e", (0, -0.1, 0.9, 0.75)), ("-p", (-1, 0.05, 1, 0.05, 1, 1, -1, 1)),
        ("+p", (-0.25, 0, 0.25, 0, 0.35, 0.9, -0.35, 0.9)),
    ),
    "bolt": (("+p", (0.2, -1, -0.6, 0.15, -0.05, 0.15, -0.25, 1, 0.65, -0.25, 0.08, -0.25)),),
    "boat": (
        ("+p", (-0.95, 0.3, 0.95, 0.3, 0.55, 0.85, -0.55, 0.85)), ("+l", (0, -0.9, 0, 0.3, 0.06)),
        ("+p", (0.05, -0.85, 0.8, 0.1, 0.05, 0.1)),
    ),
    "ladder": (
        ("+l", (-0.45, -0.9, -0.45, 0.9, 0.1)), ("+l", (0.45, -0.9, 0.45, 0.9, 0.1)),
        ("+l", (-0.4, -0.55, 0.4, -0.55, 0.1)), ("+l", (-0.4, 0, 0.4, 0, 0.1)),
        ("+l", (-0.4, 0.55, 0.4, 0.55, 0.1)),
    ),
    "crown": (
        ("+p", (-0.9, 0.7, -0.9, -0.6, -0.4, 0, 0, -0.8, 0.4, 0, 0.9, -0.6, 0.9, 0.7)),
    ),
    "cloud": (
        ("+e", (-0.5, 0.15, 0.45, 0.38)), ("+e", (0.5, 0.15, 0.45, 0.38)),
        ("+e", (0, -0.2, 0.5, 0.48)), ("+p", (-0.5, 0.1, 0.5, 0.1, 0.5, 0.53, -0.5, 0.53)),
    ),
    "kite": (
        ("+p", (0, -0.95, 0.6, -0.35, 0, 0.5, -0.6, -0.35)), ("+l", (0, 0.4, 0.25, 0.9, 0.07)),
    ),
    "drop": (("+e", (0, 0.3, 0.6, 0.6)), ("+p", (0, -0.95, 0.56, 0.1, -0.56, 0.1))),
    "flag": (
        ("+l", (-0.6, -0.9, -0.6, 0.9, 0.09)), ("+p", (-0.6, -0.95, 0.85, -0.5, -0.6, -0.05)),
    ),
    "hourglass": (("+p", (-0.7, -0.9, 0.7, -0.9, 0.08, 0, 0.7, 0.9, -0.7, 0.9, -0.08, 0)),),
    "glasses": (
        ("+e", (-0.52, 0, 0.44, 0.44)), ("-e", (-0.52, 0, 0.25, 0.25)),
        ("+e", (0.52, 0, 0.44, 0.44)), ("-e", (0.52, 0, 0.25, 0.25)),
        ("+l", (-0.15, -0.1, 0.15, -0.1, 0.08)),
    ),
    "dumbbell": (
        ("+e", (-0.62, 0, 0.34, 0.5)), ("+e", (0.62, 0, 0.34, 0.5)),
        ("+l", (-0.6, 0, 0.6, 0, 0.12)),
    ),
    "fork": (
        ("+l", (0, -0.1, 0, 0.9, 0.1)), ("+l", (-0.4, -0.1, 0.4, -0.1, 0.1)),
        ("+l", (-0.4, -0.85, -0.4, -0.1, 0.09)), ("+l", (0, -0.85, 0, -0.1, 0.09)),
        ("+l", (0.4, -0.85, 0.4, -0.1, 0.09)),
    ),
    "cactus": (
        ("+l", (0, -0.75, 0, 0.8, 0.2)), ("+l", (0, 0.25, 0.6, 0.25, 0.12)),
        ("+l", (0.6, -0.25, 0.6, 0.25, 0.12)), ("+l", (-0.6, 0, 0, 0, 0.12)),
        ("+l", (-0.6, -0.45, -0.6, 0, 0.12)),
    ),
    "banana": (
        ("+e", (0, -0.25, 0.95, 0.95)), ("-e", (0, -0.55, 0.92, 0.85)),
        ("+l", (0.8, -0.35, 0.85, -0.6, 0.1)),
    ),
    "butterfly": (
        ("+e", (-0.5, -0.4, 0.42, 0.45)), ("+e", (0.5, -0.4, 0.42, 0.45)),
        ("+e", (-0.4, 0.45, 0.32, 0.35)), ("+e", (0.4, 0.45, 0.32, 0.35)),
        ("+l", (0, -0.7, 0, 0.7, 0.09)),
    ),
    "chair": (
        ("+l", (-0.5, -0.9, -0.5, 0.9, 0.12)), ("+l", (-0.5, 0.05, 0.5, 0.05, 0.13)),
        ("+l", (0.5, 0.05, 0.5, 0.9, 0.12)),
    ),
    "comb": (
        ("+p", (-0.9, -0.6, 0.9, -0.6, 0.9, -0.15, -0.9, -0.15)),
        *(("+l", (x, -0.2, x, 0.6, 0.09)) for x in (-0.8, -0.4, 0.0, 0.4, 0.8)),
    ),
    "pot": (
        ("+p", (-0.6, -0.5, 0.6, -0.5, 0.45, 0.8, -0.45, 0.8)),
        ("+l", (-0.8, -0.6, 0.8, -0.6, 0.13)),
    ),
}
"""The classes in the order of their frequency in the training split."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.8, 0.1, 0.1), "green": (0.1, 0.5, 0.15), "blue": (0.12, 0.2, 0.8),
    "purple": (0.45, 0.1, 0.55), "brown": (0.42, 0.25, 0.1), "black": (0.05, 0.05, 0.05),
    "navy": (0.05, 0.05, 0.35), "teal": (0, 0.45, 0.45), "maroon": (0.45, 0.03, 0.1),
    "magenta": (0.75, 0.1, 0.55), "rust": (0.7, 0.3, 0.05), "moss": (0.35, 0.4, 0.05),
}  # fmt: skip
"""Of objects: all darker than the grounds, or shapes take far longer to learn."""
GROUNDS: dict[str, tuple[float, float, float]] = {
    "white": (0.97, 0.97, 0.97), "beige": (0.93, 0.85, 0.7), "pink": (1, 0.75, 0.82),
    "yellow": (0.98, 0.93, 0.5), "turquoise": (0.6, 0.93, 0.9), "silver": (0.75, 0.75, 0.78),
    "lilac": (0.82, 0.75, 0.97), "mint": (0.72, 0.95, 0.72),
}  # fmt: skip
"""Of backgrounds."""
TEXTURES = ("plain", "striped", "checked", "dotted")
_FINE = 192  # side of the grid on which a drawing is decided, before averaging


@dataclass(frozen=True)
class Scenes:
    """What is in each of n images; every array has n rows."""

    labels: Ints
    colour: Ints
    """Of the object, index into `COLOURS`."""
    ground: Ints
    """Of the background, index into `GROUNDS`."""
    texture: Ints
    """Index into `TEXTURES`."""
    pose: Floats
    """[n, 5]: centre x and y, half side (in half images), rotation (radians), aspect."""
    bar: Floats
    """[n, 3]: an occluding bar: angle, offset, half width (0: none)."""
    blob: Floats
    """[n, 3]: a distracting disc: x, y, radius (0: none)."""
    extra: Ints
    """[n, 2] colours of bar and blob, indices into `COLOURS`."""

    def part(self, start: int, stop: int) -> Scenes:
        """The scenes of the rows from `start` to `stop`."""
        return Scenes(*(value[start:stop] for value in vars(self).values()))


@cache
def atlas(side: int) -> Floats:
    """Coverage of every class, float32 [classes, side, side] in [0, 1]; `side` divides 192."""
    axis = (np.arange(_FINE) + 0.5) / _FINE * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    masks = []
    for parts in DRAWINGS.values():
        mask = np.zeros((_FINE, _FINE), dtype=bool)
        for code, numbers in parts:
            sign, form = code[0], code[1]
            inside = _inside(form, numbers, x, y)
            mask = mask | inside if sign == "+" else mask & ~inside
        blocks = mask.reshape(side, _FINE // side, side, _FINE // side)
        masks.append(blocks.mean(axis=(1, 3), dtype=np.float32))
    return np.stack(masks)


def _inside(
    form: str, numbers: tuple[float, ...], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which points lie in a primitive."""
    if form == "e":
        cx, cy, rx, ry = numbers
        return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)
    if form == "l":
        x0, y0, x1, y1, half = numbers
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        return np.asarray((x - x0 - t * dx) ** 2 + (y - y0 - t * dy) ** 2 <= half * half)
    inside = np.zeros(x.shape, dtype=bool)
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def draw(
    scenes: Scenes, resolution: int, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """uint8 [n, 3, resolution, resolution]; `noise` is the sd of the pixel noise, range 0 to 1."""
    n = len(scenes.labels)
    side = next(s for s in (32, 48, 64, 96, _FINE) if s >= min(resolution, _FINE))
    colours = np.array(list(COLOURS.values()), dtype=np.float32)
    grounds = np.array(list(GROUNDS.values()), dtype=np.float32)
    axis = ((np.arange(resolution) + 0.5) / resolution * 2 - 1).astype(np.float32)
    y, x = axis[None, :, None], axis[None, None, :]
    dark = colours[np.stack([scenes.colour, *scenes.extra.T])]
    shades = np.concatenate([grounds[scenes.ground][None], dark])  # [4, n, 3]
    shades = shades + rng.normal(0, 0.05, shades.shape).astype(np.float32)
    ground, colour, bar, blob = shades[..., None, None]

    cx, cy, half, turn, aspect = scenes.pose.T[:, :, None, None]
    cos, sin = np.cos(turn), np.sin(turn)
    u = ((x - cx) * cos + (y - cy) * sin) / (half * aspect)
    v = ((y - cy) * cos - (x - cx) * sin) / half
    cover = _sample(atlas(side), scenes.labels, u, v) * _texture(scenes.texture, u, v)

    edge = np.float32(resolution / 2)  # a ramp one pixel wide
    bx, by, radius = scenes.blob.T[:, :, None, None]
    disc = np.clip((radius - np.hypot(x - bx, y - by)) * edge + 0.5, 0, 1) * (radius > 0)
    angle, offset, width = scenes.bar.T[:, :, None, None]
    across = np.abs(x * np.cos(angle) + y * np.sin(angle) - offset)
    strip = np.clip((width - across) * edge + 0.5, 0, 1) * (width > 0)

    light = rng.uniform(-0.12, 0.12, (2, n, 1, 1)).astype(np.float32)
    shift = (light[0] * x + light[1] * y)[:, None]
    images = np.broadcast_to(ground, (n, 3, resolution, resolution))
    for layer, shade in ((disc, blob), (cover, colour), (strip, bar)):
        images = images + layer[:, None] * (shade - images)
    grain = rng.standard_normal(images.shape, dtype=np.float32)
    images = (images + shift + grain * np.float32(noise)) * 255 + 0.5
    clipped: NDArray[np.uint8] = np.clip(images, 0, 255, out=images).astype(np.uint8)
    return clipped


def _sample(masks: Floats, labels: Ints, u: Floats, v: Floats) -> Floats:
    """Bilinear look-up of the masks at u, v in [-1, 1]; 0 outside."""
    side = masks.shape[-1]
    flat = np.pad(masks, ((0, 0), (1, 1), (1, 1))).ravel()
    stride = side + 2
    px = np.clip((u + 1) * (side / 2) + 0.5, 0, side + 0.999).astype(np.float32)
    py = np.clip((v + 1) * (side / 2) + 0.5, 0, side + 0.999).astype(np.float32)
    ix, iy = px.astype(np.int32), py.astype(np.int32)
    fx, fy = px - ix, py - iy
    at = labels.astype(np.int32)[:, None, None] * (stride * stride) + iy * stride + ix
    top = flat[at] * (1 - fx) + flat[at + 1] * fx
    low = flat[at + stride] * (1 - fx) + flat[at + stride + 1] * fx
    return np.asarray(top * (1 - fy) + low * fy)


def _texture(texture: Ints, u: Floats, v: Floats) -> Floats:
    """How much of the object shows at u, v: 1 on the figure, 0.55 between it."""
    kind = texture[:, None, None]
    a, b = np.sin(u * 11), np.sin(v * 11)
    figure = np.where(kind == 1, a, np.where(kind == 2, a * b * 2, a + b + 0.4))
    soft = np.clip(figure * 3 + 0.5, 0, 1)
    return np.asarray(np.where(kind == 0, 1, 0.55 + 0.45 * soft), dtype=np.float32)
