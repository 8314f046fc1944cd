"""`--set` on the command line: dotted names and TOML values."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from bdbench.errors import BdbenchError

EXAMPLE = "`bdbench run --set defense.lr=1e-5`"


def parse(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`["defense.lr=1e-5"]` to `{"defense": {"lr": 1e-5}}`; a bare word is a string."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        names = [name.strip() for name in path.split(".")]
        if not equals or len(names) < 2 or not all(names):
            raise BdbenchError(f"`{setting}` is not `kind.field=value`", f"as in {EXAMPLE}")
        at = parsed
        for name in names[:-1]:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise BdbenchError(
                    f"`{setting}` sets a part of a value that is set whole",
                    "leave one of the two settings out",
                )
        at[names[-1]] = _value(setting, text.strip())
    return parsed


def _value(setting: str, text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("", *"[{\"'"):
            raise BdbenchError(
                f"the right side of `{setting}` is not a TOML value: {error}",
                f"as in {EXAMPLE} or `bdbench run --set 'defense.sweep.lr=[1e-5, 1e-4]'`",
            ) from error
        return text
    return found["value"] if set(found) == {"value"} else text
