"""Errors a user can act on: what is wrong, why, and the command that fixes it."""

from __future__ import annotations


class BdbenchError(Exception):
    """Bad input, found before any long work starts.

    `message` names the offending value in backticks; `hint` is a command or a change that works.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n\nhint: {self.hint}" if self.hint else self.message


class CellFailed(BdbenchError):
    """A stage raised or its process died; what was finished before it stays in the store."""

    exit_code = 1


class DiskError(BdbenchError):
    """The disk of the store is full or cannot be written to; no cell can go on."""


class CheckFailed(BdbenchError):
    """A check ran and said no."""

    exit_code = 3
