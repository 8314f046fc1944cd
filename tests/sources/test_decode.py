from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from bdbench.clip import _open_clip
from bdbench.sources.decode import decode, decode_jpeg, encode_jpeg
from bdbench.sources.sample import Unusable
from tests.sources.conftest import image_file


def saved(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (33, 33), (24, 50)])
def test_is_torchvisions_resize_and_centre_crop(size):
    _open_clip()  # the CPU build of torch lacks what torchvision asks for at its import
    from torchvision.transforms import v2

    data = image_file(1, size)
    got = decode(data, 24)
    transform = v2.Compose([
        v2.Resize(24, v2.InterpolationMode.BICUBIC), v2.CenterCrop(24),
    ])
    expected = np.asarray(transform(Image.open(io.BytesIO(data)))).transpose(2, 0, 1)
    assert got.dtype == np.uint8
    assert got.shape == (3, 24, 24)
    np.testing.assert_array_equal(got, expected)


def test_large_jpeg_is_close_to_the_whole_decode():
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))
    data = saved(smooth.resize((800, 600), Image.Resampling.BICUBIC), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data)).resize((32, 24), Image.Resampling.BICUBIC)
    expected = np.asarray(whole.crop((4, 0, 28, 24))).transpose(2, 0, 1).astype(int)
    assert np.abs(decode(data, 24).astype(int) - expected).mean() < 1


def test_every_kind_of_image_becomes_rgb():
    red = Image.new("RGB", (20, 20), (200, 30, 10))
    deep = Image.fromarray(np.full((20, 20), 200 << 8, np.uint16))
    first, second = Image.new("RGB", (20, 20), (200, 30, 10)), Image.new("RGB", (20, 20), (0, 0, 9))
    moving = io.BytesIO()
    first.save(moving, "GIF", save_all=True, append_images=[second])
    for data, colour in [
        (saved(red.convert("CMYK"), "JPEG", quality=100), (200, 30, 10)),
        (saved(red.convert("P"), "PNG"), None),
        (saved(red.convert("RGBA"), "PNG"), (200, 30, 10)),
        (saved(red.convert("L"), "PNG"), (79, 79, 79)),
        (saved(deep, "PNG"), (200, 200, 200)),
        (moving.getvalue(), (200, 30, 10)),
        (saved(red, "WEBP", lossless=True), (200, 30, 10)),
    ]:
        got = decode(data, 8)
        assert got.shape == (3, 8, 8)
        if colour:
            assert np.abs(got[:, 4, 4].astype(int) - colour).max() <= 6


@pytest.mark.parametrize(("data", "why"), [
    (b"", "empty image file"),
    (b"<html>404</html>", "not an image"),
    (image_file(form="JPEG", size=(400, 400))[:3000], "image broken or cut off"),
    (image_file()[:200], "image broken or cut off"),
    (image_file(size=(300, 2)), "image too long"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
])
def test_what_is_no_whole_image_is_named(data, why):
    with pytest.raises(Unusable, match=f"^{why}$"):
        decode(data, 16)


def test_an_enormous_image_is_refused_by_its_header():
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body)
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 9))
    with pytest.raises(Unusable, match=r"^image too large$"):
        decode(bomb, 16)


def test_jpeg_files_come_back_as_they_were_to_within_their_quality():
    smooth = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
        .resize((32, 32), Image.Resampling.BICUBIC)
    ).transpose(2, 0, 1)
    assert np.abs(decode_jpeg(encode_jpeg(smooth)).astype(int) - smooth).mean() < 3
    assert torch.from_numpy(decode_jpeg(encode_jpeg(smooth)).copy()).dtype == torch.uint8
