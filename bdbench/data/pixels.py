"""Where pixels lie: as they are in a memory map, or as JPEG files that are decoded when read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bdbench.sources.decode import decode_jpeg
from bdbench.vision import declare_operators

_DECODED = 1024
"""Images in memory at a time while all are decoded."""


class Pixels(Protocol):
    """uint8 images, indexed by position; a tensor is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, 3, side, side]."""
        ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """uint8 [b, 3, side, side] of the positions int64 [b]."""
        ...


class JpegPixels:
    """JPEG files one after the other in one file, decoded by as many threads as torch uses."""

    def __init__(self, path: Path, ends: Tensor, first: int, side: int) -> None:
        """`ends`: int64 [n], the byte after each image; `first`: the byte of the first image."""
        self._path, self._ends, self._first = path, ends, first
        self._bytes = np.memmap(path, np.uint8, mode="r")
        self.shape = (len(ends), 3, side, side)

    def __getitem__(self, index: Tensor) -> Tensor:
        pool = _pool(torch.get_num_threads())
        images = list(pool.map(self._decode, *self._span(index)))
        return torch.from_numpy(np.stack(images)) if images else torch.empty(
            (0, *self.shape[1:]), dtype=torch.uint8
        )

    def _decode(self, start: int, end: int) -> NDArray[np.uint8]:
        return decode_jpeg(self._bytes[start:end].tobytes())

    def files(self, index: Tensor) -> list[Tensor]:
        """The JPEG files themselves, each uint8 [bytes]."""
        spans = zip(*self._span(index), strict=True)
        return [torch.from_numpy(self._bytes[start:end].copy()) for start, end in spans]

    def _span(self, index: Tensor) -> tuple[list[int], list[int]]:
        """First byte of each file, and the byte after it."""
        starts = torch.where(index > 0, self._ends[(index - 1).clamp(min=0)], self._first)
        return starts.tolist(), self._ends[index].tolist()

    def part(self, start: int, stop: int) -> JpegPixels:
        """The images from `start` to before `stop`."""
        first = self._first if start == 0 else int(self._ends[start - 1])
        return JpegPixels(self._path, self._ends[start:stop], first, self.shape[-1])


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Pillow decodes without holding the interpreter's lock."""
    return ThreadPoolExecutor(threads)


def decoded(pixels: Pixels, path: Path) -> Pixels:
    """The same images, JPEG files among them decoded now into a memory map of the file `path`."""
    if not isinstance(pixels, JpegPixels):
        return pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = np.memmap(path, np.uint8, mode="w+", shape=pixels.shape)
    for part in torch.arange(len(raw)).split(_DECODED):  # type: ignore[no-untyped-call]
        raw[part.numpy()] = pixels[part].numpy()
    return torch.from_numpy(raw)


def read(pixels: Pixels, index: Tensor, device: torch.device) -> Tensor:
    """uint8 [b, 3, side, side] of the positions int64 [b], on `device`.

    A GPU is sent bytes, not floats, and decodes JPEG files itself.
    """
    if device.type == "cuda" and isinstance(pixels, JpegPixels) and len(index):
        declare_operators()
        from torchvision.io import decode_jpeg as decode_on_gpu

        return torch.stack(decode_on_gpu(pixels.files(index), device=device))
    return pixels[index].to(device, non_blocking=True)
