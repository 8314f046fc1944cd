"""checkpoint: weights trained elsewhere, from a file or a tag of open_clip, in our form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdbench.checkpoint import fetch, load
from bdbench.clip import Clip
from bdbench.errors import BdbenchError
from bdbench.hashing import file_digest
from bdbench.models import FILE
from bdbench.schema import Model
from bdbench.stages import Context, Inputs


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write the model, and in `checkpoint.json` what it was made from."""
    clip = Clip.build(Model(**spec["model"]), (), 0, resolution=spec["resolution"])
    source = spec["source"]
    if source.startswith(FILE):
        path = _file(source, context)
    else:
        path, normalisation = fetch(clip.file.model.name, source)
        clip.file = clip.file.model_copy(update=normalisation)
    digest = FILE + file_digest(path)
    if digest != source and source.startswith(FILE):
        raise BdbenchError(
            f"`{path}` has changed since the run was planned", "run the same command again"
        )
    load(clip, path)
    clip.save(work)
    facts = {"source": source, "file": digest, "bytes": path.stat().st_size}
    (work / "checkpoint.json").write_text(json.dumps(facts), encoding="utf-8")
    return 0


def _file(source: str, context: Context) -> Path:
    try:
        return Path(context.files[source])
    except KeyError:
        raise BdbenchError(
            f"the weights `{source}` are not in the store, and no file of them was named",
            "name the file: `bdbench run --checkpoint FILE`, or `--set recipe.model.init=FILE`",
        ) from None
