"""What a source yields: samples, and faults in place of those that cannot be used."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

LONGEST_CAPTION = 10_000
"""Characters; a longer one is no caption."""
LARGEST_FILE = 200 * 2**20
"""Bytes of one image file."""


@dataclass(frozen=True)
class Sample:
    """One image with what is said of it."""

    key: str
    """Where it is, for messages."""
    image: bytes
    """The file as it is."""
    caption: str | None = None
    label: int = -1
    """Class index; -1 where unknown."""


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used."""

    kind: str
    """One of a few, so that they can be counted."""
    where: str


class Part(Protocol):
    """A piece of a source that one process reads from end to end; can be pickled."""

    def count(self) -> int:
        """Samples, faulty ones included; reads no image."""
        ...

    def samples(self) -> Iterator[Sample | Fault]:
        """In a fixed order."""
        ...


class Unusable(Exception):
    """Raised for what becomes a `Fault` of this kind."""


def caption_of(raw: bytes | str | None) -> str:
    """The first line that is not empty; Unusable for what is no caption.

    Further lines are further captions, as in the shards of CLIP_benchmark. Tabs, other spaces and
    characters that are not seen (joiners, soft hyphens, marks of direction) are spaces.
    """
    if raw is None:
        raise Unusable("no caption")
    # A character of UTF-8 has at most four bytes.
    if len(raw) > 4 * LONGEST_CAPTION:
        raise Unusable("caption too long")
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError:
        raise Unusable("caption is not UTF-8") from None
    lines = (line.strip() for line in text.splitlines())
    caption = next(filter(None, lines), "")
    if not caption.isprintable():
        seen = (" " if unicodedata.category(one) == "Cf" else one for one in caption)
        caption = " ".join("".join(seen).split())
    if not caption:
        raise Unusable("empty caption")
    if len(caption) > LONGEST_CAPTION:
        raise Unusable("caption too long")
    if any(unicodedata.category(one) == "Cc" for one in caption):
        raise Unusable("caption with control characters")
    return caption


def label_of(raw: bytes | str | int | float) -> int:
    """A class index from its text; Unusable for anything else."""
    try:
        text = raw.decode("ascii") if isinstance(raw, bytes) else str(raw)
        label = int(text.strip()[:20])
    except (UnicodeDecodeError, ValueError):
        raise Unusable("label is not a number") from None
    if not 0 <= label < 2**31:
        raise Unusable("label out of range")
    return label
