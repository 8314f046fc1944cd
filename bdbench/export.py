"""A model of the store as a folder that open_clip loads by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pydantic import ValidationError

from bdbench.errors import BdbenchError
from bdbench.models import MEAN, STD, config, own_config
from bdbench.schema import ModelFile
from bdbench.store import Artifact, Store

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"
_STAGES = ("pretrain", "checkpoint", "defend")
"""What makes models."""


def export(store: Store, key: str, folder: Path, step: int | None = None) -> ModelFile:
    """Write the weights and configuration of a model; returns what the model is.

    `open_clip.create_model("local-dir:FOLDER")` gives the same embeddings. `step` is the epoch of a
    defense, by default its last. BdbenchError for a key without models, a folder that is in use,
    and a model that open_clip does not know.
    """
    artifact = _find(store, key)
    weights = _weights(artifact, step)
    try:
        file = ModelFile.model_validate_json(artifact.file("model.json").read_bytes())
    except ValidationError as error:
        raise BdbenchError(f"`{artifact.file('model.json')}` does not describe a model") from error
    name = file.model.name
    if file.model.tokenizer == "words" or own_config(name) is not None:
        raise BdbenchError(
            f"`{name}` with the tokenizer `{file.model.tokenizer}` is bdbench's own, and open_clip"
            " has no way to describe it",
            f"read it with `bdbench.clip.Clip.load(Path('{artifact.path}'), '{weights.name}')`",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BdbenchError(
            f"`{folder}` is there already, and not empty",
            f"name another folder: `bdbench store export {key} {folder}-{key}`",
        )
    architecture = config(name)
    if file.resolution is not None:
        architecture["vision_cfg"]["image_size"] = file.resolution
    described = {"model_cfg": architecture, "preprocess_cfg": {
        "mean": file.mean or MEAN, "std": file.std or STD, "interpolation": "bicubic",
        "resize_mode": "shortest",
    }}
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return file


def _find(store: Store, key: str) -> Artifact:
    for stage in _STAGES:
        artifact = store.find(stage, key)
        if artifact is not None:
            return artifact
    other = next((a.manifest.stage for a in store.artifacts() if a.manifest.key == key), None)
    raise BdbenchError(
        f"`{key}` is a {other}, which holds no model" if other else
        f"the store `{store.root}` has no model `{key}`",
        f"`bdbench store ls` lists the keys; models are of the stages {', '.join(_STAGES)}",
    )


def _weights(artifact: Artifact, step: int | None) -> Path:
    """The file of weights after `step`; of the only model, or the last one, for None."""
    steps = sorted(name for name in artifact.manifest.files if name.startswith("step-"))
    names = steps or ["model.safetensors"]
    if step is None:
        return artifact.file(names[-1])
    wanted = f"step-{step:04d}.safetensors"
    if wanted not in steps:
        kept = ", ".join(str(int(Path(name).stem.partition("-")[2])) for name in steps)
        raise BdbenchError(
            f"`{artifact.manifest.key}` has no model of step `{step}`",
            f"its steps are {kept}" if steps else "leave `--step` out: it has one model",
        )
    return artifact.file(wanted)
