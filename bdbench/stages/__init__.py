"""One module per stage, each with `run(spec, inputs, work, context) -> samples`.

A stage reads its spec and the artifacts it is given, and leaves files in `work`; `samples` counts
the images or pairs that went through a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bdbench.registry import Registry
from bdbench.store import Artifact

Inputs = Mapping[str, Artifact]


@dataclass(frozen=True)
class Context:
    """What every stage may use."""

    registry: Registry
    report: Callable[[Mapping[str, Any]], None]
    """Takes progress as JSON data."""
    local: Mapping[str, Any] = field(default_factory=dict)
    """Where on this machine the data lie: fields of the dataset that no key holds."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Paths of the user's files, by the address that stands for them in a spec."""
    gpus: Sequence[int] = ()
    """Those that the stage may use."""


Run = Callable[[Mapping[str, Any], Inputs, Path, Context], int]
