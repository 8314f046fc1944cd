"""Shell scripts in a mount namespace of their own, where a test may mount what it likes."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PRELUDE = """
bdbench() { "$PYTHON" -c "from bdbench.cli.main import main; main()" "$@"; }
"""


@functools.cache
def _prefix() -> tuple[str, ...] | None:
    """The command that makes a namespace in which mounting works; None where there is none."""
    if shutil.which("unshare") is None:
        return None
    for words in (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount")):
        tried = subprocess.run(
            [*words, "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"], capture_output=True,
            check=False,
        )
        if tried.returncode == 0:
            return words
    return None


def in_namespace(script: str, *, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount and may call `bdbench`; skips where that is impossible."""
    prefix = _prefix()
    if prefix is None:
        pytest.skip("this system lets a test mount nothing: no `unshare --mount`")
    environment = {
        **os.environ, **variables, "BDBENCH_HOME": str(home), "PYTHON": sys.executable,
        "NO_COLOR": "1", "COLUMNS": "120",
    }
    done = subprocess.run(
        [*prefix, "sh", "-c", _PRELUDE + script], capture_output=True, text=True, check=False,
        env=environment, timeout=250,
    )
    if done.returncode == 99:
        pytest.skip(f"this system cannot mount what the test needs: {done.stderr.strip()}")
    return done
