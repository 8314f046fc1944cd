"""One image file to pixels, whatever it is, or a reason why not."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from bdbench.sources.sample import Unusable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is tried; other readers of Pillow start programs (EPS) or read further files."""
MOST_PIXELS = 100_000_000
LONGEST_SHAPE = 50
"""Largest ratio of the sides."""
JPEG_QUALITY = 95


def decode(data: bytes, side: int) -> NDArray[np.uint8]:
    """uint8 [3, side, side]: the short side resized to `side` (bicubic), then the centre.

    Greyscale and palettes become RGB, CMYK is converted, 16 bits are cut to 8, of an animation the
    first frame is taken, transparency is dropped. Unusable for what is no whole image.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise Unusable("empty image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise Unusable("image too large")
            if max(width, height) > LONGEST_SHAPE * min(width, height):
                raise Unusable("image too long")
            # JPEG can be decoded at a fraction of its size; twice the side keeps the resize honest.
            image.draft("RGB", (2 * side, 2 * side))
            image = _rgb(image)
    except Image.DecompressionBombError:
        raise Unusable("image too large") from None
    except UnidentifiedImageError:
        raise Unusable("not an image") from None
    except Unusable:
        raise
    except Exception:  # every decoder has its own way to say that the data are cut off or broken
        raise Unusable("image broken or cut off") from None
    width, height = image.size
    if (width, height) != (side, side):
        scale = side / min(width, height)
        width, height = max(side, round(width * scale)), max(side, round(height * scale))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - side) / 2), round((height - side) / 2)
        image = image.crop((left, top, left + side, top + side))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _rgb(image: Image) -> Image:
    import numpy as np
    from PIL import Image as Pillow

    image.load()
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255 instead of scaling them.
        deep = np.asarray(image).astype(np.int64)
        return Pillow.fromarray((deep >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG file of uint8 [3, h, w]."""
    from PIL import Image

    out = io.BytesIO()
    # Colours at their full resolution: large images were shrunk, and have it.
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    image.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """uint8 [3, h, w] of a file that `encode_jpeg` wrote."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data), formats=["JPEG"])).transpose(2, 0, 1)
