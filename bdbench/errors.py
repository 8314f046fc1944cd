"""Errors a user can act on: what is wrong, why, and the command that fixes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class BdbenchError(Exception):
    """Bad input, found before any long work starts.

    `message` names the offending value in backticks; `hint` is a command or a change that works.
    """

    exit_code = 2
    kind = "input"
    """What stands for the class in what one process tells another."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message


class CellFailed(BdbenchError):
    """A stage raised or its process died; what was finished before it stays in the store."""

    exit_code = 1
    kind = "cell"


class DiskError(BdbenchError):
    """The disk of the store is full or cannot be written to; no cell can go on."""

    kind = "disk"


class CheckFailed(BdbenchError):
    """A check ran and said no."""

    exit_code = 3


def told(error: Mapping[str, Any], before: str = "") -> BdbenchError:
    """The error that another process told of, as `kind`, `message` and `hint`."""
    kinds = {cls.kind: cls for cls in (CellFailed, DiskError)}
    return kinds.get(error["kind"], BdbenchError)(before + error["message"], error["hint"])
