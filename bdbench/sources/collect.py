"""Decode a source once: every part in a process of its own, each kept as soon as it is whole."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bdbench.api import Faults, add_fault, readable
from bdbench.environment import DECODERS, cores
from bdbench.files import force, settle
from bdbench.sources.decode import decode, encode_jpeg
from bdbench.sources.sample import Fault, Part, Unusable


@dataclass(frozen=True)
class Piece:
    """A decoded part on disk."""

    pixels: Path
    """Raw uint8 [n, 3, side, side], or JPEG files one after the other."""
    index: Path
    """Parquet: key, caption, label, and the bytes of each image."""


@dataclass(frozen=True)
class Collected:
    """A decoded source."""

    pieces: tuple[Piece, ...]
    jpeg: bool
    side: int

    def __len__(self) -> int:
        return sum(pq.read_metadata(piece.index).num_rows for piece in self.pieces)

    def tables(self) -> Iterator[pa.Table]:
        """Per piece `key`, `caption` (None: there is none), `label` (-1: there is none), `size`."""
        for piece in self.pieces:
            yield pq.read_table(piece.index)

    def faults(self) -> Faults:
        """What was left out."""
        found: Faults = {}
        for piece in self.pieces:
            about = (pq.read_schema(piece.index).metadata or {}).get(b"faults", b"{}")
            for kind, (count, examples) in json.loads(about).items():
                add_fault(found, kind, examples, count)
        return found

    def images(
        self, number: int, table: pa.Table, rows: NDArray[np.int64]
    ) -> NDArray[np.uint8] | list[bytes]:
        """Images of a piece, given its table: uint8 [n, 3, side, side], or JPEG files."""
        pixels = self.pieces[number].pixels
        if not self.jpeg:
            shape = (table.num_rows, 3, self.side, self.side)
            whole = np.memmap(pixels, np.uint8, mode="r", shape=shape)
            return np.asarray(whole[rows])
        sizes = table["size"].to_numpy()
        ends = np.cumsum(sizes)
        found = []
        with pixels.open("rb") as file:
            for row in rows.tolist():
                file.seek(ends[row] - sizes[row])
                found.append(file.read(sizes[row]))
        return found


def collect(
    parts: Sequence[Part], side: int, jpeg: bool, folder: Path,
    report: Callable[[int], None] = lambda samples: None,
) -> Collected:
    """Decode the parts into `folder`, those that it does not hold yet.

    `side`: of the square images, in pixels; `jpeg`: store JPEG files instead of pixels; `report`
    gets the samples done so far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [
        Piece(folder / f"{i:06d}.pixels", folder / f"{i:06d}.parquet") for i in range(len(parts))
    ]
    jobs = [
        (part, side, jpeg, piece)
        for part, piece in zip(parts, pieces, strict=True) if not piece.index.exists()
    ]
    workers, done = min(len(jobs), cores(), DECODERS), 0
    if workers < 2:
        for job in jobs:
            done += _decode(*job)
            report(done)
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), _die_with_parent) as pool:
            for finished in as_completed([pool.submit(_decode, *job) for job in jobs]):
                done += finished.result()
                report(done)
    return Collected(tuple(pieces), jpeg, side)


def _die_with_parent() -> None:
    """End this process when the one that started it does, however it ends."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode(part: Part, side: int, jpeg: bool, piece: Piece) -> int:
    """Write one piece; its index last, so that a piece with an index is whole."""
    keys: list[str] = []
    captions: list[str | None] = []
    labels: list[int] = []
    sizes: list[int] = []
    faults: Faults = {}
    with piece.pixels.open("wb") as out:
        for sample in part.samples():
            if isinstance(sample, Fault):
                add_fault(faults, sample.kind, [sample.where])
                continue
            try:
                pixels = decode(sample.image, side)
            except Unusable as error:
                add_fault(faults, str(error), [sample.key])
                continue
            data = encode_jpeg(pixels) if jpeg else pixels.tobytes()
            out.write(data)
            keys.append(readable(sample.key))
            captions.append(sample.caption)
            labels.append(sample.label)
            sizes.append(len(data))
    table = pa.table({
        "key": pa.array(keys, pa.string()), "caption": pa.array(captions, pa.string()),
        "label": pa.array(labels, pa.int64()), "size": pa.array(sizes, pa.int64()),
    })
    force(piece.pixels)
    aside = piece.index.with_suffix(".new")
    pq.write_table(table.replace_schema_metadata({"faults": json.dumps(faults)}), aside)
    settle(aside, piece.index)
    return len(sizes)

