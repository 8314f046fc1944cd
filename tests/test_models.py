"""Names, image sizes and addresses of weights, without building a model."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from bdbench.errors import BdbenchError
from bdbench.models import (
    architectures,
    check_resolution,
    config,
    image_size,
    own_config,
    weights_address,
)


def test_the_names_are_those_of_open_clip_and_ours() -> None:
    from bdbench.clip import _open_clip

    theirs = _open_clip()
    assert architectures() == sorted(theirs.list_models())
    for name in architectures():
        assert config(name) == theirs.get_model_config(name)
    assert own_config("bdbench-tiny") == config("bdbench-tiny")
    assert own_config("RN50") is None
    assert image_size("ViT-L-14-336") == 336
    with pytest.raises(BdbenchError, match="open_clip knows no model `RN5O`") as caught:
        config("RN5O")
    assert "`bdbench run --set recipe.model=RN50`" in caught.value.hint


@pytest.mark.parametrize(("name", "resolution"), [
    ("RN50", 32), ("RN50", 48), ("RN50", 224), ("ViT-B-32", 64), ("ViT-B-16", 48),
    ("bdbench-tiny", 20),
])
def test_images_that_the_tower_can_take(name: str, resolution: int) -> None:
    check_resolution(name, resolution)


@pytest.mark.parametrize(("name", "resolution", "says", "instead"), [
    ("RN50", 31, "`31` px are smaller than one cell of the attention pool of `RN50`, `32` px", 32),
    ("ViT-B-32", 16, "`16` px are smaller than the patches of `ViT-B-32`, `32` px", 32),
    ("ViT-B-32", 90, "`90` px are no whole number of the patches of `ViT-B-32`, `32` px", 96),
    ("ViT-L-14", 64, "`64` px are no whole number of the patches of `ViT-L-14`, `14` px", 70),
])
def test_images_that_it_cannot_take_and_what_it_can(
    name: str, resolution: int, says: str, instead: int
) -> None:
    with pytest.raises(BdbenchError) as caught:
        check_resolution(name, resolution)
    assert caught.value.message.startswith(f"images of {says}")
    assert f"--set recipe.resolution={instead}`" in caught.value.hint
    check_resolution(name, instead)


def test_a_file_is_addressed_by_its_bytes_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = "sha256:" + hashlib.sha256(b"weights").hexdigest()
    for name in ("a.pt", "weights"):
        (tmp_path / name).write_bytes(b"weights")
        assert weights_address(name) == (address, tmp_path / name)
    assert weights_address(address) == (address, None)
    assert weights_address("openai") == ("openai", None)


@pytest.mark.parametrize(("given", "says", "hint"), [
    ("no/such", "there is no file of weights `no/such`", "a tag of open_clip"),
    ("model.pt", "there is no file of weights `model.pt`", "check the path"),
    ("full", "the weights `full` are a folder", "name the file in it: `full/m.safetensors`"),
    ("bare", "the weights `bare` are a folder", "no file of weights is in it"),
])
def test_what_is_no_file(
    given: str, says: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "m.safetensors").touch()
    (tmp_path / "bare").mkdir()
    with pytest.raises(BdbenchError, match=re.escape(says)) as caught:
        weights_address(given)
    assert hint in caught.value.hint
