"""What is in the pairs and images of `shapes`, and the oracle that sees no shape."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binomtest, chi2_contingency, chisquare

from bdbench.api import SPLITS
from bdbench.datasets import shapes
from bdbench.datasets.shapes import Shapes
from bdbench.datasets.shapes_world import COLOURS, GROUNDS, TEXTURES

SMALL = Shapes(train=1300, budget=700, validation=64, test=600)
ATTRIBUTES = {"colour": 12, "ground": 8, "texture": 4}
RARE = 1e-4
"""A correct law fails a test at a fixed seed this seldom."""

PRINT = """
import hashlib
from bdbench.datasets.shapes import Shapes
state = hashlib.sha256()
for split in ("train", "test"):
    for rows in Shapes(train=1300, budget=700, validation=64, test=600).rows(split, 32, 5):
        state.update(rows.images.tobytes() + "|".join(rows.captions).encode())
        state.update(rows.labels.tobytes() + rows.ids.tobytes())
print(state.hexdigest())
"""


def whole(dataset, split, resolution=16, seed=0):
    """Ids, images, captions and labels of a split in one piece."""
    chunks = list(dataset.rows(split, resolution, seed))
    return (
        np.concatenate([rows.ids for rows in chunks]),
        np.concatenate([rows.images for rows in chunks]),
        [caption for rows in chunks for caption in rows.captions],
        np.concatenate([rows.labels for rows in chunks]),
    )


def scenes_of(n, split="train", seed=0, **params):
    return Shapes(**{"train": 2, "budget": 2, split: n, **params})._scenes(split, seed)[0]


def likely(k, n, p):
    return binomtest(int(k), int(n), p).pvalue > RARE


@pytest.fixture(scope="module")
def liked():
    """The favourites of each class as a large linked split shows them, by attribute."""
    scenes = scenes_of(40_000, colour_link=0.5, ground_link=0.5, texture_link=0.5, tail=0)
    return {
        name: [
            int(np.bincount(getattr(scenes, name)[scenes.labels == k]).argmax()) for k in range(32)
        ]
        for name in ATTRIBUTES
    }


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    words = [
        subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True, check=True,
                       env={**os.environ, "PYTHONHASHSEED": seed}).stdout.strip()
        for seed in ("1", "2")
    ]
    state = hashlib.sha256()
    for split in ("train", "test"):
        for rows in SMALL.rows(split, 32, 5):
            state.update(rows.images.tobytes() + "|".join(rows.captions).encode())
            state.update(rows.labels.tobytes() + rows.ids.tobytes())
    assert words == [state.hexdigest()] * 2


def test_version_1_of_the_data_stays_as_it_is():
    """Pixels are compared with a tolerance: sine and cosine may differ between processors."""
    state = hashlib.sha256()
    for split in SPLITS:
        ids, images, captions, labels = whole(Shapes(), split, 8)
        state.update(json.dumps([ids.tolist(), captions, labels.tolist()]).encode())
        if split == "test":
            pixels = images[[0, 100, 1000, 2047], :, 3, 4]
    why = "raise `version` in registry/datasets/shapes.toml: the data of old keys cannot be made"
    assert state.hexdigest()[:16] == "51da10918a274ec7", why
    known = np.array([[25, 151, 41], [51, 10, 17], [0, 106, 138], [105, 14, 25]])
    assert np.abs(known - pixels).max() <= 2, why


@pytest.mark.parametrize("split", SPLITS)
def test_another_seed_gives_other_data(split):
    ids, images, captions, labels = whole(SMALL, split)
    ids2, images2, captions2, labels2 = whole(SMALL, split, seed=1)
    assert ids.tolist() == ids2.tolist()
    assert (images != images2).any((1, 2, 3)).all()
    assert (labels == labels2).mean() < 0.3
    if split in ("train", "budget"):
        same = np.mean([a == b for a, b in zip(captions, captions2, strict=True)])
        assert same < 0.1
        assert all(captions)
    else:
        assert not any(captions)


def test_splits_share_no_id_no_image_and_no_scene():
    found = [whole(SMALL, split) for split in SPLITS]
    ids = np.concatenate([f[0] for f in found])
    assert len(set(ids.tolist())) == len(ids) == 1300 + 700 + 64 + 600
    images = [image.tobytes() for f in found for image in f[1]]
    assert len(set(images)) == len(images)
    same = {split: 500 for split in SPLITS}
    poses = [Shapes(**same)._scenes(split, 0)[0].pose for split in SPLITS]
    for one, other in itertools.combinations(poses, 2):
        assert not (one == other).all(1).any()
        correlation = [np.corrcoef(one[:, i], other[:, i])[0, 1] for i in range(5)]
        assert np.abs(correlation).max() < 4.5 / 500**0.5


@pytest.mark.parametrize(("small", "large"), [(32, 64), (24, 96), (64, 192)])
def test_a_row_shows_the_same_scene_at_any_resolution(small, large):
    """Averaged down, the large image is the small one; no other row's is."""
    dataset = Shapes(train=40, budget=2, validation=1, test=1, noise=0)
    _, low, captions, labels = whole(dataset, "train", small)
    _, high, captions2, labels2 = whole(dataset, "train", large)
    assert captions == captions2
    assert labels.tolist() == labels2.tolist()
    f = large // small
    down = high.reshape(40, 3, small, f, small, f).mean((3, 5))
    apart = np.abs(down[:, None] - low[None].astype(float)).mean((2, 3, 4))
    assert apart.diagonal().max() < 5
    assert apart[~np.eye(40, dtype=bool)].min() > 15


def test_chunks_are_parts_of_one_list_and_each_draws_its_own_noise(monkeypatch):
    sizes = [len(rows.ids) for rows in SMALL.rows("train", 16, 0)]
    assert sizes == [512, 512, 276]
    ids, images, captions, labels = whole(SMALL, "train")
    assert ids.tolist() == list(range(1300))
    monkeypatch.setattr(shapes, "_CHUNK", 100)
    other = whole(SMALL, "train")
    assert other[0].tolist() == ids.tolist()
    assert other[2] == captions
    assert other[3].tolist() == labels.tolist()
    assert (other[1][:100] != images[:100]).any()
    assert (other[1][100:] != images[100:]).any((1, 2, 3)).all()
    # The scenes are the same ones: what differs is the noise and the shade of colours.
    apart = np.abs(other[1].astype(float) - images).mean((1, 2, 3))
    mixed = np.abs(np.roll(other[1], 1, 0).astype(float) - images).mean((1, 2, 3))
    assert np.median(apart) < 0.5 * np.median(mixed)


@pytest.mark.parametrize("tail", [0, 0.6, 1.5])
def test_classes_follow_the_long_tail(tail):
    counts = np.bincount(scenes_of(20_000, tail=tail).labels, minlength=32)
    weights = np.array([(k + 4) ** -float(tail) for k in range(32)])
    assert chisquare(counts, 20_000 * weights / weights.sum()).pvalue > RARE
    other = np.array([(k + 4) ** -(tail + 0.2) for k in range(32)])
    assert chisquare(counts, 20_000 * other / other.sum()).pvalue < 1e-9


def test_the_target_banana_is_rare():
    dataset = Shapes()
    label = dataset.classes().index("banana")
    assert label + 1 == 28
    share = 31**-0.6 / sum((k + 4) ** -0.6 for k in range(32))
    assert round(share, 3) == 0.020
    *_, captions, labels = whole(dataset, "train", 8)
    assert likely((labels == label).sum(), 12_000, share)
    # Named by its noun: what a label-consistent attack can poison.
    named = sum("banana" in caption.split() for caption in captions)
    assert likely(named, 12_000, share * 0.9 * 0.75)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("n", [1, 31, 1000, 2048])
def test_labelled_splits_are_balanced(split, n):
    counts = np.bincount(scenes_of(n, split).labels, minlength=32)
    assert len(counts) == 32
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("split", SPLITS)
def test_attributes_are_linked_to_the_class_in_the_pairs_only(split):
    scenes = scenes_of(16_000, split)
    for name, size in ATTRIBUTES.items():
        table = np.zeros((32, size))
        np.add.at(table, (scenes.labels, getattr(scenes, name)), 1)
        pvalue = chi2_contingency(table).pvalue
        if split in ("train", "budget"):
            assert pvalue < 1e-50
        else:
            assert pvalue > RARE
            assert chisquare(table.sum(0)).pvalue > RARE


@pytest.mark.parametrize("links", [(0.3, 0.2, 0.3), (0.8, 0, 0.5)])
def test_favourites_come_with_the_declared_probability(links, liked):
    scenes = scenes_of(20_000, colour_link=links[0], ground_link=links[1], texture_link=links[2])
    for (name, size), link in zip(ATTRIBUTES.items(), links, strict=True):
        got = getattr(scenes, name)
        hit = got == np.array(liked[name])[scenes.labels]
        assert likely(hit.sum(), 20_000, link + (1 - link) / size), name
        # The others are equally likely: by how far each lies beyond the favourite.
        beyond = (got - np.array(liked[name])[scenes.labels])[~hit] % size
        assert chisquare(np.bincount(beyond, minlength=size)[1:]).pvalue > RARE, name


def test_what_the_captions_tell_of_the_ground_is_what_the_pixels_show():
    dataset = Shapes(train=3000, budget=2, noise=0, clutter=0, attributes=1, mismatched=0)
    _, images, captions, _ = whole(dataset, "train")
    grounds = np.array(list(GROUNDS.values())) * 255
    right = []
    for image, caption in zip(images, captions, strict=True):
        told = [i for i, name in enumerate(GROUNDS) if name in caption.split()]
        if told:
            corners = image[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(1)
            right.append(np.square(grounds - corners).sum(1).argmin() == told[0])
    assert likely(len(right), 3000, 0.5)
    assert np.mean(right) > 0.85


def brute_force(liked, links):
    """For every (colour, ground, texture): P(it | class) for each class, and the best classes."""
    law, best = {}, {}
    for seen in itertools.product(*map(range, ATTRIBUTES.values())):
        law[seen] = []
        for k in range(32):
            p = 1.0
            for (name, size), link, value in zip(ATTRIBUTES.items(), links, seen, strict=True):
                p *= (1 - link) / size + (link if liked[name][k] == value else 0)
            law[seen].append(p)
        top = max(law[seen])
        best[seen] = [k for k in range(32) if law[seen][k] >= top * (1 - 1e-9)]
    return law, best


LINKS = [(0.3, 0.2, 0.3), (0, 0, 0), (0.9, 0, 0), (0.6, 0.4, 0.6), (1, 1, 1)]


@pytest.mark.parametrize("links", LINKS)
def test_the_shape_blind_oracle_agrees_with_a_loop_over_all_that_can_be_seen(links, liked):
    law, best = brute_force(liked, links)
    named = {"colour_link": links[0], "ground_link": links[1], "texture_link": links[2]}
    facts = Shapes(**named).facts(3)
    assert facts["chance"] == 1 / 32
    scenes = scenes_of(2048, "test", 3)
    right = 0.0
    for k, *seen in zip(scenes.labels, scenes.colour, scenes.ground, scenes.texture, strict=True):
        answers = best[tuple(map(int, seen))]
        right += (k in answers) / len(answers)
    assert facts["shape_blind_oracle"] == pytest.approx(right / 2048, abs=1e-12)
    linked = sum(
        law[seen][k] / 32 / len(answers) for seen, answers in best.items() for k in answers
    )
    assert facts["shape_blind_oracle_linked"] == pytest.approx(linked, abs=1e-12)


def test_the_shape_blind_oracle_agrees_with_a_simulation(liked):
    links = (0.3, 0.2, 0.3)
    _, best = brute_force(liked, links)
    dice, n, right = random.Random(0), 40_000, 0
    for _ in range(n):
        k = dice.randrange(32)
        seen = tuple(
            liked[name][k] if dice.random() < link else dice.randrange(size)
            for (name, size), link in zip(ATTRIBUTES.items(), links, strict=True)
        )
        right += dice.choice(best[seen]) == k
    assert likely(right, n, Shapes().facts(0)["shape_blind_oracle_linked"])
    assert not likely(right, n, Shapes().facts(0)["shape_blind_oracle_linked"] + 0.02)


@pytest.mark.parametrize("seed", range(5))
def test_what_shortcuts_alone_reach_on_the_test_is_near_chance(seed):
    facts = Shapes().facts(seed)
    assert 0.01 < facts["shape_blind_oracle"] < 0.06
    assert 0.15 < facts["shape_blind_oracle_linked"] < 0.30
    # No cheaper way in: counts of the training split in place of its law.
    train, test = (scenes_of(n, split, seed) for n, split in ((12_000, "train"), (2048, "test")))
    score = np.zeros((2048, 32))
    for name, size in ATTRIBUTES.items():
        counts = np.ones((32, size))
        np.add.at(counts, (train.labels, getattr(train, name)), 1)
        score += np.log(counts / counts.sum(1, keepdims=True))[:, getattr(test, name)].T
    assert (score.argmax(1) == test.labels).mean() < 0.06


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"train": 1}, "greater than or equal to 2"),
        ({"budget": 0}, "greater than or equal to 2"),
        ({"validation": 0}, "greater than or equal to 1"),
        ({"test": 10**8}, "less than or equal to 10000000"),
        ({"train": 100.5}, "valid integer"),
        ({"tail": -0.1}, "greater than or equal to 0"),
        ({"tail": 3.1}, "less than or equal to 3"),
        ({"tail": float("nan")}, "finite number"),
        ({"colour_link": 1.01}, "less than or equal to 1"),
        ({"ground_link": -0.01}, "greater than or equal to 0"),
        ({"texture_link": "high"}, "valid number"),
        ({"noise": 2}, "less than or equal to 1"),
        ({"clutter": -1}, "greater than or equal to 0"),
        ({"synonyms": 1.5}, "less than or equal to 1"),
        ({"vague": -1}, "greater than or equal to 0"),
        ({"mismatched": 5}, "less than or equal to 1"),
        ({"attributes": 5}, "less than or equal to 1"),
        ({"hard": 0.4}, "Extra inputs are not permitted"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValidationError, match=message) as caught:
        Shapes(**params)
    (error,) = caught.value.errors()
    assert error["loc"] == tuple(params)


def test_the_names_are_distinct():
    names = [*shapes.CLASSES, *shapes.SYNONYMS.values(), *COLOURS, *GROUNDS, *TEXTURES, "thing"]
    assert not [name for name, count in Counter(names).items() if count > 1]
    assert list(shapes.SYNONYMS) == Shapes().classes() == list(shapes.CLASSES)
    assert len(shapes.CLASSES) == 32
    assert len(set(shapes.TEMPLATES)) == len(shapes.TEMPLATES) == 12
    assert all(template.count("{}") == 1 for template in Shapes().templates())
    assert len(set(shapes.OPENINGS)) == len(shapes.OPENINGS)
