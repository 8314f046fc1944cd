"""Weights from elsewhere: every layout gives the embeddings of the model that wrote it.

The reference is open_clip, which builds, writes and reads the models by itself.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from bdbench.checkpoint import fetch, load, read
from bdbench.clip import Clip, _open_clip
from bdbench.errors import BdbenchError
from bdbench.models import MEAN, STD
from bdbench.schema import Model

open_clip = _open_clip()
SMALL = "ViT-S-32-alt"
TEXTS = ["a red kite", "one banana by the sea"]
Save = Callable[[Any, Path], None]


def images(side: int) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))


def build(name: str, resolution: int | None = None) -> Clip:
    return Clip.build(Model(name=name), (), 1, resolution=resolution)


def wrote(name: str, **options: Any) -> Any:
    """A model of open_clip's with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return open_clip.create_model(name, **options).eval()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tests run beside each other, where several threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small() -> Any:
    return wrote(SMALL)


@torch.no_grad()
def assert_same(clip: Clip, net: Any, side: int) -> None:
    """The embeddings are those of `net`, which open_clip normalises by itself."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
    tokens = open_clip.tokenize(TEXTS)
    with clip.evaluating():
        found = clip.encode_image(images(side)), clip.encode_text(clip.tokenize(TEXTS))
    expected = (
        net.encode_image((images(side) - mean) / std, normalize=True),
        net.encode_text(tokens, normalize=True),
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clip.scale, net.logit_scale.exp().reshape(()))


def bare(net: Any, path: Path) -> None:
    torch.save(net.state_dict(), path)


def trained(net: Any, path: Path) -> None:
    """As open_clip's training, CleanCLIP and attack-cleanclip save what several GPUs trained."""
    optimizer = torch.optim.AdamW([net.logit_scale])
    net.logit_scale.grad = torch.zeros(())
    optimizer.step()
    torch.save({
        "epoch": 3, "name": "badnet", "optimizer": optimizer.state_dict(),
        "state_dict": {f"module.{name}": value for name, value in net.state_dict().items()},
    }, path)


def old_format(net: Any, path: Path) -> None:
    torch.save({"state_dict": net.state_dict()}, path, _use_new_zipfile_serialization=False)


def safe(net: Any, path: Path) -> None:
    save_file(net.state_dict(), path)


def half(net: Any, path: Path) -> None:
    """Half precision, and OpenAI's numbers beside the weights."""
    state = {name: value.half() for name, value in net.state_dict().items()}
    torch.save(state | {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77),
                        "vocab_size": torch.tensor(49408)}, path)


def vector_scale(net: Any, path: Path) -> None:
    torch.save(net.state_dict() | {"logit_scale": net.logit_scale.detach().reshape(1)}, path)


@pytest.mark.parametrize("save", [bare, trained, old_format, safe, half, vector_scale])
def test_every_layout_gives_the_embeddings_of_its_model(
    save: Save, small: Any, tmp_path: Path
) -> None:
    path = tmp_path / "any name"
    save(small, path)
    clip = build(SMALL, 64)
    load(clip, path)
    # open_clip reads the same file, and resamples the position embeddings to 64 px.
    suffix = ".safetensors" if save is safe else ".pt"
    named = path.rename(path.with_suffix(suffix))
    if save is half:
        torch.save(read(named), named)  # open_clip knows OpenAI's numbers of TorchScript alone
    assert_same(clip, open_clip.create_model(
        SMALL, pretrained=str(named), force_image_size=64).eval(), 64)


def test_at_its_own_size_nothing_is_resampled(small: Any, tmp_path: Path) -> None:
    bare(small, tmp_path / "m.pt")
    clip = build(SMALL)
    load(clip, tmp_path / "m.pt")
    assert_same(clip, small, 224)
    state = clip.state()
    assert all(torch.equal(state[name], value) for name, value in small.state_dict().items())


@pytest.mark.parametrize("name", ["RN50", pytest.param("ViT-B-32", marks=pytest.mark.heavy)])
def test_the_layout_of_openai(name: str, tmp_path: Path) -> None:
    """What open_clip builds from an OpenAI state dict, with its activation, is what we import."""
    state = wrote(f"{name}-quickgelu").state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "m.pt")
    net = open_clip.model.build_model_from_openai_state_dict(
        dict(state), cast_dtype=torch.float32).float().eval()
    clip = build(f"{name}-quickgelu")
    load(clip, tmp_path / "m.pt")
    # open_clip builds it by way of half precision.
    clip.load_state({k: v.half().float() if v.is_floating_point() else v
                     for k, v in clip.state().items()})
    net.load_state_dict(clip.state())
    assert_same(clip, net, 224)
    other = build(name)
    other.load_state(clip.state())
    with pytest.raises(AssertionError):
        assert_same(other, net, 224)  # the same names and shapes, and another activation


@pytest.mark.parametrize("side", [64, 96])
def test_the_attention_pool_of_a_resnet_is_resampled(side: int, tmp_path: Path) -> None:
    net = wrote("RN50")
    safe(net, tmp_path / "m.safetensors")
    clip = build("RN50", side)
    load(clip, tmp_path / "m.safetensors")
    name = "visual.attnpool.positional_embedding"
    old, new = net.state_dict()[name], clip.state()[name]
    assert new.shape == (1 + (side // 32) ** 2, 2048)
    assert torch.equal(new[0], old[0])
    grid = old[1:].T.reshape(1, 2048, 7, 7)
    expected = interpolate(grid, (side // 32,) * 2, mode="bicubic", antialias=True)
    torch.testing.assert_close(new[1:], expected.reshape(2048, -1).T)
    with torch.no_grad(), clip.evaluating():
        assert clip.encode_image(images(side)).shape == (2, 1024)


def test_a_model_from_a_file_is_saved_and_loaded_at_its_size(small: Any, tmp_path: Path) -> None:
    bare(small, tmp_path / "m.pt")
    clip = build(SMALL, 96)
    load(clip, tmp_path / "m.pt")
    clip.save(tmp_path)
    again = Clip.load(tmp_path)
    assert again.file == clip.file
    assert again.file.resolution == 96
    with torch.no_grad(), clip.evaluating(), again.evaluating():
        assert torch.equal(clip.encode_image(images(96)), again.encode_image(images(96)))


def test_weights_of_another_model_are_reported(small: Any, tmp_path: Path) -> None:
    state = small.state_dict()
    del state["logit_scale"], state["ln_final.bias"]
    state["visual.proj"] = torch.ones(384, 512)
    torch.save(state | {"head.weight": torch.ones(2)}, tmp_path / "m.pt")
    with pytest.raises(BdbenchError) as caught:
        load(build(SMALL), tmp_path / "m.pt")
    n = len(small.state_dict())
    assert caught.value.message == (
        f"the weights do not fit `{SMALL}`: 2 of {n} missing (`logit_scale`, `ln_final.bias`);"
        f" 1 of {n} unexpected (`head.weight`);"
        f" 1 of {n} of another shape (`visual.proj` [384, 512], not [384, 256])"
    )


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self._flag}'",)


def zipped(found: Any, path: Path) -> None:
    torch.save(found, path)


def pickled(found: Any, path: Path) -> None:
    torch.save(found, path, _use_new_zipfile_serialization=False)


def plain(found: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(found, protocol=5))


@pytest.mark.parametrize("save", [zipped, pickled, plain])
def test_a_pickle_that_needs_code_is_refused_unexecuted(save: Save, tmp_path: Path) -> None:
    flag, path = tmp_path / "executed", tmp_path / "model.pt"
    save({"state_dict": {"a": torch.ones(2)}, "more": Hostile(flag)}, path)
    with pytest.raises(BdbenchError, match="would execute code of the file: it was not") as caught:
        read(path)
    assert not flag.exists()
    assert save is plain or "asks for `posix.system`" in caught.value.message
    assert "\x1b" not in str(caught.value)
    pickle.loads(pickle.dumps(Hostile(flag)))
    assert flag.exists()  # the trap works


@pytest.mark.parametrize("kind", ["numpy", "torchscript"])
def test_the_way_out_of_a_refused_file_works(kind: str, tmp_path: Path) -> None:
    """The command of the hint, word for word, in the folder of the file."""
    import numpy as np

    path, layer = tmp_path / "model.pt", torch.nn.Linear(2, 3)
    if kind == "numpy":
        torch.save({"state_dict": layer.state_dict(), "loss": np.float64(2)}, path)
    else:
        torch.jit.script(layer).save(str(path))
    with pytest.raises(BdbenchError) as caught:
        read(path)
    command = caught.value.hint.split(":\n", 1)[1]
    assert command.startswith("python -c ")
    subprocess.run(
        ["bash", "-ec", command.replace("python", sys.executable, 1)], cwd=tmp_path, check=True
    )
    found = read(tmp_path / "model.pt.safetensors")
    assert found.keys() == {"weight", "bias"}
    assert all(torch.equal(found[name], value) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("save", [bare, old_format, safe])
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.5, 0.999])
def test_a_file_cut_short_is_named(save: Save, share: float, tmp_path: Path) -> None:
    path = tmp_path / "model"
    save(torch.nn.Linear(500, 500), path)
    data = path.read_bytes()
    path.write_bytes(data[: min(len(data) - 1, round(share * len(data)) + 2 * (share > 0))])
    with pytest.raises(BdbenchError, match="is empty, cut short, damaged or no chec") as caught:
        read(path)
    assert str(path) in caught.value.message
    assert "sha256" in caught.value.hint


@pytest.mark.parametrize(("found", "says"), [
    ([1, 2], "holds no weights by name but a `list`"),
    ({}, "holds no weights by name but a `dict`"),
    ({"state_dict": 3}, "holds no weights by name but a `int`"),
    ({"epoch": 3, "a": torch.ones(2)}, "`epoch` in `"),
    ({"a": torch.ones(3, 3).to_sparse()}, "not a tensor with all its values in the file"),
    ({"a": torch.ones(1).expand(10**12)}, "not a tensor with all its values in the file"),
    ({"a": torch.ones(2, device="meta")}, "not a tensor with all its values in the file"),
    ({"a": torch.tensor([1, float("nan")])}, "values that are not finite"),
])
def test_what_holds_no_weights_is_refused(found: Any, says: str, tmp_path: Path) -> None:
    torch.save(found, tmp_path / "m.pt")
    with pytest.raises(BdbenchError, match=re.escape(says)) as caught:
        read(tmp_path / "m.pt")
    assert caught.value.hint


@pytest.mark.parametrize("data", [
    b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>", b"\x80\x02",
    struct.pack("<Q", 10**9) + b"{}", struct.pack("<Q", 2) + b"{}" + b"junk",
], ids=["lfs", "html", "pickle", "header", "tail"])
def test_what_is_no_checkpoint_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(BdbenchError, match=r"no checkpoint|holds no weights"):
        read(tmp_path / "m.pt")


@pytest.mark.parametrize(("name", "tag", "says", "hint"), [
    ("RN50", "opnai", "has no weights `opnai` of `RN50`", "`openai`"),
    (SMALL, "openai", f"has no weights `openai` of `{SMALL}`", "it has none of this model"),
    ("RN50", "openai", "were trained with QuickGELU, and `RN50` is without", "RN50-quickgelu"),
])
def test_a_tag_that_does_not_fit_is_refused(name: str, tag: str, says: str, hint: str) -> None:
    with pytest.raises(BdbenchError) as caught:
        fetch(name, tag)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_a_tag_gives_its_file_and_its_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from open_clip import pretrained

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        pretrained, "download_pretrained", lambda known: (asked.append(known), tmp_path)[1]
    )
    assert fetch("RN50-quickgelu", "openai") == (tmp_path, {})
    assert fetch("ViT-B-16-SigLIP", "webli") == (
        tmp_path, {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    assert [known["hf_hub"] for known in asked] == [
        "timm/resnet50_clip.openai/", "timm/ViT-B-16-SigLIP/"]

    def offline(known: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(pretrained, "download_pretrained", offline)
    with pytest.raises(BdbenchError) as caught:
        fetch("RN50-quickgelu", "openai")
    assert caught.value.message == (
        "the weights `openai` of `RN50-quickgelu` cannot be fetched: OSError: no route to host")
    assert "--set recipe.model.init=FILE" in caught.value.hint


def test_an_imported_file_is_as_it_was(small: Any, tmp_path: Path) -> None:
    """Reading maps the file; what is done with the weights does not reach it."""
    bare(small, tmp_path / "m.pt")
    before = (tmp_path / "m.pt").read_bytes()
    for value in read(tmp_path / "m.pt").values():
        value.zero_()
    assert (tmp_path / "m.pt").read_bytes() == before
