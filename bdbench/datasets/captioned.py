"""Image-caption pairs to train on, and labelled sets to test on, from files."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from bdbench.api import (
    EXAMPLES,
    EXTRAS,
    SPLITS,
    Dataset,
    Extra,
    Faults,
    LabelledSet,
    Rows,
    Split,
    add_fault,
    told,
)
from bdbench.errors import BdbenchError
from bdbench.hashing import digest
from bdbench.schema import Strict
from bdbench.sources import (
    MANY,
    Collected,
    Source,
    balanced,
    class_names,
    collect,
    fingerprint,
    folder_labels,
    images_in,
    named,
    overlap,
    prompt_templates,
)
from bdbench.store import default_root

_CHUNK = 1024
"""Images in memory at a time; of JPEG files eight times as many take no more."""
_PAIRED = ("train", "budget", "retrieval")
"""Splits of captions; the others are labelled."""
PATH = "BDBENCH_DATA"
"""Environment variable: the folder of the files, where `path` is not set."""

Chosen = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows of a table, and their labels."""


class Labelled(Strict):
    """A labelled set besides the test."""

    source: Source
    names: str
    """As in `Captioned.names`."""
    prompts: str = "imagenet"
    """As in `Captioned.prompts`."""


class Captioned(Dataset):
    """Images with captions, and labelled images, from files that are decoded once."""

    local: ClassVar[frozenset[str]] = frozenset({"path"})

    path: str = ""
    """Folder of the files; in no key. Default: the environment variable BDBENCH_DATA."""
    digest: str = ""
    """Of the content of all files: what the keys hash. Empty: computed before anything is run."""
    train: Source
    """Pairs to pre-train on."""
    budget: Source
    """Clean pairs for the defenses."""
    validation: Source
    """Labelled images for the blind rule."""
    test: Source
    """Labelled images of the zero-shot test."""
    names: str
    """Class names of test and validation: `imagenet1k`, another known set, or a file of lines."""
    prompts: str = "imagenet"
    """Zero-shot templates: `imagenet` (80), `simple` (7), or a file of lines."""
    per_class: int = Field(0, ge=0)
    """Images that the test must have of every class; 0 for any number."""
    further: dict[str, Labelled] = {}
    """Other labelled sets, by name: accuracy on them is reported, and ranks nothing."""
    retrieval: Source | None = None
    """Pairs that are ranked against each other, for the metrics of retrieval."""
    probe: Source | None = None
    """Labelled images of the same classes, on which the probes of the features are fitted."""
    raw_limit: float = Field(64.0, ge=0)
    """GB up to which pixels are kept as they are; beyond, as JPEG files of quality 95."""

    _labels: dict[str, NDArray[np.int64]] = PrivateAttr(default_factory=dict)
    """Of a split whose images lie in a folder per class: their labels, in the folders' order."""
    _read: dict[tuple[str, ...], Collected] = PrivateAttr(default_factory=dict)
    _chosen: dict[str, list[Chosen]] = PrivateAttr(default_factory=dict)
    _left_out: Faults = PrivateAttr(default_factory=dict)
    _side: int = PrivateAttr(0)
    _aside: tempfile.TemporaryDirectory[str] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _named(self) -> Captioned:
        for name in self.further:
            if name in (*SPLITS, *EXTRAS) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
                raise ValueError(f"a labelled set cannot be called `{name}`")
        return self

    def classes(self) -> list[str]:
        """The names, by label."""
        return class_names(self.names, Path(self._root))

    def templates(self) -> list[str]:
        """The prompts."""
        return prompt_templates(self.prompts, Path(self._root))

    def tests(self) -> dict[str, LabelledSet]:
        """The further sets."""
        return {
            name: LabelledSet(
                class_names(one.names, Path(self._root)),
                prompt_templates(one.prompts, Path(self._root)),
            )
            for name, one in self.further.items()
        }

    def splits(self) -> Sequence[Split]:
        """Those that have a source."""
        return [split for split in SPLITS if getattr(self, split).files]

    def halves(self) -> tuple[Self, Self] | None:
        """By what each is for; files of a known digest are published together, and stay so."""
        if self.digest:
            return None
        for name in ("test", *self.extras(), *self.further):
            self._hold_out(name, MANY)
        none = Source(files="")
        tests = {"test": none, "per_class": 0, "further": {}, "retrieval": None, "probe": None}
        pairs = dict.fromkeys(("train", "budget", "validation"), none)
        return self.model_copy(update=tests), self.model_copy(update=pairs)

    def extras(self) -> Sequence[Extra]:
        """Those that have a source."""
        return [extra for extra in EXTRAS if getattr(self, extra) is not None]

    def fingerprint(self) -> str:
        """Over the content of all sources, and the lists of names and templates."""
        known = default_root() / "digests.json"
        files = {source.address(): source for source in self._sources().values()}
        parts = [[*at, fingerprint(source, self._root, known)] for at, source in files.items()]
        sets = [[one.classes, one.templates] for one in self.tests().values()]
        return digest([parts, self.classes(), self.templates(), sets])

    def prepare(
        self, resolution: int, work: Path, report: Callable[[int, int], None]
    ) -> None:
        """Decode every source once, in parallel."""
        self._read.clear()
        self._left_out.clear()
        self._chosen.clear()
        self._labels = {split: self._numbered(split) for split in self._sources()}
        self._side = resolution
        files = {source.address(): source for source in self._sources().values()}
        parts = {at: source.parts(self._root) for at, source in files.items()}
        total = images_in([part for every in parts.values() for part in every])
        jpeg = total * 3 * resolution**2 > self.raw_limit * 1e9
        done = 0
        for at, every in parts.items():
            def later(more: int, before: int = done) -> None:
                report(before + more, total)

            read = collect(every, resolution, jpeg, work / digest(at)[:8], later)
            done += len(read)
            report(done, max(done, total))
            self._read[at] = read
            self._count(read.faults())
        if "train" in self.splits():
            count = len(self._read[self.train.address()])
            for split in self._sources().keys() - {"train"}:
                self._hold_out(split, count)

    def rows(self, split: str, resolution: int, seed: int) -> Iterator[Rows]:
        """Chunks of at most 1,024, or 8,192 as JPEG files, in the order of the files."""
        if self._side != resolution:
            self._aside = tempfile.TemporaryDirectory(prefix="bdbench-")
            self.prepare(resolution, Path(self._aside.name), lambda done, total: None)
        yield from self._rows(split)

    def faults(self) -> Faults:
        """Samples left out, by kind."""
        return dict(self._left_out)

    @property
    def _root(self) -> str:
        return self.path or os.environ.get(PATH, "")

    def _sources(self) -> dict[str, Source]:
        own: dict[str, Source] = {
            split: getattr(self, split) for split in (*self.splits(), *self.extras())
        }
        return own | {name: one.source for name, one in self.further.items()}

    def _count(self, faults: Faults) -> None:
        for kind, (count, examples) in faults.items():
            add_fault(self._left_out, kind, examples, count)

    def _hold_out(self, split: str, count: int) -> None:
        """BdbenchError where a defense would be given, or a test made on, pairs trained on."""
        one = self._sources()[split]
        if overlap(one, self.train, self._root, count):
            raise BdbenchError(
                f"`dataset.{split}` and `dataset.train` share samples of `{one.files}`",
                "take other files, or the same ones with `start` and `stop` for both, as in"
                f" `--set dataset.train.stop=-1000 --set dataset.{split}.start=-1000`",
            )

    def _names(self, split: str) -> list[str]:
        return self.tests()[split].classes if split in self.further else self.classes()

    def _numbered(self, split: str) -> NDArray[np.int64]:
        source = self._sources()[split]
        if split in _PAIRED or source.by_name:
            return np.zeros(0, np.int64)
        known = self.further[split].names if split in self.further else self.names
        folders = source.folders(self._root)
        labels = folder_labels(folders, self._names(split), known) if folders else []
        return np.array(labels, np.int64)

    def _choose(self, split: str) -> list[Chosen]:
        """What the split uses of each table of its source."""
        if split in self._chosen:
            return self._chosen[split]
        source, names = self._sources()[split], self._names(split)
        read = self._read[source.address()]
        first, last, _ = slice(source.start, source.stop).indices(len(read))
        chosen, before = list[Chosen](), 0
        for table in read.tables():
            window = slice(max(0, first - before), max(0, last - before))
            chosen.append(self._usable(split, table, window, names))
            before += table.num_rows
        labels = np.concatenate([np.zeros(0, np.int64), *(labels for _, labels in chosen)])
        if not len(labels):
            raise BdbenchError(
                f"`dataset.{split}` has no usable sample: `{source.files}` has `{len(read)}` images"
                f" that can be read; left out: {'; '.join(told(self._left_out)) or 'none'}",
                "check the columns, the labels, and `start` and `stop`",
            )
        if split == "test" and self.per_class:
            balanced(labels, names, self.per_class)
        self._chosen[split] = chosen
        return chosen

    def _rows(self, split: str) -> Iterator[Rows]:
        read, chosen = self._read[self._sources()[split].address()], self._choose(split)
        position = (*SPLITS, *self.further, *EXTRAS).index(split) << 40
        chunk = _CHUNK * 8 if read.jpeg else _CHUNK
        for number, (table, (rows, labels)) in enumerate(zip(read.tables(), chosen, strict=True)):
            for start in range(0, len(rows), chunk):
                part = rows[start : start + chunk]
                captions = table["caption"].take(part).to_pylist() if split in _PAIRED else []
                yield Rows(
                    ids=np.arange(position, position + len(part), dtype=np.int64),
                    images=read.images(number, table, part),
                    captions=captions or [""] * len(part), labels=labels[start : start + chunk],
                )
                position += len(part)

    def _usable(
        self, split: str, table: pa.Table, window: slice, names: Sequence[str]
    ) -> Chosen:
        """The rows within `window` of a part that the split can use, and their labels."""
        rows = np.arange(table.num_rows)[window]
        captions, labels = table["caption"].take(rows), table["label"].to_numpy()[rows]
        if split in _PAIRED:
            there = captions.is_valid().to_numpy()
            self._miss("no caption", table, rows[~there])
            return rows[there], np.full(int(there.sum()), -1, np.int64)
        if self._sources()[split].by_name:
            labels = np.array([named(text, names) for text in captions.to_pylist()], np.int64)
            return rows[labels >= 0], labels[labels >= 0]
        if len(self._labels[split]):
            labels = self._labels[split][labels]
        self._miss("no label", table, rows[labels < 0])
        self._miss("label out of range", table, rows[labels >= len(names)])
        right = (labels >= 0) & (labels < len(names))
        return rows[right], labels[right]

    def _miss(self, kind: str, table: pa.Table, rows: NDArray[np.int64]) -> None:
        if len(rows):
            examples = table["key"].take(rows[:EXAMPLES]).to_pylist()
            add_fault(self._left_out, kind, examples, len(rows))
