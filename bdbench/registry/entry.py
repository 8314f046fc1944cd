"""A registered component before it is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bdbench.api import Component
from bdbench.schema import Kind


@dataclass(frozen=True)
class Entry:
    """A registered component, not yet imported."""

    kind: Kind
    name: str
    use: str
    origin: str
    """Where it was registered: built-in, a package and its version, or a file."""
    find: Callable[[], type[Component]]
    version: int = 1
    summary: str = ""
    paper: str = ""
    threat_model: str = ""
    params: Mapping[str, Any] | None = None
    sweep: Mapping[str, Any] | None = None
    source: str | None = None
