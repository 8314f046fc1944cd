"""Images that lie as files: a folder per class, a table of paths, or a folder with metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bdbench.errors import BdbenchError
from bdbench.sources.sample import (
    LARGEST_FILE,
    Fault,
    Part,
    Sample,
    Unusable,
    caption_of,
    label_of,
)
from bdbench.sources.tar import IMAGES

_ROWS = 4096
"""Rows of a table, or files of a folder, that one process takes at a time."""

_BLOCK = 2**26
"""Bytes of a table that are parsed at a time; no row may be longer."""


@dataclass(frozen=True)
class FilesPart:
    """Rows of (path, caption, label), the paths relative to `folder` or within it."""

    folder: str
    rows: tuple[tuple[str, Any, Any] | Fault, ...]
    """None for a caption or a label that the table does not have."""

    def count(self) -> int:
        """Rows."""
        return len(self.rows)

    def samples(self) -> Iterator[Sample | Fault]:
        """In the order of the table."""
        for row in self.rows:
            if isinstance(row, Fault):
                yield row
                continue
            name, caption, label = row
            try:
                yield Sample(
                    name, self._read(name), None if caption is None else caption_of(caption),
                    -1 if label is None else label_of(label),
                )
            except Unusable as error:
                yield Fault(str(error), name[:200])

    def _read(self, name: str) -> bytes:
        root = Path(self.folder).resolve()
        try:
            path = (root / name).resolve()
            there = path.is_file()
        except (OSError, ValueError):  # a loop of links, a null byte, a name that is too long
            raise Unusable("file is missing") from None
        if not path.is_relative_to(root):
            raise Unusable("path that leaves the folder")
        if not there:
            raise Unusable("file is missing")
        if path.stat().st_size > LARGEST_FILE:
            raise Unusable("image file too large")
        return path.read_bytes()


def _parts(folder: Path, rows: Sequence[tuple[str, Any, Any] | Fault]) -> list[Part]:
    return [
        FilesPart(str(folder), tuple(rows[start : start + _ROWS]))
        for start in range(0, len(rows), _ROWS)
    ]


def table(path: Path, image: str, caption: str, label: str) -> list[Part]:
    """The parts of a CSV, TSV or JSONL file with named columns; paths start at its folder."""
    if path.suffix == ".jsonl":
        return _parts(path.parent, _rows(path, _json_lines(path), image, caption, label))
    import pyarrow.csv

    broken: list[tuple[str, Any, Any] | Fault] = []

    def skip(row: Any) -> str:
        broken.append(Fault("row with another number of columns", f"{path.name}: {row.text}"[:200]))
        return "skip"

    try:
        frame = pyarrow.csv.read_csv(
            path, read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if ".tsv" in path.suffixes else ",", newlines_in_values=True,
                invalid_row_handler=skip,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys((image, caption, label), pyarrow.string())
            ),
        )
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BdbenchError(f"`{path}` is not a table: {error}", "save it as UTF-8 CSV") from error
    return _parts(path.parent, _rows(path, frame, image, caption, label) + broken)


def _json_lines(path: Path) -> Any:
    import pyarrow.json

    try:
        return pyarrow.json.read_json(path, pyarrow.json.ReadOptions(block_size=_BLOCK))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BdbenchError(
            f"`{path}` is not a table: {error}", "an object per line, with the same names in each"
        ) from error


def _rows(
    path: Path, frame: Any, image: str, caption: str, label: str
) -> list[tuple[str, Any, Any] | Fault]:
    columns = wanted_columns(str(path), frame.column_names, image, caption, label)
    lists = [
        frame[name].to_pylist() if name else [None] * frame.num_rows for name in columns
    ]
    seen: set[tuple[Any, ...]] = set()
    rows: list[tuple[str, Any, Any] | Fault] = []
    for at, cells in enumerate(zip(*lists, strict=True)):
        name, text, number = map(_text, cells)
        if not name:
            rows.append(Fault("no image", f"{path.name}: row {at + 1}"))
            continue
        # An image may have several captions; the same row again says nothing.
        row = (name, text, number)
        again = row in seen
        seen.add(row)
        rows.append(Fault("duplicate key", row[0][:200]) if again else row)
    return rows


def _text(value: Any) -> str | None:
    """A cell of a table as text; of a list its first entry."""
    if isinstance(value, list):
        value = next(iter(value), None)
    return value if value is None else str(value)


def wanted_columns(
    where: str, there: Sequence[str], image: str, caption: str, label: str
) -> tuple[str, str | None, str | None]:
    """The columns of image, caption and label; BdbenchError where they are not there."""
    said = [name for name in (caption, label) if name in there]
    if image not in there or not said:
        missing = image if image not in there else caption
        raise BdbenchError(
            f"`{where}` has no column `{missing}`: it has `{', '.join(there)[:300]}`",
            "name the columns, as in `--set dataset.train.image=file`",
        )
    return image, caption if caption in there else None, label if label in there else None


def _metadata(path: Path) -> Path | None:
    files = path / "metadata.csv", path / "metadata.jsonl"
    return next((file for file in files if file.is_file()), None)


def class_folders(path: Path) -> list[str]:
    """The folders of a folder per class, sorted; none where there is a table of metadata."""
    if _metadata(path):
        return []
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def folder(path: Path, image: str, caption: str, label: str) -> list[Part]:
    """The parts of a folder: what its `metadata.csv` or `.jsonl` tells, or a folder per class.

    The label of an image is the place of its folder among the sorted ones.
    """
    metadata = _metadata(path)
    if metadata:
        return table(metadata, "file_name" if image == "image" else image, caption, label)
    rows = [
        (PurePosixPath(name, file.name).as_posix(), None, index)
        for index, name in enumerate(class_folders(path))
        for file in sorted((path / name).iterdir())
        if file.suffix[1:].lower() in IMAGES
    ]
    if not rows:
        raise BdbenchError(
            f"`{path}` has neither `metadata.csv` or `.jsonl`, nor a folder of images per class",
            "`bdbench show dataset/cc3m` lists the forms that are read",
        )
    return _parts(path, rows)
