"""A source: the files that are meant, what they hold, and the digest of their content."""

from __future__ import annotations

import glob
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from pydantic import Field

from bdbench.errors import BdbenchError
from bdbench.hashing import digest, file_digest
from bdbench.schema import Strict
from bdbench.sources.files import class_folders, folder, table
from bdbench.sources.hub import FORM, hub, parse
from bdbench.sources.parquet import parquet
from bdbench.sources.sample import Part
from bdbench.sources.tar import TarPart

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl")


class Source(Strict):
    """Samples in files, and which of them."""

    files: str
    """Below the dataset's `path`, or an address that fsspec opens: tar shards (WebDataset),
    parquet, a folder of such shards, a CSV, TSV or JSONL of image paths, or a folder of images;
    with `{000..123}`, `{a,b}` and `*`. Or `hub:OWNER/NAME@REVISION[:CONFIG]/SPLIT`, a dataset of
    the Hub."""
    image: str = "image"
    """Column of the image's path or bytes, in a table."""
    caption: str = "caption"
    """Column of the caption, in a table."""
    label: str = "label"
    """Column of the class index, in a table."""
    start: int = 0
    """First usable sample, counted from the end if negative, as in a Python slice."""
    stop: int | None = None
    """Sample before which to stop."""
    by_name: bool = Field(False)
    """Label by caption: the one class whose name, in the singular or the plural, is in the caption;
    samples that name no class or several are left."""

    def address(self) -> tuple[str, str, str, str]:
        """What is read, whatever part of it is used."""
        return self.files, self.image, self.caption, self.label

    def parts(self, root: str) -> list[Part]:
        """The pieces, in a fixed order; BdbenchError where there is nothing to read."""
        columns = self.image, self.caption, self.label
        if self.files.startswith("hub:"):
            return hub(self.files, *columns)
        found: list[Part] = []
        for name, url in self.urls(root):
            if name.endswith(_TARS):
                found.append(TarPart(url, name))
            elif name.endswith(".parquet"):
                found += parquet(url, name, *columns)
            elif name.endswith(_TABLES):
                found += table(_local(url), *columns)
            elif _is_remote(url) or not Path(url).is_dir():
                raise BdbenchError(
                    f"`{url}` is of no form that is read",
                    f"tar, parquet, csv, tsv, jsonl, a folder, or `{FORM}`",
                )
            else:
                found += folder(Path(url), *columns)
        return found

    def folders(self, root: str) -> list[str]:
        """The names of the class folders, in the order of the labels read; none in other forms."""
        if self.files.startswith("hub:"):
            return []
        found = [
            class_folders(Path(url)) for _, url in self.urls(root)
            if not _is_remote(url) and Path(url).is_dir()
        ]
        for names in found[1:]:
            if names != found[0]:
                raise BdbenchError(
                    f"the folders of `{self.files}` have not the same class folders",
                    "name one folder per class, with all its images",
                )
        return found[0] if found else []

    def urls(self, root: str) -> list[tuple[str, str]]:
        """Name below the root, and address, of every file or folder."""
        found = []
        for name in braces(self.files):
            url = name if _is_remote(name) else str(Path(root) / name)
            if not (_is_remote(name) or Path(name).is_absolute() or root):
                raise BdbenchError(
                    f"`{name}` is meant, but not said in which folder",
                    "--set 'dataset.path=\"DIR\"', or the environment variable BDBENCH_DATA",
                )
            if "*" in name:
                with _reaching(url):
                    matches = (
                        [one.full_name for one in fsspec.open_files(url)] if _is_remote(url)
                        # Unlike pathlib, it takes absolute patterns.
                        else glob.glob(url, recursive=True)  # noqa: PTH207
                    )
                found += [(Path(match).name, match) for match in sorted(matches)]
                if not matches:
                    raise BdbenchError(f"nothing matches `{url}`", "check `dataset.path`")
                continue
            if not _is_remote(url) and not Path(url).exists():
                raise BdbenchError(
                    f"`{url}` does not exist",
                    "--set 'dataset.path=\"DIR\"' says where the data lie",
                )
            found += _shards(url) or [(name, url)]
        if not found:
            raise BdbenchError(
                f"`{self.files}` stands for no file", "ranges rise, as in `{000..123}`"
            )
        return found


def _shards(url: str) -> list[tuple[str, str]]:
    """The tar and parquet files of a folder; none where it is of another form."""
    if _is_remote(url) or not Path(url).is_dir():
        return []
    return sorted(
        (path.name, str(path)) for path in Path(url).iterdir()
        if path.name.endswith((*_TARS, ".parquet"))
    )


def braces(pattern: str) -> Iterator[str]:
    """`a-{00..02}` and `{x,y}`, written out, the last one fastest."""
    pieces: list[Sequence[str]] = []
    at = 0
    for found in _BRACES.finditer(pattern):
        pieces.append([pattern[at : found.start()]])
        span = _RANGE.fullmatch(found[1])
        if span:
            first, last = int(span[1]), int(span[2])
            width = len(span[1])
            pieces.append([f"{i:0{width}d}" for i in range(first, last + 1)])
        else:
            pieces.append(found[1].split(","))
        at = found.end()
    pieces.append([pattern[at:]])
    for combination in itertools.product(*pieces):
        yield "".join(combination)


def _is_remote(url: str) -> bool:
    return "://" in url


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every file system of fsspec has errors of its own
        raise BdbenchError(
            f"`{url}` cannot be reached: {type(error).__name__}: {str(error)[:300]}",
            "check the address and the network; or download it and name its files",
        ) from error


def _local(url: str) -> Path:
    if _is_remote(url):
        raise BdbenchError(f"`{url}`: a table of paths must lie beside its images", "download both")
    return Path(url)


MANY = 10**12
"""More samples than any source has."""


def overlap(one: Source, other: Source, root: str, count: int) -> bool:
    """Whether two sources share samples; `count`: the samples of `other`, unwindowed, or `MANY`.

    Sources that share a file and do not read the same of it are taken to overlap.
    """
    files = [
        {source.files} if source.files.startswith("hub:") else {url for _, url in source.urls(root)}
        for source in (one, other)
    ]
    if files[0].isdisjoint(files[1]):
        return False
    if one.address() != other.address():
        return True
    a, b = (range(count)[source.start : source.stop] for source in (one, other))
    return max(a.start, b.start) < min(a.stop, b.stop)


def fingerprint(source: Source, root: str, known: Path) -> str:
    """64 hex digits for the content of all files of a source.

    Local files are read once; `known` is a JSON file that keeps the digest as long as no name, size
    or time of modification changes. Of remote files the size and what the server says of the
    version count, of the Hub the revision.
    """
    if source.files.startswith("hub:"):
        return digest(parse(source.files))
    listing: list[tuple[Any, ...]] = []
    local: list[tuple[str, Path]] = []
    for name, url in source.urls(root):
        if _is_remote(url):
            with _reaching(url):
                system, path = fsspec.core.url_to_fs(url)
                about = system.info(path)
            listing.append((name, about.get("size"), str(about.get("ETag", about.get("mtime")))))
        elif Path(url).is_dir():
            local += [
                (path.relative_to(url).as_posix(), path)
                for path in sorted(Path(url).rglob("*")) if path.is_file()
            ]
        else:
            local.append((name, Path(url)))
            if url.endswith(_TABLES):
                local += _beside(Path(url), source.image)
    states = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in local]
    memo = digest([root and str(Path(root).resolve()), states])
    kept = _read(known)
    if local and memo not in kept:
        with ThreadPoolExecutor() as pool:
            sums = list(pool.map(lambda item: file_digest(item[1]), local))
        kept[memo] = digest([[name, total] for (name, _), total in zip(local, sums, strict=True)])
        known.parent.mkdir(parents=True, exist_ok=True)
        aside = known.with_suffix(".new")
        aside.write_text(json.dumps(kept), encoding="utf-8")
        aside.replace(known)
    return digest([listing, kept[memo] if local else ""])


def _beside(path: Path, image: str) -> list[tuple[str, Path]]:
    """The images that a table of paths names."""
    import pandas as pd

    separator = "\t" if ".tsv" in path.suffixes else ","
    try:
        names = (
            pd.read_json(path, lines=True, dtype=False)[[image]] if path.suffix == ".jsonl"
            else pd.read_csv(path, sep=separator, usecols=[image], dtype=str, on_bad_lines="skip")
        )
    except (KeyError, ValueError, OSError):
        return []  # whoever reads the table says what is wrong with it
    places = ((name, path.parent / name) for name in sorted(set(names[image].dropna())))
    return [(name, place) for name, place in places if _there(place)]


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, a null byte
        return False


def _read(known: Path) -> dict[str, str]:
    try:
        return dict(json.loads(known.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
