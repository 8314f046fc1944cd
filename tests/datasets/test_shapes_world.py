"""The pixels of `shapes` against a renderer that looks at one pixel at a time."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kstest

from bdbench.datasets.shapes import CLASSES, Shapes
from bdbench.datasets.shapes_world import COLOURS, DRAWINGS, GROUNDS, Scenes, atlas, draw


def naive_inside(form, numbers, x, y):
    """Whether a point lies in a primitive, with other formulas than the code's where there are."""
    if form == "e":
        cx, cy, rx, ry = numbers
        return math.hypot((x - cx) / rx, (y - cy) / ry) <= 1
    if form == "l":
        x0, y0, x1, y1, half = numbers
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        along = (x - x0) * dx + (y - y0) * dy
        if along < 0:
            return math.hypot(x - x0, y - y0) <= half
        if along > length:
            return math.hypot(x - x1, y - y1) <= half
        return abs((x - x0) * dy - (y - y0) * dx) <= half
    # A polygon goes once around the points in it, and not at all around those outside.
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    turned = 0.0
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        step = math.atan2(y1 - y, x1 - x) - math.atan2(y0 - y, x0 - x)
        turned += (step + math.pi) % (2 * math.pi) - math.pi
    return abs(turned) > math.pi


def naive_mask(name, x, y):
    inside = False
    for code, numbers in DRAWINGS[name]:
        if naive_inside(code[1], numbers, x, y):
            inside = code[0] == "+"
    return inside


def naive_cover(mask, u, v):
    """Bilinear interpolation between the centres of the cells of a mask, 0 beyond them."""
    side = len(mask)
    column, row = (u + 1) / 2 * side - 0.5, (v + 1) / 2 * side - 0.5
    total = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < side and 0 <= c < side:
                total += mask[r][c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def naive_texture(kind, u, v):
    if kind == 0:
        return 1.0
    a, b = math.sin(11 * u), math.sin(11 * v)
    figure = {1: a, 2: 2 * a * b, 3: a + b + 0.4}[kind]
    return 0.55 + 0.45 * min(max(3 * figure + 0.5, 0), 1)


def naive_draw(scenes, resolution, noise, rng):
    """uint8 [n, 3, resolution, resolution], drawing from `rng` in the order of the code."""
    n = len(scenes.labels)
    side = min(s for s in (32, 48, 64, 96, 192) if s >= min(resolution, 192))
    jitter = rng.normal(0, 0.05, (4, n, 3))
    light = rng.uniform(-0.12, 0.12, (2, n))
    grain = rng.standard_normal((n, 3, resolution, resolution), dtype=np.float32)
    colours, grounds = list(COLOURS.values()), list(GROUNDS.values())
    out = np.zeros(grain.shape, dtype=np.uint8)
    for i in range(n):
        mask = atlas(side)[scenes.labels[i]].tolist()
        cx, cy, half, turn, aspect = map(float, scenes.pose[i])
        angle, offset, width = map(float, scenes.bar[i])
        bx, by, radius = map(float, scenes.blob[i])
        paints = [
            [base + float(j) for base, j in zip(colour, jitter[slot, i], strict=True)]
            for slot, colour in enumerate((
                grounds[scenes.ground[i]], colours[scenes.colour[i]],
                colours[scenes.extra[i, 0]], colours[scenes.extra[i, 1]],
            ))
        ]
        for row in range(resolution):
            for column in range(resolution):
                x, y = ((2 * at + 1) / resolution - 1 for at in (column, row))
                u = ((x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)) / (half * aspect)
                v = ((y - cy) * math.cos(turn) - (x - cx) * math.sin(turn)) / half
                far = math.hypot(x - bx, y - by)
                away = abs(x * math.cos(angle) + y * math.sin(angle) - offset)
                disc = min(max((radius - far) * resolution / 2 + 0.5, 0), 1) if radius else 0
                strip = min(max((width - away) * resolution / 2 + 0.5, 0), 1) if width else 0
                thing = naive_cover(mask, u, v) * naive_texture(int(scenes.texture[i]), u, v)
                for channel in range(3):
                    value = paints[0][channel]
                    for layer, slot in ((disc, 3), (thing, 1), (strip, 2)):
                        value = layer * paints[slot][channel] + (1 - layer) * value
                    value += light[0, i] * x + light[1, i] * y
                    value += noise * float(grain[i, channel, row, column])
                    out[i, channel, row, column] = min(max(round(value * 255), 0), 255)
    return out


class Still:
    """A generator without chance: true colours, no slant of light, no noise."""

    def normal(self, mean, sd, shape):
        return np.full(shape, mean)

    def uniform(self, low, high, shape):
        return np.full(shape, (low + high) / 2)

    def standard_normal(self, shape, dtype):
        return np.zeros(shape, dtype)


def scene(label="box", colour="red", ground="white", texture=0, pose=(0, 0, 0.8, 0, 1),
          bar=(0, 0, 0), blob=(0, 0, 0), extra=("blue", "green")):
    """One scene, told by names."""
    hues = list(COLOURS)

    def row(value, dtype):
        return np.array([value], dtype=dtype)

    return Scenes(
        labels=row(CLASSES.index(label), np.int64), colour=row(hues.index(colour), np.int64),
        ground=row(list(GROUNDS).index(ground), np.int64), texture=row(texture, np.int64),
        pose=row(pose, np.float32), bar=row(bar, np.float32), blob=row(blob, np.float32),
        extra=row([hues.index(name) for name in extra], np.int64),
    )


def painted(resolution=32, **about):
    return draw(scene(**about), resolution, 0.0, Still())[0]


def has(image, name):
    """Which pixels of an image [3, ...] have a named colour, to one grey level."""
    colour = np.array({**COLOURS, **GROUNDS}[name]).reshape(3, *[1] * (image.ndim - 1))
    return (np.abs(image - colour * 255) <= 1).all(0)


def test_every_drawing_agrees_with_geometry_at_random_points():
    rng = np.random.default_rng(0)
    masks = atlas(192)
    for k, name in enumerate(CLASSES):
        for row, column in rng.integers(192, size=(250, 2)).tolist():
            expected = naive_mask(name, (2 * column + 1) / 192 - 1, (2 * row + 1) / 192 - 1)
            assert masks[k, row, column] == expected, (name, row, column)


@pytest.mark.parametrize("side", [32, 48, 64, 96])
def test_a_coarse_mask_is_the_mean_of_the_fine_one(side):
    fine, coarse, f = atlas(192), atlas(side), 192 // side
    assert coarse.shape == (32, side, side)
    for k, row, column in np.random.default_rng(1).integers((32, side, side), size=(300, 3)):
        block = [fine[k, row * f + i, column * f + j] for i in range(f) for j in range(f)]
        assert coarse[k, row, column] == pytest.approx(sum(block) / f**2, abs=1e-6)


def test_the_drawings_are_distinct_and_neither_tiny_nor_full():
    masks = atlas(192) > 0.5
    share = masks.mean((1, 2))
    assert 0.15 < share.min() < share.max() < 0.70
    for one, other in combinations(range(32), 2):
        overlap = (masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum()
        assert overlap < 0.85, (CLASSES[one], CLASSES[other])
    for name in CLASSES:
        for along in np.linspace(-1.02, 1.02, 60).tolist():
            for x, y in ((along, 1.02), (along, -1.02), (1.02, along), (-1.02, along)):
                assert not naive_mask(name, x, y), f"{name} is cut off by its frame"


@pytest.mark.parametrize(
    ("resolution", "noise", "n"), [(32, 0, 8), (32, 0.3, 4), (16, 0.05, 8), (50, 0, 3), (200, 0, 2)]
)
def test_images_agree_with_a_loop_over_pixels(resolution, noise, n):
    scenes = Shapes(train=n, budget=2)._scenes("train", 4)[0]
    got = draw(scenes, resolution, noise, np.random.default_rng(7))
    expected = naive_draw(scenes, resolution, noise, np.random.default_rng(7))
    assert got.dtype == np.uint8
    assert got.shape == (n, 3, resolution, resolution)
    assert np.abs(got.astype(int) - expected).max() <= 1
    # A wrong reference would have to be wrong alike: the scenes are not nearly empty.
    assert got.std() > 30


def test_every_texture_and_class_agrees_with_a_loop_over_pixels():
    for k, label in enumerate(CLASSES):
        one = scene(label, texture=k % 4, pose=(0.1, -0.05, 0.7, 0.3, 0.9), blob=(0.7, 0.7, 0.2),
                    bar=(1, 0.3, 0.08))
        got = draw(one, 16, 0.0, np.random.default_rng(k))
        expected = naive_draw(one, 16, 0.0, np.random.default_rng(k))
        assert np.abs(got.astype(int) - expected).max() <= 1, label


def test_the_bar_lies_over_the_object_and_the_object_over_the_disc():
    image = painted(bar=(0, 0, 0.2), blob=(0.6, 0, 0.5), pose=(0, 0, 0.8, 0, 1))
    # From the left at mid height: ground, object, bar, object over the disc, disc alone.
    for column, name in ((1, "white"), (8, "red"), (16, "blue"), (24, "red"), (31, "green")):
        assert has(image[:, 16, column], name), (column, name)
    # The bar reaches the edges; a half width of 0 means none, and so does a radius of 0.
    assert has(image[:, [0, -1], [16, 15]], "blue").all()
    plain = painted(bar=(0, 0, 0), blob=(0.9, 0, 0))
    assert has(plain[:, 16, 16], "red")
    assert has(plain[:, 16, 31], "white")
    assert (has(plain, "red") | has(plain, "white")).mean() > 0.8
    assert not (has(plain, "blue") | has(plain, "green")).any()


@pytest.mark.parametrize(("angle", "across"), [(0, "x"), (math.pi / 2, "y")])
def test_a_bar_has_its_place_angle_and_width(angle, across):
    image = painted(64, bar=(angle, 0.5, 0.125), pose=(-0.5, -0.5, 0.2, 0, 1))
    blue = has(image, "blue")
    along = blue.all(0 if across == "x" else 1)
    assert np.flatnonzero(along).tolist() == list(range(44, 52))
    assert blue.sum() == 8 * 64


def test_a_disc_has_its_place_and_size():
    image = painted(64, blob=(0.5, -0.5, 0.25), pose=(-0.6, 0.6, 0.2, 0, 1))
    green = has(image, "green")
    rows, columns = np.nonzero(green)
    assert (rows.mean(), columns.mean()) == (pytest.approx(15.5), pytest.approx(47.5))
    touched = (~has(image[:, :32, 32:], "white")).sum()
    assert green.sum() < math.pi * 8**2 < touched


def test_pose_moves_turns_and_stretches():
    def extent(**about):
        rows, columns = np.nonzero(has(painted(192, **about), "red"))
        return (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1)

    # The box spans 0.8 of its frame: 0.8 * 0.5 * 96 = 38.4 px either way.
    assert extent(pose=(0, 0, 0.5, 0, 1)) == pytest.approx((57.6, 134.4) * 2, abs=1.5)
    moved = extent(pose=(0.25, -0.25, 0.5, 0, 1))
    assert moved == pytest.approx((81.6, 158.4, 33.6, 110.4), abs=1.5)
    wide = extent(pose=(0, 0, 0.5, 0, 1.1))
    assert wide == pytest.approx((53.8, 138.2, 57.6, 134.4), abs=1.5)
    diagonal = 38.4 * 2**0.5
    turned = extent(pose=(0, 0, 0.5, math.pi / 4, 1))
    assert turned == pytest.approx((96 - diagonal, 96 + diagonal) * 2, abs=2.5)
    # A positive angle turns clockwise, as y points down: the foot of a flag's pole goes left.
    for turn, leans in ((0.4, -1), (-0.4, 1)):
        red = has(painted(192, label="flag", pose=(0, 0, 0.8, turn, 1)), "red")
        foot = np.nonzero(red[140])[0].mean() - np.nonzero(red[110])[0].mean()
        assert leans * foot == pytest.approx(30 * math.tan(0.4), abs=1.5)


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_pixel_noise_is_gaussian_with_the_declared_deviation(noise):
    scenes = Shapes(train=60, budget=2)._scenes("train", 0)[0]
    clean, noisy = (
        draw(scenes, 32, sd, np.random.default_rng(3)).astype(float) for sd in (0.0, noise)
    )
    middle = (clean > 110) & (clean < 145)
    grain = (noisy - clean)[middle]
    assert grain.std() == pytest.approx(noise * 255, rel=0.03)
    assert abs(grain.mean()) < 4 * noise * 255 / len(grain) ** 0.5
    # Rounding to whole levels would show: spread each over its level.
    smooth = grain + np.random.default_rng(0).uniform(-0.5, 0.5, len(grain))
    assert kstest(smooth, "norm", (0, noise * 255)).statistic < 0.02


@pytest.mark.parametrize("resolution", [8, 16, 32, 48, 64, 100, 192, 224])
def test_resolutions_from_8_to_224_work(resolution):
    dataset = Shapes(train=6, budget=2, validation=1, test=5)
    for split, n in (("train", 6), ("test", 5)):
        (rows,) = dataset.rows(split, resolution, 0)
        assert rows.images.shape == (n, 3, resolution, resolution)
        assert rows.images.dtype == np.uint8
        assert (rows.images.std((2, 3)).max(1) > 10).all()


def test_extreme_noise_is_clipped_and_does_not_wrap_around():
    dataset = Shapes(train=20, budget=2, noise=1)
    (rows,) = dataset.rows("train", 32, 0)
    ends = (rows.images == 0).mean(), (rows.images == 255).mean()
    assert min(ends) > 0.2
    inner = np.bincount(rows.images.ravel(), minlength=256)[1:-1]
    assert inner.max() < 2.5 * inner.min()
