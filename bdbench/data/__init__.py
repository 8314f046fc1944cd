"""Pairs and labelled images in batches, the poisoned view, row-addressed randomness, the cache."""

from bdbench.data.cache import DataCache, write
from bdbench.data.pairs import Images, Labelled, Pairs, PoisonedPairs, Trigger
from bdbench.data.randomness import RowRng
from bdbench.data.tokens import stored_tokens

__all__ = [
    "DataCache", "Images", "Labelled", "Pairs", "PoisonedPairs", "RowRng", "Trigger",
    "stored_tokens", "write",
]
