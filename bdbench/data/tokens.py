"""Tokens of captions: computed once, in chunks, and read by memory map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bdbench.files import settle

CHUNK = 8192
"""Captions that are in memory as tokens at a time."""


def stored_tokens(
    path: Path, tokenize: Callable[[Sequence[str]], Tensor], rows: int,
    views: Sequence[Iterable[str]],
) -> Tensor:
    """int32 [views, rows, context_length], mapped from the file `path`.

    Each of `views` gives `rows` texts, and is read only where the file is missing. `tokenize`:
    texts to an integer [n, context_length].
    """
    if not path.exists():
        aside = path.with_name(f"{path.name}.new")
        with aside.open("wb") as file:
            for view in views:
                texts = iter(view)
                while chunk := list(islice(texts, CHUNK)):
                    tokenize(chunk).to(torch.int32).numpy().tofile(file)
        settle(aside, path)
    # Copy-on-write: torch warns about read-only memory, and nothing here writes to it.
    tokens = torch.from_numpy(np.memmap(path, np.int32, mode="c"))
    return tokens.view(len(views), rows, -1)
