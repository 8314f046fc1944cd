"""Canonical JSON, sha256 of objects and files, and seeds derived from names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

KEY_DIGITS = 16
# One for all: a plan of ten thousand cells hashes a hundred thousand specs.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces; raises ValueError on NaN and infinities."""
    return _ENCODER.encode(value)


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogateescape")).hexdigest()


def key_of(value: Any) -> str:
    """The first 16 hex digits of `digest(value)`: the address of an artifact."""
    return digest(value)[:KEY_DIGITS]


def file_digest(path: Path) -> str:
    """sha256 (64 hex digits) of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on all `parts`: one root seed, many unrelated streams."""
    return int(digest(list(parts))[:16], 16) >> 1
