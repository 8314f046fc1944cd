"""Images and files to read, made on the spot."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def image_file(seed: int = 0, size=(40, 30), mode: str = "RGB", form: str = "PNG") -> bytes:
    """A file of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
    image = Image.fromarray(pixels[..., :3]).convert(mode)
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def write_tar(path: Path, members, mode: str = "w") -> Path:
    """`members`: (name, bytes) or TarInfo."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


@pytest.fixture
def shard(tmp_path):
    """A shard of three whole pairs."""
    return write_tar(tmp_path / "a.tar", [
        member for i in range(3) for member in (
            (f"{i}.png", image_file(i)), (f"{i}.txt", f"caption {i}\nanother".encode()),
        )
    ])
