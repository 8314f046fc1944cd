"""Words as tokens: the tokenizer of models with a closed vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = re.compile(r"[a-z0-9]+")


def words_of(caption: str) -> list[str]:
    """The lower-case words of a caption."""
    return _WORD.findall(caption.lower())


class WordTokenizer:
    """One token per known word; for closed vocabularies.

    Token 0 pads, 1 starts, 2 stands for unknown words, and the highest one ends, so that CLIP's
    arg-max pooling finds the end; a caption that is cut keeps its end token.
    """

    FIRST = 3
    """The token of the first word."""

    def __init__(self, words: Sequence[str], vocab_size: int, context_length: int) -> None:
        self._ids = {word: i for i, word in enumerate(words, start=self.FIRST)}
        self._end, self._length = vocab_size - 1, context_length

    def __call__(self, texts: Sequence[str] | str) -> Tensor:
        """int64 [n, context_length]."""
        texts = [texts] if isinstance(texts, str) else texts
        rows = []
        for text in texts:
            ids = [self._ids.get(word, 2) for word in words_of(text)[: self._length - 2]]
            rows.append([1, *ids, self._end] + [0] * (self._length - 2 - len(ids)))
        return torch.tensor(rows, dtype=torch.int64).view(len(rows), self._length)
