from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bdbench.tensors import save_tensors


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_file_has_the_permissions_of_any_other(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        other, path = tmp_path / "other", tmp_path / "a.safetensors"
        other.touch()
        for value in (1.0, 2.0):
            save_tensors({"a": torch.tensor(value)}, path)
            assert path.stat().st_mode == other.stat().st_mode
            assert load_file(path)["a"] == value
    finally:
        os.umask(before)
    assert sorted(tmp_path.iterdir()) == [path, other]
