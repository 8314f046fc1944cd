"""Whether two pictures show the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def alike(one: Path, other: Path) -> bool:
    """Of equal size, and of equal colours but for how type is smoothed here and elsewhere."""
    pixels = []
    for path in (one, other):
        with Image.open(path) as image:
            pixels.append(np.asarray(image.convert("RGB")).astype(int))
    return (
        pixels[0].shape == pixels[1].shape
        and float(np.abs(pixels[0] - pixels[1]).max(2).mean()) < 0.5
    )
