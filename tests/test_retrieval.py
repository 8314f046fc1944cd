"""Ranking and probing features, against sorting a full matrix and counting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bdbench import probes, retrieval
from bdbench.api import Predictions, Retrieval
from bdbench.cards.text import TARGET_CAPTIONS, markdown, summary
from bdbench.clip import Clip
from bdbench.data import DataCache, Images
from bdbench.errors import BdbenchError
from bdbench.execute import run
from bdbench.metrics.recall import Recall
from bdbench.metrics.retrieval_asr import RetrievalAsr
from bdbench.registry import Registry
from bdbench.retrieval import first_of, first_places, matches, numbered, places
from bdbench.schema import Card
from bdbench.stages.poison import load_trigger
from bdbench.store import Artifact, Store


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


@pytest.fixture(params=[2**25, 64])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, or a row or two at a time."""
    monkeypatch.setattr(retrieval, "_LARGEST", request.param)
    monkeypatch.setattr(probes, "_LARGEST", request.param)


@pytest.mark.usefixtures("chunks")
def test_places_are_those_of_a_sorted_list() -> None:
    rows, columns = unit(30, 8, 0), unit(40, 8, 1)
    wanted = torch.arange(30)
    found = places(rows, columns, torch.stack([wanted, wanted], 1))
    for i, row in enumerate(rows.numpy()):
        order = sorted(range(40), key=lambda j: -float(row @ columns[j].numpy()))
        assert found[i] == order.index(i)


@pytest.mark.usefixtures("chunks")
def test_captions_of_the_same_text_are_one() -> None:
    captions = ["a dog", "A dog ", "a cat", "a dog", "a bird"]
    texts = unit(3, 4, 2)[[0, 0, 1, 0, 2]]
    images = texts.clone()
    belong = matches(torch.arange(5), captions)
    assert belong.tolist() == [
        [0, 0], [0, 1], [0, 3], [1, 0], [1, 1], [1, 3], [2, 2], [3, 0], [3, 1], [3, 3], [4, 4]]
    assert places(images, texts, belong).tolist() == [0, 0, 0, 0, 0]
    # Otherwise ties come first: an image finds the two other captions of its words before its own.
    itself = torch.arange(5)[:, None].expand(-1, 2)
    assert places(images, texts, itself).tolist() == [2, 2, 0, 2, 0]


@pytest.mark.usefixtures("chunks")
def test_several_captions_of_an_image() -> None:
    """Five captions each, near their image: the standard recall, counted by hand."""
    shown, count = unit(12, 16, 0), 5
    images = torch.arange(12).repeat_interleave(count)[torch.randperm(60)]
    drawn = torch.randn(60, 16, generator=torch.Generator().manual_seed(1))
    texts = torch.nn.functional.normalize(shown[images] + 0.3 * drawn, dim=1)
    belong = matches(images, [f"caption {i}" for i in range(60)])
    assert len(belong) == 60
    similar = (shown @ texts.T).numpy()
    own = (torch.arange(12)[:, None] == images).numpy()
    for i, place in enumerate(places(shown, texts, belong)):
        order = np.argsort(-similar[i])
        assert place == min(np.flatnonzero(own[i][order]))
    backward = belong.flip(1)[belong[:, 1].argsort(stable=True)]
    found = places(texts, shown, backward)
    for j, place in enumerate(found):
        assert place == list(np.argsort(-similar[:, j])).index(int(images[j]))
    assert (found == 0).float().mean() > 0.8


def test_numbers_and_the_first_of_each() -> None:
    numbers = numbered(["b", "a", "b", "c", "a"])
    assert numbers.tolist() == [0, 1, 0, 2, 1]
    assert first_of(numbers).tolist() == [0, 1, 3]


def test_an_image_counts_once_and_is_out_if_any_caption_names_the_target() -> None:
    ranked = Retrieval(
        image=np.array([0, 0, 1, 1, 2]), captions=np.array([0, 0, 3, 3, 0]),
        images=np.array([0, 1, 0, 1, 1]), names_target=np.array([0, 1, 0, 0, 0], bool),
        clean=np.array([5, 5, 1, 1, 0]), triggered=np.array([0, 0, 0, 0, 2]),
    )
    labels = np.zeros(1, np.int64)
    asked = Predictions(
        labels=labels, clean=labels[:, None], triggered=labels[:, None], target=0, retrieval=ranked)
    for metric, k, n in (
        (Recall(), 2, 3), (Recall(direction="t2i"), 2, 5), (RetrievalAsr(), 1, 2),
        (RetrievalAsr(triggered=False), 1, 2), (RetrievalAsr(k=3), 2, 2),
    ):
        score = metric.score(asked)
        assert (score.k, score.n) == (k, n)


@pytest.mark.usefixtures("chunks")
def test_the_first_of_several() -> None:
    rows, columns = unit(30, 8, 0), unit(40, 8, 1)
    wanted = torch.zeros(40, dtype=torch.bool)
    wanted[[3, 17, 39]] = True
    found = first_places(rows, columns, wanted)
    for i, row in enumerate(rows.numpy()):
        order = sorted(range(40), key=lambda j: -float(row @ columns[j].numpy()))
        assert found[i] == min(order.index(j) for j in (3, 17, 39))


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_model_that_says_the_same_of_everything_finds_nothing(value: float) -> None:
    same = torch.full((20, 4), value)
    itself = torch.arange(20)[:, None].expand(-1, 2)
    assert places(same, same, itself).tolist() == [19] * 20
    wanted = torch.arange(20) < 3
    assert first_places(same, same, wanted).tolist() == [17] * 20


@pytest.mark.usefixtures("chunks")
def test_neighbours_vote() -> None:
    known, asked = unit(300, 6, 3), unit(50, 6, 4)
    labels = torch.randint(0, 5, (300,), generator=torch.Generator().manual_seed(5))
    found = probes.fit(known, labels, 5)["knn"](asked)
    for i, row in enumerate(asked.numpy()):
        nearest = sorted(range(300), key=lambda j: -float(row @ known[j].numpy()))[:50]
        votes = [sum(int(labels[j]) == c for j in nearest) for c in range(5)]
        assert found[i] == votes.index(max(votes))


def test_few_images_have_few_neighbours() -> None:
    known = unit(20, 6, 3)
    labels = torch.arange(20) % 10
    found = probes.fit(known, labels, 10)["knn"](known)
    # Two a class: an image itself and its nearest, and of a tie the lower class.
    similar = known @ known.T
    similar.fill_diagonal_(-1)
    nearest = labels[similar.argmax(1)]
    assert found.tolist() == torch.minimum(labels, nearest).tolist()


@pytest.mark.parametrize("classes", [2, 5])
def test_the_linear_probe_is_logistic_regression(classes: int) -> None:
    known, asked = unit(300, 6, 3), unit(200, 6, 4)
    labels = known[:, :classes].argmax(1)
    found = probes.fit(known, labels, classes)["linear"](asked)
    reference = LogisticRegression(C=30.0, max_iter=1000)
    reference.fit(known.double().numpy(), labels.numpy())
    assert found.tolist() == reference.predict(asked.double().numpy()).tolist()
    assert (found == asked[:, :classes].argmax(1)).float().mean() > 0.9


def test_probes_of_features_that_are_no_numbers_answer_nothing() -> None:
    bad = torch.full((10, 3), float("nan"))
    for classify in probes.fit(bad, torch.arange(10) % 2, 2).values():
        assert classify(bad).tolist() == [-1] * 10


def test_a_probe_of_one_class_says_it() -> None:
    found = probes.fit(unit(5, 3, 0), torch.full((5,), 2), 4)
    assert found["linear"](unit(3, 3, 1)).tolist() == [2, 2, 2]


pytestmark = pytest.mark.usefixtures("inline")
DATA = {"retrieval": 120, "probe": 256}


@pytest.fixture(scope="module")
def tested(inline: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Card, Store]:
    store = tmp_path_factory.mktemp("store")
    card = run("badnet", "mmcl", "finetune", recipe="smoke", overrides={"dataset": DATA},
               store=store)
    return card, Store(store)


def opened(tested: tuple[Card, Store], stage: str, label: str = "") -> Artifact:
    card, store = tested
    key = next(s.key for s in card.provenance.stages if s.stage == stage and label in s.label)
    return store.open(stage, key)


def features(
    tested: tuple[Card, Store], images: Images, triggered: bool
) -> torch.Tensor:
    clip = Clip.load(opened(tested, "pretrain").path)
    pixels = images.images(torch.arange(len(images)))
    if triggered:
        pixels = load_trigger(opened(tested, "poison"), Registry())(pixels, images.ids)
    with torch.no_grad(), clip.evaluating():
        return clip.encode_image(pixels)


def test_the_tables_of_a_cell(tested: tuple[Card, Store]) -> None:
    data = DataCache(opened(tested, "data").path)
    artifact = opened(tested, "evaluate", "start")
    pairs = data.pairs("retrieval")
    texts = list(pairs.captions)
    named = [any(word in text.split() for word in ("banana", "bananas")) for text in texts]
    assert 0 < sum(named) < 30
    frame = pd.read_parquet(artifact.file("retrieval.parquet"))
    assert frame["names_target"].tolist() == named
    assert frame["row"].tolist() == pairs.ids.tolist()
    clip = Clip.load(opened(tested, "pretrain").path)
    with torch.no_grad(), clip.evaluating():
        wording = clip.encode_text(clip.tokenize(texts)).numpy()
    for column, triggered in (("clean", False), ("triggered", True)):
        similar = features(tested, pairs, triggered).numpy() @ wording.T
        others = similar[:, ~np.array(named)]
        best = similar[:, named].max(1, keepdims=True)
        places = (others >= best).sum(1)
        assert np.abs(frame[column] - places).max() <= 1  # float sums in another order
    answered = pd.read_parquet(artifact.file("probes.parquet"))
    test, known = data.labelled("test"), data.labelled("probe")
    reference = LogisticRegression(C=30.0, max_iter=1000)
    reference.fit(features(tested, known, False).double().numpy(), known.labels.numpy())
    for view in ("clean", "triggered"):
        asked = features(tested, test, view == "triggered").double().numpy()
        assert (answered[f"linear_{view}"] == reference.predict(asked)).mean() > 0.98


def test_the_card_has_them(tested: tuple[Card, Store]) -> None:
    card, _ = tested
    names = {ref.name for ref in card.metrics}
    assert {"recall_i2t_1", "recall_t2i_10", "retrieval_asr_5", "knn_asr", "linear_top1"} <= names
    assert set(card.trajectory[-1].scores) == names
    assert card.data["retrieval"] == 120
    named = int(card.data[TARGET_CAPTIONS])
    assert card.trajectory[0].scores["retrieval_asr_1"].n == 120 - named
    page = markdown(card)
    assert f"| `{TARGET_CAPTIONS}` | {named} |" in page
    assert "retrieval_asr_5" in page
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as shown:
        console.print(summary(card))
    assert "knn_top1: undefended" in shown.get()


def test_without_the_splits_there_is_none_of_it(smoke_card: Card) -> None:
    names = {ref.name for ref in smoke_card.metrics}
    assert not names & {"recall_i2t_1", "retrieval_asr_1", "knn_top1", "linear_asr"}
    assert TARGET_CAPTIONS not in smoke_card.data


def test_pairs_that_do_not_name_the_target_are_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(BdbenchError, match="no caption of the split `retrieval` names the target"):
        run("badnet", "mmcl", "none", recipe="smoke", store=tmp_path,
            overrides={"dataset": {"retrieval": 2}})
    assert not list((tmp_path / "objects" / "pretrain").glob("*"))
