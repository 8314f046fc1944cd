"""Where bdbench runs: the cores it may use, the versions of packages, the commit of a checkout."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from functools import cache
from pathlib import Path

PACKAGES = ("bdbench", "torch", "torchvision", "open_clip_torch", "numpy", "pyarrow")
"""What the figures depend on."""
DECODERS = 16
"""Cores for a dataset of files, where there are so many: each decodes a part of it."""
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """CPU cores that this process may use: its affinity, and the quota of its container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(count or 1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or `max`
        return count or 1


@cache
def git_state() -> str | None:
    """The commit of the checkout that bdbench runs from, `+dirty` if changed; None elsewhere."""
    package = Path(__file__).resolve().parent
    if not (package.parent / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package.parent), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def versions() -> dict[str, str]:
    """Versions of what the figures depend on, without importing any of it."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
