"""Precision, compilation and devices: what the loop does with `recipe.hardware`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bdbench.clip import Clip
from bdbench.data import Pairs
from bdbench.group import device_of, visible
from bdbench.objectives.mmcl_ssl import MmclSsl
from bdbench.plan import cells, plan
from bdbench.registry import Registry
from bdbench.schema import Augment, Hardware, Model, Training
from bdbench.train import EpochLog, fit

CAPTIONS = [f"a {colour} {thing}" for colour in ("red", "blue", "green", "grey")
            for thing in ("kite", "drum")]


@pytest.fixture(autouse=True)
def _no_context_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdbench.clip._SHORT", 0)


def trained(folder: Path, **hardware: Any) -> tuple[list[EpochLog], dict[str, set[torch.dtype]]]:
    """The log of two steps, and the types of what the towers and the loss worked with.

    The captions are short enough for the model to leave columns of padding out.
    """
    drawn = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (8, 3, 32, 32), generator=drawn, dtype=torch.uint8)
    clip = Clip.build(Model(name="bdbench-mini", tokenizer="words"), CAPTIONS, 0)
    seen: dict[str, set[torch.dtype]] = {"towers": set(), "loss": set()}

    class Watched(MmclSsl):
        def loss(self, features: Any, heads: Any, scale: Any) -> Any:
            seen["loss"] |= {features.images.dtype, features.texts.dtype, scale.dtype}
            return super().loss(features, heads, scale)

    for module in clip.model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda m, given, out: seen["towers"].add(out.dtype))
    log = fit(
        clip, Watched(), Pairs(torch.arange(8), pixels, CAPTIONS),
        Training(epochs=2, batch=8, lr=1e-3), Augment(), seed=3, state=folder / "state",
        hardware=Hardware(**hardware),
    )
    return log, seen


def test_bf16_is_of_the_towers_alone(tmp_path: Path) -> None:
    exact, rough = tmp_path / "exact", tmp_path / "rough"
    exact.mkdir()
    rough.mkdir()
    full, types = trained(exact)
    assert types == {"towers": {torch.float32}, "loss": {torch.float32}}
    half, types = trained(rough, precision="bf16")
    assert types == {"towers": {torch.bfloat16}, "loss": {torch.float32}}
    assert half != full
    assert half[0] == pytest.approx(full[0], rel=0.02)


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_a_compiled_step_is_the_same_step(tmp_path: Path) -> None:
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    plain.mkdir()
    compiled.mkdir()
    first, second = trained(plain)[0]
    # Adam divides by gradients of nearly nothing, so that rounding grows with the first step.
    assert trained(compiled, compile=True)[0] == [
        pytest.approx(first, rel=1e-4), pytest.approx(second, rel=1e-3)
    ]


def specs(**hardware: Any) -> dict[str, dict[str, Any]]:
    registry = Registry()
    (cell,) = cells(registry, recipe="smoke", attacks=["badnet"], objectives=["mmcl"],
                    defenses=["none"], seeds=[0])
    todo = plan(registry, [cell], {"recipe": {"hardware": hardware}} if hardware else {})
    return {node.stage: {**node.spec, "gpus": node.gpus} for node in todo.nodes.values()}


def test_a_node_asks_for_the_gpus_that_it_needs() -> None:
    found = specs(device="cuda", processes=8, batch_norm="local")
    assert {stage: spec["gpus"] for stage, spec in found.items()} == {
        "data": 0, "poison": 0, "pretrain": 8, "defend": 1, "evaluate": 1, "card": 0,
    }
    assert found["pretrain"]["hardware"]["batch_norm"] == "local"
    # What a defense or a test does with a model does not depend on how many trained it.
    assert found["defend"]["hardware"] == specs(device="cuda")["defend"]["hardware"]


def test_a_launch_stays_within_the_gpus_that_it_was_given() -> None:
    assert visible([0, 2], None) == "0,2"
    assert visible([1, 0], "4, 5,7") == "5,4"
    assert visible([2], "GPU-a,GPU-b,MIG-c") == "MIG-c"


def test_without_hardware_the_keys_are_those_of_before() -> None:
    assert all("hardware" not in spec for spec in specs().values())


@pytest.fixture
def flags() -> Iterator[tuple[Any, Any]]:
    """torch's own places of the flag, with their values put back afterwards."""
    both = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [one.allow_tf32 for one in both]
    yield both
    for one, value in zip(both, before, strict=True):
        one.allow_tf32 = value


@pytest.mark.parametrize(("precision", "rough"), [("fp32", False), ("tf32", True), ("bf16", True)])
def test_precision_of_matrix_products_on_a_gpu(
    precision: Any, rough: bool, flags: tuple[Any, Any]
) -> None:
    for one in flags:
        one.allow_tf32 = not rough
    assert device_of(Hardware(device="cuda", precision=precision), [3]) == torch.device("cuda", 3)
    assert [one.allow_tf32 for one in flags] == [rough, rough]
