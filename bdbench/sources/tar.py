"""WebDataset shards: `<key>.jpg` beside `<key>.txt` or `<key>.cls`; nothing is unpacked."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Self

import fsspec

from bdbench.sources.sample import (
    LARGEST_FILE,
    Fault,
    Part,
    Sample,
    Unusable,
    caption_of,
    label_of,
)

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")
_LARGEST_TEXT = 2**20
_TEXTS = ("txt", "cls")
_CUT = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""What a shard that is cut off or damaged leads to; errors of the disk or the network pass."""


class _Header(tarfile.TarInfo):
    """One whose damage is an error: tarfile takes it for the end of the file."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ("InvalidHeaderError", "TruncatedHeaderError"):
                raise tarfile.ReadError(str(error)) from error
            raise  # the end


@dataclass(frozen=True)
class TarPart:
    """One shard; `tar`, `tar.gz` and other compressions that the standard library reads."""

    url: str
    name: str
    """For messages."""

    @property
    def streamed(self) -> bool:
        """Whether all of it must be read to count its members."""
        return "://" in self.url or not self.name.endswith(".tar")

    def size(self) -> int:
        """Bytes of the file."""
        system, path = fsspec.core.url_to_fs(self.url)
        return int(system.size(path))

    def count(self) -> int:
        """Images among the members, up to where the file is cut off, if it is."""
        found = 0
        try:
            with self._members("r|*" if self.streamed else "r:") as members:
                for member in members:
                    found += member.isreg() and _split(member.name)[1] in IMAGES
        except _CUT:
            pass
        return found

    def samples(self) -> Iterator[Sample | Fault]:
        """Samples in the order of the file; members of a sample must lie side by side."""
        key, files, seen = "", dict[str, bytes | Fault](), set[str]()
        try:
            with self._members() as members:
                for member in members:
                    where = f"{self.name}: {member.name[:200]}"
                    if member.isdir():
                        continue
                    if not member.isreg():
                        yield Fault("link or device in a tar", where)
                        continue
                    path = PurePosixPath(member.name)
                    if path.is_absolute() or ".." in path.parts:
                        yield Fault("path that leaves the tar", where)
                        continue
                    stem, ending = _split(member.name)
                    if stem != key:
                        yield from self._sample(key, files, seen)
                        key, files = stem, {}
                    if ending not in (*IMAGES, *_TEXTS):
                        continue
                    limit = LARGEST_FILE if ending in IMAGES else _LARGEST_TEXT
                    file = members.extractfile(member)
                    if member.size > limit or file is None:
                        kind = "image file too large" if ending in IMAGES else "caption too long"
                        files[ending] = Fault(kind, where)
                    else:
                        files[ending] = file.read()
                stream = members.fileobj
                if stream is not None and stream.tell() == members.offset:
                    raise EOFError("the end mark is missing")
        except _CUT as error:
            # What lies before the cut is whole, except the sample at it.
            yield Fault("shard cut off or broken", f"{self.name}: {type(error).__name__}: {error}")
            return
        yield from self._sample(key, files, seen)

    def _sample(
        self, key: str, files: dict[str, bytes | Fault], seen: set[str]
    ) -> Iterator[Sample | Fault]:
        where = f"{self.name}: {key[:200]}"
        image = next((files[ending] for ending in IMAGES if ending in files), None)
        if not files:
            return
        if key in seen:
            yield Fault("duplicate key", where)
            return
        seen.add(key)
        fault = next((file for file in files.values() if isinstance(file, Fault)), None)
        if fault is not None:
            yield fault
            return
        text, label = files.get("txt"), files.get("cls")
        if not isinstance(image, bytes):
            yield Fault("no image", where)
            return
        try:
            yield Sample(
                where, image,
                caption_of(text) if isinstance(text, bytes) else None,
                label_of(label) if isinstance(label, bytes) else -1,
            )
        except Unusable as error:
            yield Fault(str(error), where)

    @contextmanager
    def _members(self, mode: Literal["r|*", "r:"] = "r|*") -> Iterator[tarfile.TarFile]:
        with (
            fsspec.open(self.url, "rb") as file,
            tarfile.open(fileobj=file, mode=mode, tarinfo=_Header) as members,
        ):
            yield members


def images_in(parts: Sequence[Part]) -> int:
    """How many images there are, about: of the shards that must be read for it, one is counted."""
    streamed = [part for part in parts if isinstance(part, TarPart) and part.streamed]
    found = sum(part.count() for part in parts if part not in streamed)
    if streamed:
        sizes = [part.size() for part in streamed]
        largest = sizes.index(max(sizes))
        found += round(streamed[largest].count() * sum(sizes) / max(1, sizes[largest]))
    return found


def _split(name: str) -> tuple[str, str]:
    """Key and ending: `a/b.c.JPG` is `a/b` and `c.jpg`, as WebDataset has it."""
    folder, _, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, ending.lower()
