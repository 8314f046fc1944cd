"""What the captions of `shapes` say, parsed by a grammar of their own."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from bdbench.datasets.shapes import (
    CLASSES,
    OPENINGS,
    PLACES,
    SYNONYMS,
    TEMPLATES,
    VAGUE,
    Shapes,
)
from bdbench.datasets.shapes_world import COLOURS, GROUNDS, TEXTURES
from bdbench.models import MODEL_CONFIGS
from bdbench.words import WordTokenizer

N = 20_000
RARE = 1e-4


def either(words):
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


NOUNS = {noun: (k, "noun") for k, noun in enumerate(CLASSES)}
NOUNS |= {SYNONYMS[noun]: (k, "synonym") for k, noun in enumerate(CLASSES)}
NOUNS[VAGUE] = (None, "vague")
PLACED = either(f"{before}{ground}{after}" for place in PLACES for ground in GROUNDS
                for before, after in [place.split("{}")])
GRAMMAR = re.compile(
    rf"(?P<opening>{either(OPENINGS)})"
    rf"(?: (?P<texture>{either(TEXTURES)}))?"
    rf"(?: (?P<colour>{either(COLOURS)}))?"
    rf" (?P<noun>{either(NOUNS)})"
    rf"(?: (?P<place>{PLACED}))?"
)


def told(**params):
    """Scenes and captions of a training split."""
    dataset = Shapes(train=N, budget=2, **params)
    return dataset._scenes("train", 0)


def parsed(captions):
    found = [GRAMMAR.fullmatch(caption) for caption in captions]
    assert all(found), next(c for c, f in zip(captions, found, strict=True) if not f)
    return [match.groupdict() for match in found]


def likely(k, n, p):
    return binomtest(int(k), int(n), p).pvalue > RARE


@pytest.mark.parametrize(
    ("synonyms", "vague", "attributes"), [(0.25, 0.1, 0.1), (0.5, 0.3, 0.6), (0, 0, 1), (1, 0, 0)]
)
def test_words_come_with_the_declared_probabilities(synonyms, vague, attributes):
    _, captions = told(
        synonyms=synonyms, vague=vague, attributes=attributes, mismatched=0, texture_link=0
    )
    parts = parsed(captions)
    kinds = Counter(NOUNS[part["noun"]][1] for part in parts)
    assert likely(kinds["vague"], N, vague)
    assert likely(kinds["synonym"], N - kinds["vague"], synonyms)
    assert likely(sum(part["colour"] is not None for part in parts), N, attributes)
    assert likely(sum(part["place"] is not None for part in parts), N, attributes / 2)
    # A plain object has no texture to tell, and one in four is plain.
    assert likely(sum(part["texture"] is not None for part in parts), N, attributes / 2 * 0.75)
    counts = Counter(part["opening"] for part in parts)
    assert chisquare([counts[opening] for opening in OPENINGS]).pvalue > RARE
    places = Counter(
        re.sub(either(GROUNDS), "{}", part["place"]) for part in parts if part["place"]
    )
    if places:
        assert chisquare([places[place] for place in PLACES]).pvalue > RARE


def test_a_matched_caption_tells_the_truth():
    scenes, captions = told(mismatched=0, attributes=1)
    colours, grounds = list(COLOURS), list(GROUNDS)
    for i, part in enumerate(parsed(captions)):
        assert NOUNS[part["noun"]][0] in (scenes.labels[i], None)
        assert part["colour"] == colours[scenes.colour[i]]
        assert part["texture"] in (TEXTURES[scenes.texture[i]], None)
        assert part["texture"] != "plain"
        if part["place"]:
            assert grounds[scenes.ground[i]] in part["place"].split()


@pytest.mark.parametrize("mismatched", [0.05, 0.4, 1])
def test_mismatched_captions_are_shuffled_among_each_other(mismatched):
    scenes, straight = told(mismatched=0)
    same, captions = told(mismatched=mismatched)
    assert same.labels.tolist() == scenes.labels.tolist()
    assert sorted(captions) == sorted(straight)
    moved = sum(a != b for a, b in zip(captions, straight, strict=True))
    # Two captions drawn at random are equal this often.
    equal = sum((count / N) ** 2 for count in Counter(captions).values())
    assert likely(moved, N, mismatched * (1 - equal))
    # Seen from outside: the noun is another class's.
    named = [(NOUNS[part["noun"]][0], k) for part, k in
             zip(parsed(captions), scenes.labels.tolist(), strict=True)]
    named = [(noun, k) for noun, k in named if noun is not None]
    shares = np.bincount(scenes.labels, minlength=32) / N
    wrong = sum(noun != k for noun, k in named)
    assert likely(wrong, len(named), mismatched * (1 - np.square(shares).sum()))


def test_every_caption_and_prompt_fits_the_vocabulary_and_the_context():
    config = json.loads((MODEL_CONFIGS / "bdbench-tiny.json").read_text())["text_cfg"]
    length = config["context_length"]
    texts = [
        " ".join(filter(None, parts)) for parts in product(
            OPENINGS, [None, *TEXTURES[1:]], [None, *COLOURS], [*NOUNS],
            [None, *(place.format("white") for place in PLACES)],
        )
    ]
    assert max(len(text.split()) for text in texts) == 14 == length - 2
    _, captions = told(attributes=1)
    assert max(len(caption.split()) for caption in captions) == 14
    prompts = [template.format(noun) for template in TEMPLATES for noun in CLASSES]
    # The target of a poisoned caption stands in the same templates.
    words = set(" ".join([*texts, *prompts, *GROUNDS]).split())
    # Padding, start, unknown and end.
    assert len(words) <= config["vocab_size"] - 4
    ranked = sorted(words)
    tokenize = WordTokenizer(ranked, config["vocab_size"], length)
    checked = [max(texts, key=lambda text: len(text.split())), *captions[:2000], *prompts]
    for text, tokens in zip(checked, tokenize(checked).tolist(), strict=True):
        assert tokens[0] == 1
        end = tokens.index(config["vocab_size"] - 1)
        assert " ".join(ranked[token - 3] for token in tokens[1:end]) == text
        assert not any(tokens[end + 1:])


def test_the_pairs_teach_every_noun_of_the_zero_shot_prompts():
    """Also from the 2,000 clean pairs of the budget."""
    for split, least in (("train", 80), ("budget", 10)):
        _, captions = Shapes()._scenes(split, 0)
        counts = Counter(word for caption in captions for word in caption.split())
        assert min(counts[noun] for noun in CLASSES) >= least


def test_every_word_of_a_prompt_stands_in_clean_captions():
    """Else a prompt could hold a word that only poisoned captions taught, beside the target."""
    shapes = Shapes()
    said = Counter(
        word for rows in shapes.rows("budget", 16, seed=0) for text in rows.captions
        for word in text.split()
    )
    prompts = {word for template in TEMPLATES for word in template.replace("{}", "").split()}
    assert all(said[word] >= 10 for word in prompts), {word: said[word] for word in prompts}
