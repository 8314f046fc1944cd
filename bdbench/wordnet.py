"""WordNet through nltk, where its data is installed; nothing is ever downloaded."""

from __future__ import annotations

from functools import cache
from typing import Any

from bdbench.errors import BdbenchError

INSTALL = "`python -m nltk.downloader wordnet`"
"""The command that fetches the data, 10 MB."""


@cache
def _corpus() -> Any:
    """nltk's reader; None where the data is not installed."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet


def installed() -> bool:
    """Whether nltk finds the data."""
    return _corpus() is not None


def synonyms(word: str) -> set[str]:
    """The members of all synsets of a lower-case `word`, as WordNet writes them.

    They hold the word itself, and words of several parts, such as `fire_engine`; an inflected word
    is looked up by its base form. Raises BdbenchError where the data is not installed.
    """
    corpus = _corpus()
    if corpus is None:
        raise BdbenchError(
            "`recipe.augment.synonyms` is true, and nltk finds no WordNet on this machine", INSTALL
        )
    return {name for synset in corpus.synsets(word) for name in synset.lemma_names()}
