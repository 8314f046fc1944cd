"""A property that a component must have, and the verdict on it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from bdbench.api import Component
from bdbench.errors import BdbenchError


@dataclass(frozen=True)
class Check:
    """The verdict on one property of a component."""

    name: str
    """The property, as a statement."""
    passed: bool
    detail: str = ""
    """What is wrong with the value, why, and the fix; empty where the property holds."""


class BrokenError(Exception):
    """A property does not hold: what is wrong with the value, why that matters, and the fix."""


@dataclass(frozen=True)
class Property:
    """A statement about a component, with the test of it."""

    name: str
    test: Callable[[], object]
    """Raises where the property does not hold."""
    needs: tuple[str, ...] = ()
    """Properties without which the test means nothing."""


def verdicts(
    properties: Iterable[Property], home: str | None
) -> Generator[Check, None, frozenset[str]]:
    """Test one property after the other; returns the names of those that do not hold.

    `home`: the file of the component, whose line is named when it raises.
    """
    failed: set[str] = set()
    for one in properties:
        if not failed.isdisjoint(one.needs):
            failed.add(one.name)
            continue
        found = _verdict(one, home)
        if not found.passed:
            failed.add(one.name)
        yield found
    return frozenset(failed)


def home_of(cls: type[Component]) -> str | None:
    """The file that a class was read from, where there is one."""
    return getattr(sys.modules.get(cls.__module__), "__file__", None)


def _verdict(one: Property, home: str | None) -> Check:
    try:
        one.test()
    except (BrokenError, BdbenchError) as error:
        return Check(one.name, False, str(error))
    except (Exception, SystemExit) as error:
        return Check(
            one.name, False, f"{_line(error, home)}: it raises `{type(error).__name__}: {error}`"
        )
    return Check(one.name, True)


def _line(error: BaseException, home: str | None) -> str:
    """`file:line`, the innermost of the component's own file, else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == home] or frames
    return f"{own[-1].filename}:{own[-1].lineno}"
