"""Datasets of the Hugging Face Hub, at a pinned revision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bdbench.errors import BdbenchError
from bdbench.sources.files import wanted_columns
from bdbench.sources.parquet import row_sample
from bdbench.sources.sample import Fault, Part, Sample

_ID = re.compile(
    r"hub:(?P<id>[\w.-]+(/[\w.-]+)?)@(?P<revision>[0-9a-f]{40})(:(?P<config>[\w.-]+))?/(?P<split>\w+)"
)
_PATIENCE = 10.0
"""Seconds to wait for the Hub's first answer."""
FORM = "hub:OWNER/NAME@REVISION[:CONFIG]/SPLIT"


@dataclass(frozen=True)
class HubPart:
    """A shard of a split, streamed."""

    id: str
    revision: str
    config: str | None
    split: str
    shard: int
    shards: int
    rows: int
    columns: tuple[str, str | None, str | None]

    def count(self) -> int:
        """Rows of this shard, about."""
        return self.rows // self.shards

    def samples(self) -> Iterator[Sample | Fault]:
        """In the order of the split."""
        stream = _stream(self.id, self.revision, self.config, self.split, self.columns[0])
        for at, row in enumerate(stream.shard(self.shards, self.shard)):
            yield row_sample(row, self.columns, f"{self.id}: {self.shard}/{at}")


def hub(url: str, image: str, caption: str, label: str) -> list[Part]:
    """The parts of a split; asks the Hub for its size and columns."""
    from huggingface_hub import HfApi

    found = parse(url)
    with _asking(found["id"], found["revision"]):
        # `datasets` would try for half a minute where there is no network.
        HfApi().dataset_info(found["id"], revision=found["revision"], timeout=_PATIENCE)
    stream = _stream(found["id"], found["revision"], found["config"], found["split"], image)
    columns = wanted_columns(url, list(stream.features or {}), image, caption, label)
    about = stream.info.splits or {}
    rows = about[found["split"]].num_examples if found["split"] in about else 0
    shards = stream.num_shards
    return [
        HubPart(found["id"], found["revision"], found["config"], found["split"], i, shards,
                rows, columns)
        for i in range(shards)
    ]


def parse(url: str) -> dict[str, str]:
    """Id, revision, config and split of a `hub:` address."""
    found = _ID.fullmatch(url)
    if not found:
        raise BdbenchError(
            f"`{url}` is not of the form `{FORM}`",
            "the revision is a commit of 40 hexadecimal digits: names of branches move",
        )
    return found.groupdict()


def _stream(id: str, revision: str, config: str | None, split: str, image: str) -> Any:
    import datasets

    with _asking(id, revision):
        stream = datasets.load_dataset(
            id, config, split=split, revision=revision, streaming=True,
        )
        features = stream.features or stream._resolve_features().features
        if image in features:
            stream = stream.cast_column(image, datasets.Image(decode=False))
    return stream


@contextmanager
def _asking(id: str, revision: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise BdbenchError(
            f"`{id}` at `{revision[:12]}` cannot be read from the Hub:"
            f" {type(error).__name__}: {str(error)[:300]}",
            "check the network, the name and HF_TOKEN; or download it and name its files",
        ) from error
