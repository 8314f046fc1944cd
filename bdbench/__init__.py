"""bdbench: does a defense remove a backdoor from an image-text model, and at what cost?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdbench.api import register
    from bdbench.errors import BdbenchError
    from bdbench.execute import run
    from bdbench.registry import Registry
    from bdbench.schema import Card

__version__ = "0.1.0"
__all__ = ["BdbenchError", "Card", "Registry", "register", "run"]

_HOMES = {
    "BdbenchError": "bdbench.errors",
    "Card": "bdbench.schema",
    "Registry": "bdbench.registry",
    "register": "bdbench.api",
    "run": "bdbench.execute",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module `bdbench` has no attribute `{name}`")
