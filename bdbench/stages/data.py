"""data: decode or generate the dataset once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from bdbench.api import Dataset
from bdbench.data import write
from bdbench.stages import Context, Inputs


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write the pixel cache and the index of all splits."""
    dataset = cast(Dataset, context.registry.build("dataset", spec["dataset"]))
    write(dataset, spec["resolution"], spec["seed"], work)
    return 0
