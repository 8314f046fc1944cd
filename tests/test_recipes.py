"""The shipped recipes: the values of the papers, and that what they name is there."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bdbench.clip import Clip
from bdbench.data import Pairs
from bdbench.errors import BdbenchError
from bdbench.objectives.mmcl_ssl import MmclSsl
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Augment, Model, Recipe, Training
from bdbench.train import fit

LARGE = ["cc3m_rn50", "cc6m_rn50", "cc6m_vitb32", "clip_rn50_finetune"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the form that the large recipes want, with next to nothing in it."""
    folder = tmp_path_factory.mktemp("data")
    out = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(out, "JPEG")
    for name in ("cc3m", "cc12m"):
        (folder / name).mkdir()
        with tarfile.open(folder / name / "00000.tar", "w") as tar:
            for ending, content in (("jpg", out.getvalue()), ("txt", b"a banana")):
                member = tarfile.TarInfo(f"0.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (folder / "imagenet/val/n01440764").mkdir(parents=True)
    (folder / "imagenet/val/n01440764/0.jpg").write_bytes(out.getvalue())
    return folder


def planned(
    recipe: str, data: Path, objective: str, defense: str, attack: str = "badnet"
) -> Plan:
    registry = Registry()
    wanted = cells(registry, recipe=recipe, attacks=[attack], objectives=[objective],
                   defenses=[defense], seeds=[0])
    return plan(registry, wanted, {"dataset": {"path": str(data)}})


def specs(todo: Plan, stage: str) -> list[dict[str, Any]]:
    return [node.spec for node in todo.nodes.values() if node.stage == stage]


@pytest.mark.parametrize("objective", ["mmcl", "mmcl_ssl"])
@pytest.mark.parametrize("recipe", LARGE)
def test_the_values_of_the_papers(recipe: str, objective: str, data: Path) -> None:
    todo = planned(recipe, data, objective, "cleanclip")
    (pretrain,), (poison,) = specs(todo, "pretrain"), specs(todo, "poison")
    train = pretrain["train"]
    scratch = recipe != "clip_rn50_finetune"
    assert train["weight_decay"] == 0.1
    assert (train["beta1"], train["beta2"], train["eps"]) == (0.9, 0.999, 1e-8)
    assert train["warmup_steps"] == 10_000
    if scratch:
        assert (train["epochs"], train["lr"]) == (64, 1e-3)
        assert train["batch"] == {"mmcl": 2048, "mmcl_ssl": 1024}[objective]
    else:
        assert (train["epochs"], train["lr"], train["batch"]) == (10, 1e-6, 128)
        assert [spec["source"] for spec in specs(todo, "checkpoint")] == ["openai"]
    assert pretrain["augment"]["policy"] == "autoaugment"
    assert pretrain["augment"]["text"] == 0.1
    assert pretrain["model"]["name"] == {
        "cc6m_vitb32": "ViT-B-32", "clip_rn50_finetune": "RN50-quickgelu"
    }.get(recipe, "RN50")
    rate = {
        "cc3m_rn50": 1500 / 2_725_316, "clip_rn50_finetune": 1500 / 500_000,
    }.get(recipe, 3000 / 6_000_000)
    assert poison["attack"]["params"]["rate"] == pytest.approx(rate, rel=0.001)
    assert poison["attack"]["params"]["size"] == 16
    assert poison["target"] == "banana"
    for spec in specs(todo, "defend"):
        assert spec["budget"] == 100_000
        params = spec["defense"]["params"]
        assert (params["epochs"], params["batch"], params["warmup_steps"]) == (20, 64, 50)


@pytest.mark.parametrize("recipe", LARGE)
def test_without_ssl_the_batch_of_a_defense_is_128(recipe: str, data: Path) -> None:
    for spec in specs(planned(recipe, data, "mmcl", "finetune"), "defend"):
        assert spec["defense"]["params"]["batch"] == 128


@pytest.mark.parametrize("recipe", LARGE)
def test_the_splits_are_disjoint(recipe: str, data: Path) -> None:
    pairs, tests = specs(planned(recipe, data, "mmcl", "none"), "data")
    params = pairs["dataset"]["params"]
    usable = 6_200_000
    rows = {
        split: range(usable)[params[split]["start"] : params[split]["stop"]]
        for split in ("train", "validation", "budget")
    }
    assert len(rows["budget"]) >= 100_000
    assert len({params[split]["files"] for split in rows}) == 1
    train, validation, budget = rows.values()
    assert train.stop <= validation.start
    assert validation.stop <= budget.start or budget.stop <= validation.start
    assert train.stop <= budget.start
    assert {spec["dataset"]["params"]["names"] for spec in (pairs, tests)} == {"imagenet1k"}
    assert tests["dataset"]["params"]["per_class"] == 50


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "val").mkdir(parents=True)
    with pytest.raises(BdbenchError, match="nothing matches") as error:
        planned("cc3m_rn50", tmp_path, "mmcl", "none")
    assert "cc3m/*.tar" in error.value.message


def test_an_objective_may_change_the_training_and_nothing_else() -> None:
    recipe = Registry().recipe("cc3m_rn50")
    assert recipe.training("mmcl") == recipe.pretrain
    assert recipe.training("mmcl_ssl") == recipe.pretrain.model_copy(update={"batch": 1024})
    raw = recipe.model_dump(exclude_none=True)
    raw["pretrain_for"] = {"mmcl_ssl": {"btach": 1024}}
    with pytest.raises(ValueError, match="btach"):
        Recipe.model_validate(raw)


def test_what_is_set_holds_for_every_objective() -> None:
    recipe = Registry().recipe("cc3m_rn50", {"pretrain": {"batch": 512}})
    assert {recipe.training(name).batch for name in ("mmcl", "mmcl_ssl")} == {512}
    recipe = Registry().recipe(
        "cc3m_rn50", {"pretrain": {"lr": 1e-4}, "pretrain_for": {"mmcl_ssl": {"batch": 256}}})
    assert recipe.training("mmcl") == recipe.pretrain
    assert recipe.training("mmcl_ssl") == recipe.pretrain.model_copy(update={"batch": 256})
    assert recipe.pretrain.lr == 1e-4


@pytest.mark.heavy
def test_a_step_with_two_views_at_the_real_size(tmp_path: Path) -> None:
    captions = ["a photo of a banana", "two dogs on a beach"]
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), generator=drawn, dtype=torch.uint8)
    clip = Clip.build(Model(name="RN50"), captions, 0)
    before = clip.state()
    log = fit(
        clip, MmclSsl(), Pairs(torch.arange(2), pixels, captions),
        Training(epochs=1, batch=2, lr=1e-3), Augment(policy="autoaugment", synonyms=False),
        seed=0, state=tmp_path / "state",
    )
    assert 0 < log[0]["clip"] < 20
    after = clip.state()
    for name in ("visual.conv1.weight", "token_embedding.weight", "text_projection", "logit_scale"):
        assert not torch.equal(after[name], before[name])
