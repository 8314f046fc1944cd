"""The pixel cache: a dataset decoded once, at the recipe's resolution, read by memory map."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError

from bdbench.api import Dataset, Extra, Rows, Split
from bdbench.data.captions import Captions
from bdbench.data.pairs import Images, Labelled, Pairs
from bdbench.data.pixels import JpegPixels, Pixels
from bdbench.errors import BdbenchError
from bdbench.schema import Strict
from bdbench.store import RESUME

_INDEX = pa.schema([
    ("row", pa.int64()), ("split", pa.string()), ("caption", pa.string()), ("label", pa.int32()),
])
_BATCH = 2**20
"""Rows of the index that are decoded at a time; the more, the less memory is lost between them."""


class SetFile(Strict):
    """A labelled set besides the test."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]


class FaultFile(Strict):
    """Samples of one kind that were left out."""

    count: int
    examples: tuple[str, ...]


class DataFile(Strict):
    """`data.json`: what a test on the dataset needs besides its rows."""

    resolution: int
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    sizes: dict[str, int]
    """Rows by split, further set and extra split; the pixels lie in this order."""
    facts: dict[str, float]
    encoding: Literal["raw", "jpeg"] = "raw"
    """JPEG files lie one after the other, and `ends.bin` has the byte after each, int64."""
    tests: dict[str, SetFile] = {}
    """Further labelled sets."""
    left_out: dict[str, FaultFile] = {}
    """Samples that could not be used, by kind."""


def write(
    dataset: Dataset, resolution: int, seed: int, folder: Path,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> DataFile:
    """Store all splits as `pixels.bin`, `index.parquet` and `data.json`.

    `report` gets the samples prepared and those in all. Raises BdbenchError when the dataset breaks
    its contract.
    """
    dataset.prepare(resolution, folder / RESUME / "parts", report)
    tests, sizes, jpeg, lengths = dataset.tests(), dict[str, int](), False, array("q")
    classes: dict[str, list[str]] = {split: dataset.classes() for split in dataset.splits()}
    classes |= {name: one.classes for name, one in tests.items()}
    classes |= {extra: dataset.classes() for extra in dataset.extras()}
    with (
        (folder / "pixels.bin").open("wb") as pixels,
        pq.ParquetWriter(folder / "index.parquet", _INDEX, compression="zstd") as index,
    ):
        for split in classes:
            sizes[split] = 0
            for rows in dataset.rows(split, resolution, seed):
                _check(split, rows, resolution, classes[split])
                if isinstance(rows.images, list):
                    jpeg = True
                    pixels.writelines(rows.images)
                    lengths.extend(map(len, rows.images))
                else:
                    pixels.write(np.ascontiguousarray(rows.images).tobytes())
                index.write_table(pa.table(
                    {"row": rows.ids, "split": [split] * len(rows.ids), "caption": rows.captions,
                     "label": rows.labels.astype(np.int32)}, schema=_INDEX,
                ))
                sizes[split] += len(rows.ids)
    if jpeg:
        np.cumsum(lengths, dtype=np.int64).tofile(folder / "ends.bin")
    ids = np.sort(_column(folder, "row").to_numpy())
    if (ids[1:] == ids[:-1]).any():
        raise BdbenchError("row ids occur twice", "see `bdbench.api.Rows`")
    file = DataFile(
        resolution=resolution, classes=tuple(dataset.classes()),
        templates=tuple(dataset.templates()), sizes=sizes, facts=dataset.facts(seed),
        encoding="jpeg" if jpeg else "raw",
        tests={
            name: SetFile(classes=tuple(one.classes), templates=tuple(one.templates))
            for name, one in tests.items()
        },
        left_out={
            kind: FaultFile(count=count, examples=tuple(examples))
            for kind, (count, examples) in sorted(dataset.faults().items())
        },
    )
    # Less what is as it was before there were such fields: the same rows are the same bytes.
    (folder / "data.json").write_text(file.model_dump_json(exclude_defaults=True), encoding="utf-8")
    return file


def _check(split: str, rows: Rows, resolution: int, classes: Sequence[str]) -> None:
    """Raise BdbenchError for rows that are not in the form of `bdbench.api.Rows`."""
    if not isinstance(rows.images, list):
        shape = (len(rows.ids), 3, resolution, resolution)
        if rows.images.shape != shape or rows.images.dtype != np.uint8:
            raise BdbenchError(
                f"`{split}` images are `{rows.images.dtype}{list(rows.images.shape)}`,"
                f" not `uint8{list(shape)}`", "see `bdbench.api.Rows`",
            )
    if rows.labels.max(initial=-1) >= len(classes):
        raise BdbenchError(
            f"`{split}` has the label `{rows.labels.max()}` but only `{len(classes)}` classes",
            "see `bdbench.api.Rows`",
        )


def _column(folder: Path, name: str) -> pa.ChunkedArray:
    """A column of the index, read in batches: at once it takes twice its memory."""
    index = pq.ParquetFile(folder / "index.parquet")
    batches = index.iter_batches(_BATCH, columns=[name], use_threads=False)
    return pa.chunked_array([batch[name] for batch in batches], _INDEX.field(name).type)


class DataCache:
    """What `write` stored."""

    def __init__(self, folder: Path, device: torch.device = Images.device) -> None:
        """`device`: where the images that are read are wanted."""
        self._device = device
        try:
            self.file = DataFile.model_validate_json((folder / "data.json").read_bytes())
        except ValidationError as error:
            raise BdbenchError(f"`{folder / 'data.json'}` does not describe a dataset") from error
        self._folder = folder
        self._ids = torch.from_numpy(_column(folder, "row").to_numpy().copy())
        self._captions = _column(folder, "caption")
        side = self.file.resolution
        count = sum(self.file.sizes.values())
        # Copy-on-write: torch warns about read-only memory, and nothing here writes to it.
        if self.file.encoding == "jpeg":
            ends = np.memmap(folder / "ends.bin", np.int64, mode="c", shape=(count,))
            self._jpeg = JpegPixels(folder / "pixels.bin", torch.from_numpy(ends), 0, side)
        else:
            shape = (count, 3, side, side)
            raw = np.memmap(folder / "pixels.bin", np.uint8, mode="c", shape=shape)
            self._raw = torch.from_numpy(raw)

    def _pixels(self, rows: slice) -> Pixels:
        if self.file.encoding == "jpeg":
            return self._jpeg.part(rows.start, rows.stop)
        return self._raw[rows]

    def _rows(self, split: str) -> slice:
        start = 0
        for name, size in self.file.sizes.items():
            if name == split:
                break
            start += size
        return slice(start, start + self.file.sizes[split])

    def pairs(self, split: Split | Extra, limit: int | None = None) -> Pairs:
        """The first `limit` image-caption pairs of a split, or all."""
        rows = self._rows(split)
        if limit is not None:
            if limit > rows.stop - rows.start:
                raise BdbenchError(
                    f"`{limit}` pairs asked of `{split}`, which has `{rows.stop - rows.start}`",
                    f"--set recipe.budget.pairs={rows.stop - rows.start}",
                )
            rows = slice(rows.start, rows.start + limit)
        captions = self._captions.slice(rows.start, rows.stop - rows.start)
        pairs = Pairs(self._ids[rows], self._pixels(rows), Captions(captions))
        pairs.device = self._device
        return pairs

    def labelled(self, split: str) -> Labelled:
        """A split, or a further set, as labelled images."""
        about = self.file.tests.get(split, self.file)
        rows = self._rows(split)
        labels = _column(self._folder, "label").to_numpy()[rows].astype(np.int64)
        found = Labelled(
            self._ids[rows], self._pixels(rows), torch.from_numpy(labels), about.classes,
            about.templates,
        )
        found.device = self._device
        return found


