"""A WordNet of a few words, in the files that nltk reads."""

from __future__ import annotations

from collections import defaultdict

import nltk
import pytest
from nltk.corpus import CorpusReader
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from bdbench import wordnet
from bdbench.augment import text

SYNSETS = {
    "noun": [["dog", "domestic_dog", "Canis_familiaris"], ["dog", "cad"], ["goose"],
             ["car", "motor-car"], ["in", "inch"], ["km2", "km2"]],
    "verb": [["ride", "mount"]], "adj": [["red", "crimson"]], "adv": [],
}
SIGNS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def write(folder):
    folder.mkdir(parents=True)
    for kind, synsets in SYNSETS.items():
        data, places = "  1 WordNet 3.0 Copyright\n", defaultdict(list)
        for words in synsets:
            for word in dict.fromkeys(words):
                places[word.lower()].append(f"{len(data):08d}")
            members = " ".join(f"{word} 0" for word in words)
            data += f"{len(data):08d} 00 {SIGNS[kind]} {len(words):02x} {members} 000 | gloss\n"
        index = "".join(f"{word} {SIGNS[kind]} {len(found)} 0 {len(found)} 0 {' '.join(found)}\n"
                        for word, found in places.items())
        (folder / f"data.{kind}").write_text(data)
        (folder / f"index.{kind}").write_text(index)
        (folder / f"{kind}.exc").write_text("geese goose\n" if kind == "noun" else "")
    (folder / "lexnames").write_text("00\tall\t1\n")
    (folder / "index.sense").write_text("")


def forget():
    wordnet._corpus.cache_clear()
    text._synonyms.cache_clear()


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """nltk without data; returns the folder in which it looks."""
    multilingual = LazyCorpusLoader("omw-1.4", CorpusReader, "x")
    fresh = LazyCorpusLoader("wordnet", WordNetCorpusReader, multilingual)
    monkeypatch.setattr(nltk.corpus, "wordnet", fresh)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    forget()
    yield tmp_path / "nltk_data"
    forget()


@pytest.fixture
def few_words(nothing):
    """nltk with a WordNet of the words above."""
    write(nothing / "corpora" / "wordnet")
