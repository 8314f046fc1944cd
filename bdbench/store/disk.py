"""Where the store lies, and what its disk can do wrong."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from bdbench.errors import DiskError

WRITABLE = "set BDBENCH_HOME to a writable folder"


def default_root() -> Path:
    """`$BDBENCH_HOME`, or the platform's cache folder."""
    home = os.environ.get("BDBENCH_HOME")
    return Path(home).expanduser() if home else user_cache_path("bdbench")


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a clear error; finished artifacts are untouched."""
    try:
        yield
    except Exception as error:
        number = _errno(error, root)
        reasons = {
            errno.ENOSPC: "is full", errno.EDQUOT: "is over its quota",
            errno.EROFS: "is read-only", errno.EACCES: "is not writable",
            errno.EPERM: "is not writable", errno.ENOTDIR: "is not a folder",
            errno.EEXIST: "is not a folder",
        }
        if number not in reasons:
            raise
        hint = (
            "free space there or point BDBENCH_HOME at another disk; `bdbench store gc` deletes"
            " what no card needs, unfinished work too"
            if number in (errno.ENOSPC, errno.EDQUOT)
            else WRITABLE
        )
        raise DiskError(f"the store `{root}` {reasons[number]}", hint) from error


def _errno(error: Exception, root: Path) -> int | None:
    """The system's number for a failure of this disk; None for anything else."""
    if not isinstance(error, OSError):
        # Libraries written in Rust, safetensors among them, have it in the text alone.
        found = re.search(r"\(os error (\d+)\)", str(error))
        return int(found[1]) if found else None
    if isinstance(error.filename, str):
        place = Path(error.filename).absolute()
        if not (place.is_relative_to(root) or root.is_relative_to(place)):
            return None  # a file of the user's or of a plugin's, elsewhere
    return error.errno
