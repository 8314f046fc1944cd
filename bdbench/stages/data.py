"""data: decode or generate the dataset once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from bdbench.api import Dataset
from bdbench.data import write
from bdbench.errors import BdbenchError
from bdbench.stages import Context, Inputs


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write the pixel cache and the index of all splits."""
    dataset = cast(Dataset, context.registry.build("dataset", spec["dataset"], context.local))
    digest = spec["dataset"]["params"].get("digest")
    if digest and (found := dataset.fingerprint()) != digest:
        raise BdbenchError(
            f"these are other files than those meant: their digest is `{found}`, not `{digest}`",
            "`--set 'dataset.digest=\"\"'` takes them as they are, under keys of their own",
        )
    write(
        dataset, spec["resolution"], spec["seed"], work,
        lambda done, total: context.report({"done": done, "seen": done, "total": total}),
    )
    return 0
