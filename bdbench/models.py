"""What is known of a model without building it: its configuration, and where its weights lie."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from bdbench.errors import BdbenchError
from bdbench.hashing import file_digest

MODEL_CONFIGS = Path(__file__).parent / "model_configs"
"""Architectures of ours, in open_clip's form."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's image normalisation (protocol section 1.2)."""
FILE = "sha256:"
"""How the address of a file of weights begins; the rest is the sha256 of its bytes."""
_SHA256 = re.compile(rf"{FILE}[0-9a-f]{{64}}")
_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}


@cache
def _configs() -> dict[str, Path]:
    """The files of all configurations by name; imports neither open_clip nor torch."""
    spec = importlib.util.find_spec("open_clip")
    theirs = Path(spec.origin).parent / "model_configs" if spec and spec.origin else MODEL_CONFIGS
    return {path.stem: path for place in (theirs, MODEL_CONFIGS) for path in place.glob("*.json")}


def architectures() -> list[str]:
    """The names that open_clip and we have a model configuration for."""
    return sorted(_configs())


def config(name: str) -> dict[str, Any]:
    """The architecture in open_clip's form; BdbenchError when there is none of that name."""
    if name not in _configs():
        raise BdbenchError(
            f"open_clip knows no model `{name}`",
            "`bdbench run --set recipe.model=RN50` takes one; `open_clip.list_models()` lists all",
        )
    return dict(json.loads(_configs()[name].read_text(encoding="utf-8")))


def own_config(name: str) -> dict[str, Any] | None:
    """The architecture if the configuration is one of ours; None for one of open_clip's.

    It is part of the key, so that an edited configuration is another model.
    """
    found = config(name)
    return found if _configs()[name].parent == MODEL_CONFIGS else None


def image_size(name: str) -> int:
    """Side of the images that the configuration is made for, in pixels."""
    return int(config(name)["vision_cfg"].get("image_size", 224))


def check_resolution(name: str, resolution: int) -> None:
    """BdbenchError when the image tower cannot take images of `resolution` pixels a side."""
    vision = config(name)["vision_cfg"]
    resnet = isinstance(vision.get("layers"), list)
    unit = 32 if resnet else vision.get("patch_size") or 1
    if resolution < unit or (not resnet and resolution % unit):
        what = "are smaller than" if resolution < unit else "are no whole number of"
        part = "one cell of the attention pool" if resnet else "the patches"
        nearest = max(unit, round(resolution / unit) * unit)
        raise BdbenchError(
            f"images of `{resolution}` px {what} {part} of `{name}`, `{unit}` px a side",
            f"`bdbench run --set recipe.resolution={nearest}`, or another model",
        )


def weights_address(given: str) -> tuple[str, Path | None]:
    """What a key holds of `given`, a file or a tag of open_clip, and the file if it is one.

    The address of a file is the sha256 of its bytes, wherever it lies; such an address, and a tag,
    stand for themselves. BdbenchError for a file that is not there.
    """
    if _SHA256.fullmatch(given):
        return given, None
    path = Path(given).expanduser()
    try:
        if path.is_file():
            return FILE + file_digest(path), path.absolute()
    except OSError as error:
        raise BdbenchError(
            f"the weights `{given}` cannot be read: {error.strerror}", "check its permissions"
        ) from error
    if path.is_dir():
        held = sorted(item.name for item in path.iterdir() if item.suffix in _SUFFIXES)
        raise BdbenchError(
            f"the weights `{given}` are a folder",
            f"name the file in it: `{path / held[0]}`" if held else "no file of weights is in it",
        )
    if "/" in given or path.suffix in _SUFFIXES:
        raise BdbenchError(
            f"there is no file of weights `{given}`",
            "check the path; a name without a slash is taken as a tag of open_clip, as `openai`",
        )
    return given, None
