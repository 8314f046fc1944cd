"""The batched policy against torchvision's, which takes one image at a time.

On Pillow's images, as the paper has it, torchvision's operations are Pillow's: other code.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chi2_contingency

from bdbench.augment import image_views
from bdbench.augment.autoaugment import POLICY, SIGNED, autoaugment, draw, operate
from bdbench.schema import Augment
from bdbench.vision import declare_operators

declare_operators()

from torchvision.transforms import autoaugment as torchvision  # noqa: E402

NAMES = {
    "AutoContrast": "autocontrast", "Color": "saturation", "Contrast": "contrast",
    "Equalize": "equalize", "Invert": "invert", "Posterize": "posterize", "Rotate": "rotate",
    "Sharpness": "sharpness", "ShearX": "shear", "Solarize": "solarize",
}
"""Our name of each operation of the policy."""
CASES = sorted({
    (name, bin_, sign) for pair in torchvision.AutoAugment().policies for name, _, bin_ in pair
    for sign in ((1, -1) if NAMES[name] in SIGNED else (1,))
}, key=str)
"""Each operation of the policy with its magnitude, of ten, and its sign."""
ROUNDED = {"autocontrast", "saturation", "contrast", "sharpness"}
"""Operations on colours that are no whole numbers: they may be off by one step of 255."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=8, height=32, width=32):
    """Smooth images of many contrasts, with noise: uint8 [n, 3, height, width]."""
    rng = np.random.default_rng(n)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 4, 4)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    contrast = torch.from_numpy(rng.uniform(0.1, 1, (n, 1, 1, 1)))
    noise = torch.from_numpy(rng.normal(0, 8, smooth.shape))
    return (contrast * smooth + noise).clamp(0, 255).to(torch.uint8)


def to_pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pillow(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def theirs(image, name, bin_, sign):
    """An operation of torchvision on one image, a tensor or Pillow's."""
    values, _ = torchvision.AutoAugment()._augmentation_space(10, (32, 32))[name]
    magnitude = 0.0 if bin_ is None else sign * float(values[bin_])
    nearest = torchvision.InterpolationMode.NEAREST
    return torchvision._apply_op(image, name, magnitude, nearest, None)


def off(a, b):
    return (a.to(torch.int16) - b.to(torch.int16)).abs()


def test_the_policy_is_torchvisions():
    reference = torchvision.AutoAugment()
    assert tuple(
        tuple((NAMES[name], p, bin_ or 0) for name, p, bin_ in pair) for pair in reference.policies
    ) == POLICY
    space = reference._augmentation_space(10, (32, 32))
    assert {NAMES[name] for name in NAMES if space[name][1]} == SIGNED


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
@pytest.mark.parametrize(("name", "bin_", "sign"), CASES)
def test_each_operation_is_torchvisions(name, bin_, sign, height, width):
    ours = NAMES[name]
    images = photos(8, height, width)
    got = operate(images, ours, sign * (bin_ or 0) / 9)
    tensors = torch.stack([theirs(image, name, bin_, sign) for image in images])
    pillow = torch.stack([
        from_pillow(theirs(to_pillow(image), name, bin_, sign)) for image in images
    ])
    assert off(got, tensors).max() <= (ours in ROUNDED)
    assert off(got, pillow).max() <= (ours in ROUNDED)


def test_a_batch_is_what_torchvision_makes_of_each_image(monkeypatch):
    """With the same draws; contrast triples a step of rounding, and solarizing may turn on it."""
    n = 500
    images, drawn = photos(n), generator(3)
    chosen = torch.randint(len(POLICY), (n,), generator=drawn)
    chances, signs = torch.rand(2, n, generator=drawn), torch.randint(2, (2, n), generator=drawn)
    got = autoaugment(images / 255, generator(3)).mul(255).round().to(torch.uint8)
    transform, changed = torchvision.AutoAugment(), 0
    for i, image in enumerate(images):
        draws = int(chosen[i]), chances[:, i], signs[:, i]
        monkeypatch.setattr(transform, "get_params", lambda _, draws=draws: draws)
        expected = from_pillow(transform(to_pillow(image)))
        assert (off(got[i], expected) > 3).float().mean() < 0.01
        changed += not torch.equal(expected, image)
    assert changed > n / 2


def test_operations_are_as_frequent_as_torchvisions(monkeypatch):
    """Sub-policies, operations, magnitudes and signs at once: which sequences images go through."""
    n = 10_000
    ours, seen = [[] for _ in range(n)], []
    space = {NAMES[name]: torch.atleast_1d(values) for name, (values, _)
             in torchvision.AutoAugment()._augmentation_space(10, (8, 8)).items() if name in NAMES}
    for name, level, rows in draw(n, generator()):
        magnitude = math.copysign(1, level) * float(space[name][round(9 * abs(level))])
        for row in rows:
            ours[row].append((name, magnitude))

    def record(image, name, magnitude, interpolation, fill):
        seen[-1].append((NAMES[name], magnitude))
        return image

    monkeypatch.setattr(torchvision, "_apply_op", record)
    transform, image = torchvision.AutoAugment(), torch.zeros(3, 8, 8, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for _ in range(n):
            seen.append([])
            transform(image)
    counts = [Counter(map(tuple, sequences)) for sequences in (ours, seen)]
    outcomes = counts[0] | counts[1]
    common = [outcome for outcome in outcomes if counts[0][outcome] + counts[1][outcome] >= 10]
    assert len(common) > 50
    assert sum(counts[0][outcome] for outcome in common) > 0.98 * n
    table = [[count[outcome] for outcome in common] for count in counts]
    assert chi2_contingency(table).pvalue > 0.001


def test_views_depend_on_the_generator_alone():
    images, augment = photos(64) / 255, Augment(policy="autoaugment")
    before, state = images.clone(), torch.random.get_rng_state()
    one, two, other = (image_views(images, augment, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(images, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.shape == images.shape
    assert one.dtype == torch.float32
    assert 0 <= one.min() <= one.max() <= 1
    assert torch.equal(one, autoaugment(images, generator(1)))
