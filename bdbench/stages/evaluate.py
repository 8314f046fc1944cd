"""evaluate: one row per test image and model, clean and with the trigger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bdbench.api import TOP
from bdbench.clip import Clip
from bdbench.data import DataCache, Images, Trigger
from bdbench.stages import Context, Inputs
from bdbench.stages.poison import load_trigger

CLEAN = [f"clean{i}" for i in range(1, TOP + 1)]
TRIGGERED = [f"triggered{i}" for i in range(1, TOP + 1)]
_SCHEMA = pa.schema([
    ("step", pa.int32()), ("set", pa.string()), ("row", pa.int64()), ("label", pa.int32()),
    *((name, pa.int32()) for name in CLEAN + TRIGGERED),
])


def top_classes(logits: Tensor) -> Tensor:
    """int64 [b, TOP] class indices of float [b, classes] logits, best first.

    Ties go to the lower index; -1 fills up where there are fewer classes.
    """
    order = torch.sort(logits, dim=1, descending=True, stable=True).indices[:, :TOP]
    return torch.nn.functional.pad(order, (0, TOP - order.shape[1]), value=-1)


def _predict(
    clip: Clip, head: Tensor, images: Images, batch: int, trigger: Trigger | None
) -> np.ndarray[Any, Any]:
    found = []
    for index in torch.arange(len(images)).split(batch):  # type: ignore[no-untyped-call]
        pixels = images.images(index)
        if trigger is not None:
            pixels = trigger(pixels, images.ids[index])
        found.append(top_classes(clip.encode_image(pixels) @ head))
    return torch.cat(found).to(torch.int32).numpy()


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write `predictions.parquet` for every snapshot of the model artifact."""
    torch.set_num_threads(spec["threads"])
    data = DataCache(inputs["data"].path)
    trigger = load_trigger(inputs["poison"], context.registry)
    test, validation = data.labelled("test"), data.labelled("validation")
    further = {name: data.labelled(name) for name in data.file.tests}
    folder = inputs["model"].path
    snapshots = sorted(folder.glob("step-*.safetensors")) or [folder / "model.safetensors"]
    clip = Clip.load(folder, snapshots[0].name)
    samples = 0
    with pq.ParquetWriter(work / "predictions.parquet", _SCHEMA, compression="zstd") as out:
        for path in snapshots:
            clip.load_weights(path)
            step = int(path.stem.partition("-")[2] or 0)
            head = clip.zero_shot_head(test.classes, test.templates)
            with torch.inference_mode(), clip.evaluating():
                clean = _predict(clip, head, test, spec["batch"], None)
                triggered = _predict(clip, head, test, spec["batch"], trigger)
                held_out = _predict(clip, head, validation, spec["batch"], None)
                others = [
                    (name, images, _predict(
                        clip, clip.zero_shot_head(images.classes, images.templates), images,
                        spec["batch"], None,
                    ))
                    for name, images in further.items()
                ]
            for name, images, first, second in (
                ("test", test, clean, triggered),
                *(
                    (name, images, found, np.full_like(found, -1))
                    for name, images, found in (("validation", validation, held_out), *others)
                ),
            ):
                columns = {
                    "step": np.full(len(images), step, np.int32), "set": [name] * len(images),
                    "row": images.ids.numpy(), "label": images.labels.numpy().astype(np.int32),
                    **dict(zip(CLEAN, first.T, strict=True)),
                    **dict(zip(TRIGGERED, second.T, strict=True)),
                }
                out.write_table(pa.table(columns, schema=_SCHEMA))
            samples += 2 * len(test) + len(validation) + sum(map(len, further.values()))
    return samples
