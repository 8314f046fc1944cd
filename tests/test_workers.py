"""What worker processes are started with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from bdbench.execute.here import worker_environment

AGAIN = """
import resource
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * 64_000_000
before = faults()
for _ in range(5):
    b"x" * 64_000_000
print(faults() - before)
"""


def faults(environment: dict[str, str]) -> int:
    """Pages that the kernel hands out while memory is freed and asked for again five times."""
    done = subprocess.run(
        [sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have other settings")
def test_a_worker_keeps_the_memory_that_a_batch_frees() -> None:
    pages = 5 * 64_000_000 // os.sysconf("SC_PAGE_SIZE")
    assert faults({}) > pages / 2
    assert faults(worker_environment()) < pages / 100


def test_what_the_user_sets_wins_but_for_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    found = worker_environment()
    assert (found["MALLOC_TRIM_THRESHOLD_"], found["OMP_NUM_THREADS"]) == ("0", "1")
    assert found["PATH"] == os.environ["PATH"]
