"""Pairs and labelled images in batches, the poisoned view, row-addressed randomness, the cache."""

from bdbench.data.cache import DataCache, write
from bdbench.data.pairs import Images, Labelled, Pairs, PoisonedPairs, Trigger
from bdbench.data.randomness import RowRng

__all__ = [
    "DataCache", "Images", "Labelled", "Pairs", "PoisonedPairs", "RowRng", "Trigger", "write",
]
