"""Augmented views of captions: EDA (Wei and Zou 2019, 1901.11196)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from bdbench import wordnet
from bdbench.schema import Augment

_FUNCTION_WORDS = (
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she"
    " her hers herself it its itself they them their theirs themselves what which who whom this"
    " that these those am is are was were be been being have has had having do does did doing a an"
    " the and but if or because as until while of at by for with about against between into through"
    " during before after above below to from up down in out on off over under again further then"
    " once here there when where why how all any both each few more most other some such no nor not"
    " only own same so than too very s t can will just don should now"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that no synonym replaces."""
_NO_LETTER = re.compile(r"[^a-z\s]")


def text_views(
    captions: Sequence[str], augment: Augment, rng: np.random.Generator
) -> Iterator[str]:
    """One augmented view of each caption, in the same order, made as it is asked for.

    One operation, drawn uniformly for each caption: swap two words; insert a word at a random
    place; delete each word with probability `augment.text`; with synonyms also: replace a word,
    wherever it occurs, by a synonym. Swap, insertion and replacement are done
    max(1, floor(`augment.text` * words)) times. What is inserted is a synonym of a word of the
    caption, or without synonyms one of its words.

    Where `augment.synonyms` is set, views are of lower-case letters alone, as published. Captions
    of fewer than two words come back as they are, and all do where `augment.text` is 0.
    """
    if augment.text == 0:
        yield from captions
        return
    operations = rng.integers(4 if augment.synonyms else 3, size=len(captions)).astype(np.int8)
    for caption, operation in zip(captions, operations, strict=True):
        text = caption if augment.synonyms is None else letters(caption)
        words = text.split()
        yield " ".join(_view(words, operation, augment, rng)) if len(words) > 1 else caption


def letters(text: str) -> str:
    """Lower case, hyphens as spaces, and of the rest letters alone, as EDA has it."""
    return _NO_LETTER.sub("", text.lower().replace("-", " "))


def _view(
    words: list[str], operation: int, augment: Augment, rng: np.random.Generator
) -> list[str]:
    times = max(1, int(augment.text * len(words)))
    if operation == 0:
        for _ in range(times):
            first, second = rng.choice(len(words), size=2, replace=False)
            words[first], words[second] = words[second], words[first]
    elif operation == 1:
        own = [word for word in words if not augment.synonyms or _synonyms(word)]
        for _ in range(times if own else 0):
            place, word = rng.integers(len(words) + 1), own[rng.integers(len(own))]
            words.insert(place, _synonym(word, rng) if augment.synonyms else word)
    elif operation == 2:
        survivor = words[rng.integers(len(words))]
        kept = rng.random(len(words)) >= augment.text
        words = [word for word, keep in zip(words, kept, strict=True) if keep] or [survivor]
    else:
        known = [word for word in dict.fromkeys(words)
                 if word not in FUNCTION_WORDS and _synonyms(word)]
        for i in rng.permutation(len(known))[:times]:
            synonym = _synonym(known[i], rng)
            words = [synonym if word == known[i] else word for word in words]
    return words


def _synonym(word: str, rng: np.random.Generator) -> str:
    found = _synonyms(word)
    return found[rng.integers(len(found))]


@lru_cache(maxsize=1 << 16)
def _synonyms(word: str) -> tuple[str, ...]:
    """In an order of their own: that of a set differs between processes."""
    names = {" ".join(letters(name.replace("_", " ")).split()) for name in wordnet.synonyms(word)}
    return tuple(sorted(names - {word, ""}))
