"""poison: choose the pairs, draw the trigger, write the manifest. No image is written.

For a model from elsewhere only the trigger is drawn: as the attack would draw it here, with the
same seed on the same pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from bdbench.api import Attack, Target
from bdbench.data import DataCache, Pairs, PoisonedPairs, RowRng, Trigger
from bdbench.errors import BdbenchError
from bdbench.hashing import derive_seed
from bdbench.registry import Registry
from bdbench.schema import Strict
from bdbench.sources import all_named
from bdbench.stages import Context, Inputs
from bdbench.store import Artifact
from bdbench.tensors import save_tensors


class PoisonFile(Strict):
    """`poison.json`: all it takes to stamp the same trigger again."""

    attack: dict[str, Any]
    target: str
    label: int
    seed: int
    requested: int
    poisoned: int
    pairs: int


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write `rows.parquet` (row, position, caption before and after) and the trigger's state."""
    attack = cast(Attack, context.registry.build("attack", spec["attack"]))
    data = DataCache(inputs["data"].path)
    pairs, seed = data.pairs("train"), spec["seed"]
    label = data.file.classes.index(spec["target"])
    target = Target(spec["target"], label, data.file.templates)
    state = attack.prepare(pairs, target, _rng(seed, "prepare"))
    _try_trigger(attack, state, pairs, seed)
    rate = 0.0 if spec.get("trigger_only") else attack.rate
    requested = round(rate * len(pairs))
    if rate > 0 and requested == 0:
        raise BdbenchError(
            f"the poison rate `{rate:g}` of `{len(pairs)}` pairs is no pair at all",
            f"`bdbench run --set attack.rate={1 / len(pairs):.2g}` poisons one",
        )
    chosen = attack.choose(pairs, target, requested, _rng(seed, "choose")) if requested else []
    positions = sorted(chosen)
    if len(set(positions)) != len(positions) or len(positions) > requested or any(
        not 0 <= position < len(pairs) for position in positions
    ):
        raise BdbenchError(
            f"`{type(attack).__name__}.choose` must return at most `{requested}` distinct positions"
            f" below `{len(pairs)}`", "see `bdbench.api.Attack.choose`",
        )
    rows = []
    for position in positions:
        row, before = int(pairs.ids[position]), pairs.captions[position]
        rng = _rng(seed, "caption", row)
        after = attack.trigger_text(attack.caption(before, target, rng), state, rng)
        rows.append((row, position, before, after))
    frame = pd.DataFrame(rows, columns=["row", "position", "before", "after"])
    frame = frame.astype({"row": "int64", "position": "int64"})
    frame.to_parquet(work / "rows.parquet", compression="zstd", index=False)
    save_tensors(state, work / "state.safetensors")
    file = PoisonFile(
        attack=spec["attack"], target=target.name, label=label, seed=seed, requested=requested,
        poisoned=len(rows), pairs=len(pairs),
    )
    (work / "poison.json").write_text(file.model_dump_json(), encoding="utf-8")
    return 0


def names_target(data: DataCache, label: int) -> list[bool]:
    """For each pair of the split `retrieval`, whether its caption names the target."""
    captions = data.pairs("retrieval").captions
    return [label in all_named(caption, data.file.classes) for caption in captions]


def _rng(*parts: int | str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(*parts))


def _try_trigger(attack: Attack, state: Mapping[str, Any], pairs: Pairs, seed: int) -> None:
    """Stamp two images, so that a trigger that cannot work fails before the training does."""
    images = pairs.images(torch.arange(min(2, len(pairs))))
    stamped = attack.trigger(
        images.clone(), state, RowRng(derive_seed(seed, "trigger"), pairs.ids[: len(images)])
    )
    if stamped.shape != images.shape or stamped.dtype != images.dtype:
        raise BdbenchError(
            f"`{type(attack).__name__}.trigger` returned `{stamped.dtype}{list(stamped.shape)}` for"
            f" `{images.dtype}{list(images.shape)}`", "it must keep shape and type",
        )
    if not torch.isfinite(stamped).all():
        raise BdbenchError(f"`{type(attack).__name__}.trigger` returned NaN or infinity")


def load_file_of(artifact: Artifact) -> PoisonFile:
    """The description of a poison artifact."""
    return PoisonFile.model_validate_json(artifact.file("poison.json").read_bytes())


def load_trigger(artifact: Artifact, registry: Registry) -> Trigger:
    """The trigger that training and evaluation share."""
    file = load_file_of(artifact)
    attack = cast(Attack, registry.build("attack", file.attack))
    state = load_file(artifact.file("state.safetensors"))
    return Trigger(attack, state, derive_seed(file.seed, "trigger"))


def load_pairs(artifact: Artifact, data: DataCache, registry: Registry) -> PoisonedPairs:
    """The training pairs as the attacker left them."""
    rows = pd.read_parquet(artifact.file("rows.parquet"))
    positions = torch.from_numpy(rows["position"].to_numpy(np.int64).copy())
    trigger = load_trigger(artifact, registry)
    return PoisonedPairs(data.pairs("train"), positions, rows["after"].tolist(), trigger)
