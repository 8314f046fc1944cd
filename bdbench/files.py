"""Files that are whole or not there, after a power cut too."""

from __future__ import annotations

import os
from pathlib import Path


def settle(aside: Path, path: Path) -> None:
    """Give a finished file its name once its bytes are on the disk.

    Renamed without that, a file may be found empty under its name after a power cut.
    """
    force(aside)
    aside.replace(path)


def force(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
