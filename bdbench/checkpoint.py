"""Weights trained elsewhere: read without executing anything in them, fitted to a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bdbench.clip import Clip
from bdbench.errors import BdbenchError
from bdbench.models import MEAN, STD, config
from bdbench.registry import near

_NEEDS_CODE = re.compile(r"GLOBAL ([\w.]+)|(TorchScript)|Unsupported operand|Unsupported class")
"""What torch's restricted reader says of a file that would have to execute something."""
_CONVERT = """\
python -c "
import torch, safetensors.torch as s
try: c = torch.jit.load('{0}', map_location='cpu').state_dict()
except RuntimeError: c = torch.load('{0}', map_location='cpu', weights_only=False)
c = c.get('state_dict', c)
s.save_file({{k: v.clone().contiguous() for k, v in c.items()}}, '{0}.safetensors')"
"""
_SIZES = {"input_resolution", "context_length", "vocab_size"}
"""Numbers beside the weights in OpenAI's own files; the architecture has them."""
_PREFIX = "module."
"""What DistributedDataParallel puts before every name."""
_GRID = "visual.positional_embedding"
_POOL = "visual.attnpool.positional_embedding"


def read(path: Path) -> dict[str, Tensor]:
    """The weights in a file, by name, in float32; BdbenchError for anything but tensors.

    It may be safetensors, or what `torch.save` wrote: the weights alone, or under `state_dict`
    with epoch and optimiser beside it, with or without the prefix `module.`. So open_clip's
    training, CleanCLIP and attack-cleanclip leave them. A pickle that asks for more than tensors
    and plain containers is refused, and nothing of it is executed.
    """
    with path.open("rb") as file:
        head = file.read(9)
    # safetensors begin with the length of a JSON object; torch's own files are zipped, or pickles.
    if head[8:] == b"{":
        found = _safetensors(path)
    elif head[:2] == b"PK" or head[:1] == b"\x80":
        found = _pickled(path, zipped=head[:2] == b"PK")
    else:
        raise _damaged(path, "it begins neither as safetensors do nor as what `torch.save` writes")
    inner = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(inner, Mapping) or not inner:
        raise BdbenchError(
            f"`{path}` holds no weights by name but a `{type(inner).__name__}`",
            "save `model.state_dict()`, or a dictionary with it under `state_dict`",
        )
    state = {str(name): value for name, value in inner.items() if name not in _SIZES}
    for name, value in state.items():
        if not _plain(value):
            raise BdbenchError(
                f"`{name}` in `{path}` is a `{type(value).__name__}`, not a tensor with all its"
                " values in the file",
                "save `model.state_dict()`, or a dictionary with it under `state_dict`",
            )
        if not torch.isfinite(value).all():
            raise BdbenchError(
                f"`{name}` in `{path}` has values that are not finite: its training diverged",
                "take the checkpoint of an earlier epoch",
            )
    cut = len(_PREFIX) if all(name.startswith(_PREFIX) for name in state) else 0
    return {
        name[cut:]: value.float() if value.is_floating_point() else value
        for name, value in state.items()
    }


def _plain(value: object) -> bool:
    """Whether it is a dense tensor in memory; a few bytes can claim to be a sparse or huge one."""
    return (
        isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _damaged(path: Path, why: str) -> BdbenchError:
    return BdbenchError(
        f"`{path}` is empty, cut short, damaged or no checkpoint: {why}",
        "fetch the file again, and compare its size and sha256 with what its source says",
    )


def _safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _pickled(path: Path, zipped: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # damaged bytes lead to errors of any kind
        said = _NEEDS_CODE.search(str(error))
        if said is None:
            raise _damaged(path, str(error) or "it ends too early") from error
        asked = f"`{said[1] or said[2]}`" if said.lastindex else "more than tensors"
        raise BdbenchError(
            f"`{path}` asks for {asked}, which would execute code of the file: it was not read",
            "if you trust where it comes from, convert it in a sandbox without network, and give"
            f" `{path.name}.safetensors`:\n{_CONVERT.format(path.name)}",
        ) from error


def load(clip: Clip, path: Path) -> None:
    """Set the weights of `clip` from a file; BdbenchError when they are of another model.

    Position embeddings are resampled to the model's resolution, as open_clip does.
    """
    clip.load_state(fit(read(path), clip.model))


def fit(state: Mapping[str, Tensor], net: Any) -> dict[str, Tensor]:
    """Weights in any layout that open_clip knows, in the layout and at the size of `net`."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = dict(convert_state_dict(net, dict(state)))
    if not hasattr(net, "positional_embedding"):
        state = dict(convert_to_custom_text_state_dict(state))
    scale = state.get("logit_scale")
    if scale is not None and scale.numel() == 1:
        state["logit_scale"] = scale.reshape(net.logit_scale.shape)
    own = net.state_dict()
    for name, side in ((_GRID, getattr(net.visual, "grid_size", None)), (_POOL, _pool_side(net))):
        if name in state and side is not None and own[name].shape[1:] == state[name].shape[1:]:
            state[name] = _resampled(state[name], side)
    return state


def _pool_side(net: Any) -> int | None:
    pool = getattr(net.visual, "attnpool", None)
    return None if pool is None else net.visual.image_size // 32


def _resampled(embedding: Tensor, side: Any) -> Tensor:
    """Position embeddings, float [1 + cells, width], for a grid of `side` cells a side."""
    from open_clip.model import resize_pos_embed

    if round((len(embedding) - 1) ** 0.5) ** 2 != len(embedding) - 1:
        return embedding  # of no square grid: the shapes will not fit, and are reported
    grid = {_GRID: embedding}
    # open_clip resizes those of a ViT; those of a ResNet's attention pool have the same form.
    resize_pos_embed(grid, SimpleNamespace(visual=SimpleNamespace(grid_size=side)))
    return grid[_GRID]


def fetch(name: str, tag: str) -> tuple[Path, dict[str, Any]]:
    """open_clip's weights `tag` of a model: the file, and `mean` and `std` where not CLIP's.

    Downloads them unless they are here. BdbenchError for an unknown tag, for a model with
    another activation than they were trained with, and when they cannot be fetched.
    """
    from open_clip.pretrained import (
        download_pretrained,
        get_pretrained_cfg,
        list_pretrained_tags_by_model,
    )

    known = get_pretrained_cfg(name, tag)
    if not known:
        tags = list_pretrained_tags_by_model(name)
        raise BdbenchError(
            f"open_clip has no weights `{tag}` of `{name}`",
            near(tag, tags) if tags else "it has none of this model: name another, or a file",
        )
    if known.get("quick_gelu") and not config(name).get("quick_gelu"):
        raise BdbenchError(
            f"the weights `{tag}` were trained with QuickGELU, and `{name}` is without",
            f"the same model with it: `--set 'recipe.model.name=\"{name}-quickgelu\"'`",
        )
    try:
        path = Path(download_pretrained(known))
    except Exception as error:  # of urllib, huggingface_hub and what they rest on
        raise BdbenchError(
            f"the weights `{tag}` of `{name}` cannot be fetched: {type(error).__name__}: {error}",
            "fetch the file on another machine and name it:"
            " `bdbench run --set recipe.model.init=FILE`",
        ) from error
    usual = {"mean": MEAN, "std": STD}
    return path, {
        field: tuple(known[field]) for field, value in usual.items()
        if tuple(known.get(field, value)) != value
    }
