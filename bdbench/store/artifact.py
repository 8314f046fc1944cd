"""What a stage left: files in a folder, and a manifest that says how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdbench.hashing import key_of
from bdbench.schema import Strict


def address(
    stage: str, version: int, spec: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """The key of what a stage makes of a spec and of inputs, which are keys by role."""
    return key_of({"stage": stage, "version": version, "spec": spec, "inputs": inputs})


class Manifest(Strict):
    """What an artifact is and what its bytes hash to."""

    stage: str
    key: str
    label: str
    spec: dict[str, Any]
    inputs: dict[str, str]
    """Keys of the artifacts it was made from, by role."""
    files: dict[str, str]
    """sha256 by file name."""
    seconds: float
    """Work that went into it, over all restarts."""
    samples: int
    """Images or pairs that went through the model."""
    versions: dict[str, str] = {}
    """Of the packages that it was computed with."""
    git: str | None = None
    """The commit of the bdbench checkout, `+dirty` if changed; None for an installed package."""


@dataclass(frozen=True)
class Artifact:
    """A published artifact."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name

    @property
    def size(self) -> int:
        """Bytes on disk, of those of its files that are there."""
        found = 0
        for name in self.manifest.files:
            with suppress(FileNotFoundError):
                found += (self.path / name).stat().st_size
        return found
