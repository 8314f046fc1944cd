"""Parquet files with a column of image files, as the Hub has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec

from bdbench.errors import BdbenchError
from bdbench.sources.files import wanted_columns
from bdbench.sources.sample import Fault, Part, Sample, Unusable, caption_of, label_of

_BATCH = 256


@dataclass(frozen=True)
class ParquetPart:
    """One row group."""

    url: str
    name: str
    group: int
    columns: tuple[str, str | None, str | None]
    rows: int

    def count(self) -> int:
        """Rows."""
        return self.rows

    def samples(self) -> Iterator[Sample | Fault]:
        """In the order of the file."""
        import pyarrow.parquet

        wanted = [name for name in self.columns if name]
        at = 0
        with fsspec.open(self.url, "rb") as file:
            source = pyarrow.parquet.ParquetFile(file)
            for batch in source.iter_batches(_BATCH, row_groups=[self.group], columns=wanted):
                for row in batch.to_pylist():
                    yield row_sample(row, self.columns, f"{self.name}: {self.group}/{at}")
                    at += 1


def row_sample(
    row: Mapping[str, Any], columns: tuple[str, str | None, str | None], where: str
) -> Sample | Fault:
    """A row of a table whose image is a file's bytes, or a struct that holds them as `bytes`."""
    image, caption, label = (row.get(name) if name else None for name in columns)
    if isinstance(image, Mapping):
        image = image.get("bytes")
    try:
        if not isinstance(image, bytes):
            raise Unusable("no image")
        if isinstance(caption, list | tuple):
            caption = next(iter(caption), None)
        if not isinstance(caption, bytes | str | None):
            raise Unusable("caption is not text")
        return Sample(
            where, image,
            None if columns[1] is None else caption_of(caption),
            -1 if label is None else label_of(label),
        )
    except Unusable as error:
        return Fault(str(error), where)


def parquet(url: str, name: str, image: str, caption: str, label: str) -> list[Part]:
    """The parts of one file."""
    import pyarrow
    import pyarrow.parquet

    try:
        with fsspec.open(url, "rb") as file:
            source = pyarrow.parquet.ParquetFile(file)
            columns = wanted_columns(name, source.schema_arrow.names, image, caption, label)
            sizes = [source.metadata.row_group(i).num_rows for i in range(source.num_row_groups)]
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BdbenchError(f"`{name}` is no parquet file: {error}", "download it again") from error
    return [ParquetPart(url, name, i, columns, rows) for i, rows in enumerate(sizes)]
