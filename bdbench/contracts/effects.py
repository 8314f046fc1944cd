"""What code does besides returning a value: global random state it draws on, files it leaves."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bdbench.contracts.property import BrokenError

UNTOUCHED = "global random state is untouched"

_GENERATORS: dict[str, tuple[Callable[[], Any], Callable[[Any], None], Callable[[], Any]]] = {
    "torch": (torch.get_rng_state, torch.set_rng_state, lambda: torch.rand(1)),
    "numpy.random": (np.random.get_state, np.random.set_state, lambda: np.random.random()),
    "random": (random.getstate, random.setstate, random.random),
}
"""By module: how to read its global generator, to restore it, and to draw from it."""


@contextmanager
def drawn_on() -> Iterator[list[str]]:
    """Collects the names of the global generators that the block changes, and restores them."""
    names: list[str] = []
    before = {name: get() for name, (get, _, _) in _GENERATORS.items()}
    for _, _, draw in _GENERATORS.values():
        # Code that always seeds with the same number would else change nothing the second time.
        draw()
    start = {name: str(_plain(get())) for name, (get, _, _) in _GENERATORS.items()}
    try:
        yield names
        names += [n for n, (get, _, _) in _GENERATORS.items() if str(_plain(get())) != start[n]]
    finally:
        for name, (_, put, _) in _GENERATORS.items():
            put(before[name])


def untouched(test: Callable[[], object], what: str) -> None:
    """BrokenError when `test` draws from a global generator or seeds it."""
    with drawn_on() as names:
        test()
    refuse_global(names, what)


def refuse_global(names: list[str], what: str) -> None:
    """BrokenError when `names`, of `drawn_on`, holds any."""
    if names:
        raise BrokenError(
            f"`{what}` changes the global generator of `{'`, `'.join(names)}`: its outcome would"
            " depend on what ran before it; draw from the generator or seed that it is handed"
        )


def _plain(state: Any) -> Any:
    """A generator's state as something whose text is all of it."""
    if isinstance(state, torch.Tensor | np.ndarray):
        return state.tolist()
    return [_plain(part) for part in state] if isinstance(state, tuple) else state


_watching: list[set[str]] = []


@cache
def _listen() -> None:
    """Hear of every file that Python opens; a hook cannot be taken back, but falls silent."""

    def heard(event: str, args: tuple[Any, ...]) -> None:
        if _watching and event == "open" and isinstance(args[0], str):
            mode, flags = args[1] or "", args[2] or 0
            if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR):
                for paths in _watching:
                    paths.add(str(Path(args[0]).absolute()))

    sys.addaudithook(heard)


@contextmanager
def written() -> Iterator[list[Path]]:
    """Collects the files that the block writes and leaves behind, byte code aside.

    Of files that are opened by native code only those that are new in the current folder.
    """
    _listen()
    opened: set[str] = set()
    left: list[Path] = []
    before = set(Path.cwd().iterdir())
    _watching.append(opened)
    try:
        yield left
    finally:
        _watching.remove(opened)
    found = {Path(path) for path in opened} | (set(Path.cwd().iterdir()) - before)
    left += sorted(path for path in found if path.is_file() and path.suffix != ".pyc")
