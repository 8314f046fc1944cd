from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bdbench.augment import text_views
from bdbench.augment.text import FUNCTION_WORDS, letters
from bdbench.schema import Augment

WORDS = st.lists(st.sampled_from(["a", "red", "dog", "on", "the", "mat"]), max_size=30)


def views(captions, seed=0, **augment):
    return list(text_views(captions, Augment(**augment), np.random.default_rng(seed)))


@given(
    captions=st.lists(WORDS.map(" ".join), max_size=8),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    synonyms=st.sampled_from([None, False]),
)
def test_views_keep_order_and_invent_no_word(captions, share, seed, synonyms):
    found = views(captions, seed, text=share, synonyms=synonyms)
    assert found == views(captions, seed, text=share, synonyms=synonyms)
    assert len(found) == len(captions)
    for caption, view in zip(captions, found, strict=True):
        before, after = caption.split(), view.split()
        assert set(after) <= set(before)
        assert bool(after) == bool(before)
        if len(before) < 2:
            assert view == caption
        times = max(1, math.floor(share * len(before)))
        grown = len(after) - len(before)
        if grown > 0:
            assert grown == times
            assert Counter(before) <= Counter(after)
        elif grown == 0:
            assert Counter(before) == Counter(after)
            assert sum(x != y for x, y in zip(before, after, strict=True)) <= 2 * times
        else:
            rest = iter(before)
            assert all(word in rest for word in after)


def test_each_operation_is_as_frequent_as_the_others():
    caption = " ".join(map(str, range(20)))
    found = views([caption] * 3000)
    lengths = Counter(len(view.split()) for view in found)
    inserted = lengths[22]
    deleted = sum(count for length, count in lengths.items() if length < 20)
    swapped = sum(len(view.split()) == 20 and view != caption for view in found)
    assert inserted == pytest.approx(1000, abs=110)
    assert deleted == pytest.approx(1000 * (1 - 0.9**20), abs=110)
    assert swapped == pytest.approx(1000, abs=110)
    assert max(lengths) == 22


@pytest.mark.parametrize("synonyms", [None, False, True])
def test_odd_captions_come_back_as_they_are(synonyms, few_words):
    captions = ["", " ", "Dog", "  Banana! ", "\t", "12 34", "犬 と 猫", "DOG 7", "..."]
    kept = captions if synonyms is not None else [c for c in captions if len(c.split()) < 2]
    assert views(kept * 20, text=0.5, synonyms=synonyms) == kept * 20
    assert views(["Two words"] * 9, text=0.0, synonyms=synonyms) == ["Two words"] * 9


def test_deletion_of_everything_leaves_one_word():
    assert {len(view.split()) for view in views(["a b c"] * 60, text=1.0)} == {1, 3, 6}


def test_views_are_made_as_they_are_asked_for():
    class Captions(list):
        def __iter__(self):
            yield "one caption"
            raise AssertionError("read ahead")

    assert next(text_views(Captions("ab"), Augment(), np.random.default_rng(0)))


def test_published_views_have_lower_case_letters_alone():
    assert letters("A well-kept DOG's 2 mats, né!") == "a well kept dogs  mats n"
    found = views(["A well-kept DOG's 2 mats!"] * 50, synonyms=False)
    assert set(" ".join(found).split()) == {"a", "well", "kept", "dogs", "mats"}


def test_an_unchanged_setting_gives_the_views_it_always_gave():
    """What is in the store was made with these."""
    captions = ["a red kite near the sea", "two dogs on a mat", "a photo of a banana in a bowl"] * 2
    assert views(captions, 7) == EXPECTED


EXPECTED = [
    "a red near the sea",
    "two mat dogs on a mat",
    "a photo of a banana in a bowl",
    "a red kite sea",
    "two dogs on a mat mat",
    "a photo of a banana a bowl",
]

REPLACED = {"dog": {"domestic dog", "canis familiaris", "cad"}, "car": {"motor car"},
            "red": {"crimson"}, "in": {"inch"}}
"""Synonyms of the small WordNet, as they stand in a view."""


def test_synonyms_replace_and_are_inserted(few_words):
    """Four operations, a quarter each; which of them a view shows is read off its words."""
    caption = "the red dog in the car xyzzy"
    words, n = caption.split(), 4000
    kinds = Counter()
    for view in views([caption] * n, synonyms=True):
        new = next(iter({s for found in REPLACED.values() for s in found if s in view}), None)
        if new is None:
            kinds["moved or deleted"] += 1
            continue
        source = next(word for word, found in REPLACED.items() if new in found)
        rest = view.replace(new, "*").split()
        if source in rest:
            kinds["inserted", source] += 1
            rest.remove("*")
            assert rest == words
        else:
            kinds["replaced", source] += 1
            assert rest == ["*" if word == source else word for word in words]
    assert kinds["moved or deleted"] == pytest.approx(n / 2, abs=150)
    for source in ("red", "dog", "car"):
        assert kinds["replaced", source] == pytest.approx(n / 12, abs=75)
    for source in REPLACED:
        assert kinds["inserted", source] == pytest.approx(n / 16, abs=65)
    assert ("replaced", "in") not in kinds


def test_as_many_words_are_replaced_as_the_share_says(few_words):
    caption = " ".join(["red", "dog", "car", *["the"] * 17])
    replaced = Counter()
    for view in views([caption] * 800, synonyms=True):
        for synonym in ("domestic dog", "canis familiaris", "motor car"):
            view = view.replace(synonym, "*")
        if len(words := view.split()) == 20:
            replaced[3 - sum(word in words for word in ("red", "dog", "car"))] += 1
    assert set(replaced) == {0, 2}
    assert replaced[2] == pytest.approx(200, abs=45)


def test_a_word_is_replaced_wherever_it_occurs(few_words):
    found = set(views(["red mat red"] * 200, synonyms=True))
    assert "crimson mat crimson" in found
    assert not found & {"crimson mat red", "red mat crimson"}


def test_captions_without_a_known_word_keep_their_words(few_words):
    assert {frozenset(view.split()) for view in views(["xyzzy plugh the"] * 200, synonyms=True)
            if len(view.split()) >= 3} == {frozenset(["xyzzy", "plugh", "the"])}
    assert {"a", "the", "of", "with"} <= FUNCTION_WORDS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(captions=st.lists(st.text(max_size=60), max_size=6), seed=st.integers(0, 2**32))
def test_any_text_has_a_view(captions, seed, few_words):
    for synonyms in (None, False, True):
        found = views(captions, seed, synonyms=synonyms)
        assert found == views(captions, seed, synonyms=synonyms)
        assert len(found) == len(captions)
        for caption, view in zip(captions, found, strict=True):
            assert bool(view.split()) == bool(caption.split())
