from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from bdbench.augment import image_views
from bdbench.augment.images import recolour, warp
from bdbench.schema import Augment

OFF = {"crop": 1.0, "flip": 0.0, "rotate": 0.0, "colour": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n=6, height=16, width=16):
    return torch.rand(n, 3, height, width, generator=generator(9))


def still(n, **changed):
    """Parameters of a warp that does nothing, save for `changed`."""
    names = ("zoom", "shift_x", "shift_y", "angle")
    values = {name: torch.full((n,), 1.0 if name == "zoom" else 0.0) for name in names}
    return values | {"flip": torch.zeros(n, dtype=torch.bool)} | changed


def naive_warp(image, zoom, shift_x, shift_y, flip, angle):
    """One image: for each output pixel where it comes from, in pixels, resampled by scipy."""
    channels, height, width = image.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = zoom * turn @ np.diag([1.0, -1.0 if flip else 1.0])
    moved = centre + np.array([shift_y * height / 2, shift_x * width / 2])
    offset = moved - matrix @ centre
    return np.stack([
        affine_transform(image[c].astype(np.float64), matrix, offset, order=1, mode="reflect")
        for c in range(channels)
    ])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_warp_agrees_with_scipy(height, width, seed):
    rng = np.random.default_rng(seed)
    images = noise(8, height, width)
    parameters = {
        "zoom": rng.uniform(0.5, 1, 8), "shift_x": rng.uniform(-0.3, 0.3, 8),
        "shift_y": rng.uniform(-0.3, 0.3, 8), "flip": rng.random(8) < 0.5,
        "angle": rng.uniform(-math.pi, math.pi, 8),
    }
    tensors = {
        name: torch.tensor(value, dtype=torch.bool if name == "flip" else torch.float32)
        for name, value in parameters.items()
    }
    got = warp(images, **tensors)
    for i in range(8):
        one = {name: value[i] for name, value in parameters.items()}
        expected = naive_warp(images[i].numpy(), **one)
        np.testing.assert_allclose(got[i].numpy(), expected, atol=2e-5)


def test_warp_rotates_by_a_quarter_turn():
    images = noise()
    got = warp(images, **still(6, angle=torch.full((6,), math.pi / 2)))
    turns = [torch.rot90(images, k, (2, 3)) for k in (1, -1)]
    assert min(float((got - turned).abs().max()) for turned in turns) < 1e-5


def test_views_are_the_images_when_all_is_off():
    images = noise()
    got = image_views(images, Augment(**OFF), generator())
    torch.testing.assert_close(got, images, rtol=0, atol=1e-6)


def test_flip():
    images = noise(400, 4, 4)
    got = image_views(images, Augment(**OFF | {"flip": 1.0}), generator())
    torch.testing.assert_close(got, images.flip(3), rtol=0, atol=1e-6)
    half = image_views(images, Augment(**OFF | {"flip": 0.5}), generator())
    flipped = ((half - images).abs().amax((1, 2, 3)) > 1e-3).sum()
    assert 160 < flipped < 240


def test_crops_keep_the_area_and_stay_inside():
    """On a ramp the slope of a view is the side of its crop, and its ends tell where it lies."""
    n, side = 2000, 32
    ramp = (torch.arange(side) + 0.5) / side
    for axis in (2, 3):
        shape = [1, 1, 1, 1]
        shape[axis] = side
        images = ramp.view(shape).expand(n, 3, side, side)
        got = image_views(images, Augment(**OFF | {"crop": 0.4}), generator())
        line = got[:, 0, :, 3] if axis == 2 else got[:, 0, 3]
        slope = (line[:, -2] - line[:, 1]) / (side - 3) * side
        area = slope.square()
        assert 0.4 - 1e-4 < area.min() < 0.41
        assert 0.99 < area.max() < 1 + 1e-4
        assert float(area.mean()) == pytest.approx(0.7, abs=0.02)
        middle = (line[:, 1] + line[:, -2]) / 2
        assert torch.all(middle - slope / 2 > -1e-4)
        assert torch.all(middle + slope / 2 < 1 + 1e-4)
        assert float(middle.mean()) == pytest.approx(0.5, abs=0.02)


def test_rotation_stays_within_its_bound():
    """A ramp from left to right tilts by the angle."""
    side = 32
    ramp = ((torch.arange(side) + 0.5) / side).expand(500, 3, side, side)
    got = image_views(ramp, Augment(**OFF | {"rotate": 20.0}), generator())[:, 0, 12:20, 12:20]
    across, down = (got[:, :, -1] - got[:, :, 0]).mean(1), (got[:, -1] - got[:, 0]).mean(1)
    angle = torch.rad2deg(torch.atan2(down, across))
    assert -20.01 < angle.min() < -19
    assert 19 < angle.max() < 20.01
    assert abs(float(angle.mean())) < 1.5


def luminance(image):
    return 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def test_colours_agree_with_one_step_after_the_other():
    images = noise()
    factors = np.random.default_rng(0).uniform(0.5, 1.5, (3, 6))
    got = recolour(images, *torch.tensor(factors, dtype=torch.float32))
    for image, view, (brightness, contrast, saturation) in zip(
        images.double().numpy(), got.numpy(), factors.T, strict=True
    ):
        expected = brightness * image
        expected = contrast * expected + (1 - contrast) * luminance(expected).mean()
        expected = saturation * expected + (1 - saturation) * luminance(expected)
        np.testing.assert_allclose(view, expected.clip(0, 1), atol=1e-6)


def test_colours_by_hand():
    images, one, none = noise(), torch.ones(6), torch.zeros(6)
    torch.testing.assert_close(recolour(images, one, one, one), images, rtol=0, atol=1e-6)
    half = recolour(images, one / 2, one, one)
    torch.testing.assert_close(half, images / 2, rtol=0, atol=1e-6)
    grey = recolour(images, one, one, none)
    luma = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(grey, luma.expand_as(images), rtol=0, atol=1e-6)
    flat = recolour(images, one, none, one)
    mean = luma.mean((2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(flat, mean, rtol=0, atol=1e-6)


def test_colours_stay_within_their_bound():
    images = torch.full((1000, 3, 4, 4), 0.4)
    got = image_views(images, Augment(**OFF | {"colour": 0.3}), generator())[:, 0, 0, 0] / 0.4
    assert 0.7 - 1e-5 < got.min() < 0.71
    assert 1.29 < got.max() < 1.3 + 1e-5


@pytest.mark.parametrize("value", [0.0, 1.0, None])
def test_views_keep_form_and_range(value):
    images = noise() if value is None else torch.full((6, 3, 16, 16), value)
    before = images.clone()
    augment = Augment(crop=0.1, flip=0.5, rotate=180.0, colour=1.0)
    got = image_views(images, augment, generator())
    assert got.shape == images.shape
    assert got.dtype == torch.float32
    assert 0 <= got.min() <= got.max() <= 1
    assert torch.equal(images, before)


def test_views_depend_on_the_generator_alone():
    images = noise()
    before = torch.random.get_rng_state()
    one, two, other = (image_views(images, Augment(), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    same = image_views(images[:1].expand(6, -1, -1, -1), Augment(), generator())
    assert not torch.equal(same[0], same[1])
