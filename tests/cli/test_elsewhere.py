"""A model from elsewhere in a cell: the graph, the card, the start of a training, the export."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from bdbench.cards.text import markdown
from bdbench.clip import Clip, _open_clip
from bdbench.data import Pairs
from bdbench.errors import BdbenchError
from bdbench.execute import run
from bdbench.export import export
from bdbench.hashing import file_digest
from bdbench.objectives.mmcl import Mmcl
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry
from bdbench.resolve import UNKNOWN
from bdbench.schema import Augment, Card, Cell, Model, Training
from bdbench.stages.poison import load_trigger
from bdbench.store import Artifact, Store
from bdbench.train import fit
from bdbench.worker import run_node
from tests.cli.conftest import Cli

open_clip = _open_clip()
pytestmark = pytest.mark.usefixtures("inline")

SMALL = "ViT-S-32-alt"
DATA = {"train": 64, "budget": 32, "validation": 16, "test": 32}
BUDGET = {"pairs": 32}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tests run beside each other, where several threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As CleanCLIP saves a model."""
    path = tmp_path_factory.mktemp("elsewhere") / "epoch_3.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = open_clip.create_model(SMALL).state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return path


def planned(recipe: dict[str, Any], attack: str = "badnet", objective: str = "mmcl") -> Plan:
    registry = Registry()
    wanted = cells(registry, recipe="smoke", attacks=[attack], objectives=[objective],
                   defenses=["none"], seeds=[0])
    return plan(registry, wanted, {"recipe": recipe, "dataset": DATA, "attack": {"rate": 0.1}})


def compute(todo: Plan, store: Store, last: str) -> Artifact:
    """Run the stages up to the first of `last` in this process."""
    store.prepare()
    for key, node in todo.nodes.items():
        run_node(store, Registry(), todo.job(node), lambda event: None, todo.files)
        if node.stage == last:
            return store.open(node.stage, key)
    raise AssertionError(last)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def card(inline: None, file: Path, store: Path) -> Card:
    return run(
        "badnet", defense="none", recipe="smoke", checkpoint=file, store=store,
        overrides={"recipe": {"model": SMALL, "budget": BUDGET}, "dataset": DATA},
    )


def test_an_import_stands_in_for_poisoning_and_training(file: Path) -> None:
    todo = planned({"model": SMALL, "checkpoint": str(file)}, objective=UNKNOWN)
    nodes = {node.stage: node for node in todo.nodes.values()}
    assert Counter(node.stage for node in todo.nodes.values()) == {
        "checkpoint": 1, "data": 1, "poison": 1, "defend": 1, "evaluate": 2, "card": 1}
    (key,) = [key for key, stage in todo.stages.items() if stage == "checkpoint"]
    assert nodes["checkpoint"].inputs == {}
    assert nodes["checkpoint"].spec["source"] == f"sha256:{file_digest(file)}"
    assert nodes["defend"].inputs["pretrain"] == key
    assert nodes["poison"].spec["trigger_only"] is True
    assert todo.files == {f"sha256:{file_digest(file)}": str(file)}


def test_keys_hold_the_bytes_of_a_file_and_never_its_path(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name, objective in (("checkpoint", UNKNOWN), ("init", "mmcl")):
        def named(value: str, name: str = name, objective: str = objective) -> Plan:
            table = {"model": SMALL, "checkpoint": value}
            if name == "init":
                table = {"model": {"name": SMALL, "init": value}}
            return planned(table, objective=objective)

        one = named(str(file))
        assert one.nodes.keys() == named("./copy").nodes.keys()
        assert one.nodes.keys() == named(f"sha256:{file_digest(file)}").nodes.keys()
        assert str(file) not in json.dumps([node.spec for node in one.nodes.values()])
        copy.write_bytes(file.read_bytes() + b" ")
        assert one.cards != named("copy").cards
        copy.write_bytes(file.read_bytes())


def test_the_objective_is_declared_and_moves_the_card_alone(file: Path) -> None:
    one, other = (planned({"model": SMALL, "checkpoint": str(file)}, objective=name)
                  for name in (UNKNOWN, "mmcl_ssl"))
    moved = set(one.nodes) ^ set(other.nodes)
    assert {{**one.stages, **other.stages}[key] for key in moved} == {"card"}


@pytest.mark.parametrize(("recipe", "objective", "says", "hint"), [
    ({"model": {"name": SMALL, "tokenizer": "words"}, "checkpoint": "FILE"}, UNKNOWN,
     f"`{SMALL}` is to read with a vocabulary of words", "--set recipe.model=RN50"),
    ({"checkpoint": "FILE"}, UNKNOWN, "`bdbench-tiny` is to read with", "recipe.model=RN50"),
    ({"model": {"name": SMALL, "init": "openai"}, "checkpoint": "FILE"}, UNKNOWN,
     "names weights to start training from, `openai`, and a model", "leave `--checkpoint`"),
    ({"model": SMALL}, UNKNOWN, "there is no objective `unknown`", "`bdbench list objective`"),
    ({"model": "ViT-B-32", "resolution": 50}, "mmcl", "no whole number of the patches", "=64`"),
    ({"model": SMALL, "checkpoint": "gone.pt"}, UNKNOWN, "no file of weights `gone.pt`", "check"),
])
def test_what_cannot_run_is_refused_before_anything_does(
    recipe: dict[str, Any], objective: str, says: str, hint: str, file: Path
) -> None:
    text = json.dumps(recipe).replace("FILE", str(file))
    with pytest.raises(BdbenchError) as caught:
        planned(json.loads(text), objective=objective)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_the_card_says_where_the_model_comes_from(card: Card, file: Path) -> None:
    address = f"sha256:{file_digest(file)}"
    assert card.cell == Cell(recipe="smoke", attack="badnet", objective=UNKNOWN, defense="none")
    assert card.recipe.checkpoint == card.overridden["checkpoint"] == address
    assert (card.poison.poisoned, card.poison.requested, card.poison.pairs) == (0, 0, 64)
    assert card.verdict.status == "attack_failed"  # random weights, which nobody attacked
    assert {stage.stage for stage in card.provenance.stages} == {
        "data", "poison", "checkpoint", "evaluate", "defend"}
    text = markdown(card)
    assert "model trained elsewhere was read from a file, `" + address in text
    assert "Nobody said what it was trained with" in text
    assert "was pre-trained" not in text
    declared = card.model_copy(update={"cell": card.cell.model_copy(update={"objective": "mmcl"})})
    assert "trained with `mmcl` is what the user declared" in markdown(declared)
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_the_evaluated_model_is_the_one_in_the_file(card: Card, file: Path, store: Path) -> None:
    (stage,) = [s for s in card.provenance.stages if s.stage == "checkpoint"]
    artifact = Store(store).open("checkpoint", stage.key)
    facts = json.loads(artifact.file("checkpoint.json").read_bytes())
    assert facts == {"source": f"sha256:{file_digest(file)}", "bytes": file.stat().st_size,
                     "file": f"sha256:{file_digest(file)}"}
    found = load_file(artifact.file("model.safetensors"))
    written = torch.load(file, weights_only=True)["state_dict"]
    for name, value in written.items():
        if name != "module.visual.positional_embedding":
            assert torch.equal(found[name.removeprefix("module.")], value)
    assert found["visual.positional_embedding"].shape == (2, 384)  # one patch of 32 px


def test_the_trigger_is_the_one_that_training_here_would_meet(card: Card, store: Path) -> None:
    place = Store(store)
    (stage,) = [s for s in card.provenance.stages if s.stage == "poison"]
    only = place.open("poison", stage.key)
    assert pd.read_parquet(only.file("rows.parquet")).empty
    full = compute(planned({}), place, "poison")
    images, ids = torch.rand(4, 3, 32, 32), torch.arange(4)
    one, other = (load_trigger(artifact, Registry()) for artifact in (only, full))
    assert torch.equal(one(images.clone(), ids), other(images.clone(), ids))
    assert not torch.equal(one(images.clone(), ids), images)


@pytest.mark.heavy
def test_a_control_has_no_attack_to_look_for(file: Path, store: Path) -> None:
    control = run("none", "mmcl", "none", recipe="smoke", checkpoint=file, store=store,
                  overrides={"recipe": {"model": SMALL, "budget": BUDGET}, "dataset": DATA})
    assert control.verdict.status == "control"
    assert "from elsewhere, and no attack is looked for" in control.verdict.reason


def test_training_starts_from_the_weights_of_the_file(file: Path, tmp_path: Path) -> None:
    """At a learning rate of 0 it ends with them too."""
    recipe = {"model": {"name": SMALL, "init": str(file)}, "resolution": 32,
              "pretrain": {"epochs": 1, "lr": 0.0, "batch": 32}}
    store = Store(tmp_path)
    todo = planned(recipe)
    trained = compute(todo, store, "pretrain")
    (key,) = [key for key, stage in todo.stages.items() if stage == "checkpoint"]
    start = load_file(store.open("checkpoint", key).file("model.safetensors"))
    end = load_file(trained.file("model.safetensors"))
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert torch.equal(end["ln_final.weight"],
                       torch.load(file, weights_only=True)["state_dict"]["module.ln_final.weight"])
    (node,) = [node for node in todo.nodes.values() if node.stage == "card"]
    assert node.inputs["init"] == key
    assert node.spec["recipe"]["model"]["init"] == f"sha256:{file_digest(file)}"


def test_a_file_that_is_gone_or_changed_is_named(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(file.read_bytes())
    todo = planned({"model": SMALL, "checkpoint": str(copy)}, objective=UNKNOWN)
    copy.write_bytes(b"other")
    with pytest.raises(BdbenchError, match="has changed since the run was planned"):
        compute(todo, Store(tmp_path / "s"), "checkpoint")
    todo.files.clear()
    with pytest.raises(BdbenchError, match="no file of them was named") as caught:
        compute(todo, Store(tmp_path / "s"), "checkpoint")
    assert "bdbench run --checkpoint FILE" in caught.value.hint


def test_open_clip_loads_what_is_exported(card: Card, store: Path, tmp_path: Path) -> None:
    place = Store(store)
    (stage,) = [s for s in card.provenance.stages if s.stage == "defend"]
    exported = export(place, stage.key, tmp_path / "out")
    assert exported.model.name == SMALL
    net = open_clip.create_model(f"local-dir:{tmp_path / 'out'}").eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    clip = Clip.load(place.open("defend", stage.key).path, "step-0001.safetensors")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    preprocess = open_clip.get_model_preprocess_cfg(net)
    mean, std = (torch.tensor(preprocess[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    texts = ["a red kite", "one banana"]
    with torch.no_grad(), clip.evaluating():
        torch.testing.assert_close(
            net.encode_image((images - mean) / std, normalize=True), clip.encode_image(images))
        torch.testing.assert_close(
            net.encode_text(tokenize(texts), normalize=True),
            clip.encode_text(clip.tokenize(texts)))
    assert net.visual.image_size in (32, (32, 32))


def test_the_command_exports_and_says_how_to_load_it(
    card: Card, store: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BDBENCH_HOME", str(store))
    keys = {stage.stage: stage.key for stage in card.provenance.stages}
    done = cli("store", "export", keys["checkpoint"], str(tmp_path / "a"))
    assert (done.status, done.out) == (0, f"{tmp_path / 'a'}\n")
    assert done.err == (
        f"open_clip.create_model('local-dir:{tmp_path / 'a'}'),"
        f" open_clip.get_tokenizer('{SMALL}')\n")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "open_clip_config.json", "open_clip_model.safetensors"]
    done = cli("store", "export", keys["defend"], str(tmp_path / "b"), "--step", "1")
    assert done.status == 0
    for words, says, hint in (
        ([keys["data"], "c"], f"`{keys['data']}` is a data, which holds no model", "store ls"),
        (["feedfeedfeedfeed", "c"], "has no model `feedfeedfeedfeed`", "`bdbench store ls`"),
        (["../data", "c"], "is no address of an artifact", "`bdbench store ls`"),
        ([keys["checkpoint"], str(tmp_path / "a")], "is there already", f"{tmp_path / 'a'}-"),
        ([keys["defend"], "c", "--step", "7"], "has no model of step `7`", "its steps are 1"),
        ([keys["checkpoint"], "c", "--step", "1"], "has no model of step `1`", "leave `--step`"),
    ):
        done = cli("store", "export", *words)
        assert (done.status, done.out) == (2, "")
        message, _, told = done.err.partition("\n\nhint: ")
        assert says in message
        assert hint in told
    assert not Path("c").exists()


def test_a_model_of_ours_is_not_exported_and_stays_readable(
    smoke_card: Card, shared_store: Path, tmp_path: Path
) -> None:
    (stage,) = [s for s in smoke_card.provenance.stages if s.stage == "pretrain"]
    with pytest.raises(BdbenchError, match="`words` is bdbench's own") as caught:
        export(Store(shared_store), stage.key, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = re.search(r"Clip\.load\(Path\('(.*)'\), '(.*)'\)", caught.value.hint)
    assert found
    assert Clip.load(Path(found[1]), found[2]).file.model.name == "bdbench-tiny"


def test_the_command_line_takes_a_model_and_names_what_is_next(
    card: Card, file: Path, store: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both forms of naming the model give the cell that is in the store."""
    monkeypatch.setenv("BDBENCH_HOME", str(store))
    words = ["run", "--recipe", "smoke", "--defense", "none", "--checkpoint", str(file),
             "--set", "recipe.budget.pairs=32"]
    for name, value in DATA.items():
        words += ["--set", f"dataset.{name}={value}"]
    for model in (f"recipe.model={SMALL}", f'recipe.model.name="{SMALL}"'):
        done = cli(*words, "--set", model)
        assert done.status == 0
        assert done.err.count("reused") == 7
        assert f"a {SMALL} from elsewhere, sha256:{file_digest(file)[:16]}" in done.out
    *_, following = done.out.splitlines()
    assert following == "next: bdbench show attack/badnet"
    planned = cli(*words, "--set", model, "--plan")
    assert "checkpoint" in planned.out
    assert "pretrain" not in planned.out
    done = cli(*words, "--set", model, "--objective", "all")
    assert done.status == 2
    assert "was trained with one objective, and several are named" in done.err


@pytest.mark.parametrize("name", [
    "RN50", *(pytest.param(name, marks=pytest.mark.heavy) for name in ("ViT-B-32", "ViT-B-16")),
])
def test_a_real_architecture_takes_one_step_at_its_real_size(name: str, tmp_path: Path) -> None:
    """The loss before the step is that of open_clip's ClipLoss on the same model."""
    clip = Clip.build(Model(name=name), (), 3, resolution=224)
    before = clip.state()
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(5))
    pairs = Pairs(torch.arange(2), pixels, ["a red kite", "one banana by the sea"])
    with torch.no_grad():
        clip.model.train()
        expected = open_clip.ClipLoss()(
            clip.encode_image(pairs.images(torch.arange(2))),
            clip.encode_text(clip.tokenize(pairs.captions)), clip.scale)
    clip.load_state(before)
    (log,) = fit(
        clip, Mmcl(), pairs, Training(epochs=1, batch=2, lr=1e-3), Augment(), seed=0,
        state=tmp_path / "state",
    )
    assert log["clip"] == pytest.approx(float(expected), rel=1e-4)
    still = {n for n, v in clip.state().items() if v.is_floating_point() and v.equal(before[n])}
    assert not any(name.endswith("in_proj_weight") or "conv" in name for name in still)
    assert not torch.equal(clip.state()["text_projection"], before["text_projection"])
