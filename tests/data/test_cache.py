"""The cache: what it writes for data that has nothing new."""

from __future__ import annotations

import json
from pathlib import Path

from bdbench.data import DataCache, write
from bdbench.datasets.shapes import Shapes


def test_the_description_has_only_what_the_dataset_has(tmp_path: Path) -> None:
    write(Shapes(train=8, budget=4, validation=4, test=4), 32, 0, tmp_path)
    described = json.loads((tmp_path / "data.json").read_text())
    # Cards hold its sha256: a field that came later must not show where it says nothing.
    assert set(described) == {"resolution", "classes", "templates", "sizes", "facts"}
    assert DataCache(tmp_path).file.encoding == "raw"
