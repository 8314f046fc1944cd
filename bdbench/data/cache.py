"""The pixel cache: a dataset decoded once, at the recipe's resolution, read by memory map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError

from bdbench.api import SPLITS, Dataset, Split
from bdbench.data.pairs import Labelled, Pairs
from bdbench.errors import BdbenchError
from bdbench.schema import Strict

_INDEX = pa.schema([
    ("row", pa.int64()), ("split", pa.string()), ("caption", pa.string()), ("label", pa.int32()),
])


class DataFile(Strict):
    """`data.json`: what a test on the dataset needs besides its rows."""

    resolution: int
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    sizes: dict[str, int]
    """Rows by split; the pixels lie in this order."""
    facts: dict[str, float]


def write(dataset: Dataset, resolution: int, seed: int, folder: Path) -> DataFile:
    """Store all splits as `pixels.bin`, `index.parquet` and `data.json`.

    Raises BdbenchError when the dataset breaks its contract.
    """
    classes, sizes, seen = dataset.classes(), dict[str, int](), set[int]()
    with (
        (folder / "pixels.bin").open("wb") as pixels,
        pq.ParquetWriter(folder / "index.parquet", _INDEX, compression="zstd") as index,
    ):
        for split in SPLITS:
            sizes[split] = 0
            for rows in dataset.rows(split, resolution, seed):
                shape = (len(rows.ids), 3, resolution, resolution)
                if rows.images.shape != shape or rows.images.dtype != np.uint8:
                    raise BdbenchError(
                        f"`{split}` images are `{rows.images.dtype}{list(rows.images.shape)}`,"
                        f" not `uint8{list(shape)}`", "see `bdbench.api.Rows`",
                    )
                if rows.labels.max(initial=-1) >= len(classes):
                    raise BdbenchError(
                        f"`{split}` has the label `{rows.labels.max()}` but only"
                        f" `{len(classes)}` classes", "see `bdbench.api.Rows`",
                    )
                before = len(seen)
                seen.update(rows.ids.tolist())
                if len(seen) != before + len(rows.ids):
                    raise BdbenchError(
                        f"row ids of `{split}` occur twice", "see `bdbench.api.Rows`"
                    )
                pixels.write(np.ascontiguousarray(rows.images).tobytes())
                index.write_table(pa.table(
                    {"row": rows.ids, "split": [split] * len(rows.ids), "caption": rows.captions,
                     "label": rows.labels.astype(np.int32)}, schema=_INDEX,
                ))
                sizes[split] += len(rows.ids)
    file = DataFile(
        resolution=resolution, classes=tuple(classes), templates=tuple(dataset.templates()),
        sizes=sizes, facts=dataset.facts(seed),
    )
    (folder / "data.json").write_text(file.model_dump_json(), encoding="utf-8")
    return file


class DataCache:
    """What `write` stored."""

    def __init__(self, folder: Path) -> None:
        try:
            self.file = DataFile.model_validate_json((folder / "data.json").read_bytes())
        except ValidationError as error:
            raise BdbenchError(f"`{folder / 'data.json'}` does not describe a dataset") from error
        self._index = pq.read_table(folder / "index.parquet")
        side = self.file.resolution
        count = sum(self.file.sizes.values())
        # Copy-on-write: torch warns about read-only memory, and nothing here writes to it.
        pixels = np.memmap(folder / "pixels.bin", np.uint8, mode="c", shape=(count, 3, side, side))
        self._pixels = torch.from_numpy(pixels)

    def _rows(self, split: Split) -> slice:
        start = 0
        for name in SPLITS:
            if name == split:
                break
            start += self.file.sizes[name]
        return slice(start, start + self.file.sizes[split])

    def _column(self, name: str, rows: slice) -> pa.ChunkedArray:
        return self._index[name].slice(rows.start, rows.stop - rows.start)

    def _ids(self, rows: slice) -> torch.Tensor:
        return torch.from_numpy(self._column("row", rows).to_numpy().copy())

    def pairs(self, split: Split, limit: int | None = None) -> Pairs:
        """The first `limit` image-caption pairs of a split, or all."""
        rows = self._rows(split)
        if limit is not None:
            if limit > rows.stop - rows.start:
                raise BdbenchError(
                    f"`{limit}` pairs asked of `{split}`, which has `{rows.stop - rows.start}`",
                    f"--set recipe.budget.pairs={rows.stop - rows.start}",
                )
            rows = slice(rows.start, rows.start + limit)
        captions = self._column("caption", rows).to_pylist()
        return Pairs(self._ids(rows), self._pixels[rows], captions)

    def labelled(self, split: Split) -> Labelled:
        """A split as labelled images."""
        rows = self._rows(split)
        labels = torch.from_numpy(self._column("label", rows).to_numpy().astype(np.int64))
        return Labelled(
            self._ids(rows), self._pixels[rows], labels, self.file.classes, self.file.templates
        )


