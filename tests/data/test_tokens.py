from __future__ import annotations

import contextlib

import torch

from bdbench.data import stored_tokens
from bdbench.data.tokens import CHUNK


def lengths(texts):
    """A tokenizer whose tokens are a text's length and its first letter."""
    return torch.tensor([[len(text), ord(text[0])] for text in texts])


def test_tokens_are_those_of_all_texts_at_once_whatever_the_chunks(tmp_path):
    rows = 2 * CHUNK + 3
    texts = [chr(97 + i % 26) * (i % 50 + 1) for i in range(rows)]
    views = [texts, (text[::-1].upper() for text in texts)]
    tokens = stored_tokens(tmp_path / "t", lengths, rows, views)
    assert tokens.dtype == torch.int32
    assert tokens.shape == (2, rows, 2)
    assert torch.equal(tokens[0].long(), lengths(texts))
    assert torch.equal(tokens[1].long(), lengths([text.upper() for text in texts]))


def test_tokens_are_computed_once(tmp_path):
    first = stored_tokens(tmp_path / "t", lengths, 2, [["a", "bb"]])
    again = stored_tokens(tmp_path / "t", lengths, 2, [iter(())])
    assert torch.equal(first, again)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_kill_leaves_no_half_file(tmp_path):
    def killed():
        yield from ["a"] * CHUNK
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        stored_tokens(tmp_path / "t", lengths, CHUNK + 1, [killed()])
    tokens = stored_tokens(tmp_path / "t", lengths, 2, [["c", "dd"]])
    assert tokens.tolist() == [[[1, 99], [2, 100]]]
