"""evaluate: one row per test image and model, clean and with the trigger.

Where the dataset has the splits, also one per pair of a retrieval, and the answers of the probes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from bdbench.api import PROBES, TOP
from bdbench.clip import Clip
from bdbench.data import DataCache, Images, Labelled, Pairs, Trigger
from bdbench.group import device_of
from bdbench.probes import fit
from bdbench.retrieval import first_of, first_places, matches, numbered, places
from bdbench.schema import Hardware
from bdbench.stages import Context, Inputs
from bdbench.stages.poison import load_file_of, load_trigger, names_target
from bdbench.store import RESUME

CLEAN = [f"clean{i}" for i in range(1, TOP + 1)]
TRIGGERED = [f"triggered{i}" for i in range(1, TOP + 1)]
_SCHEMA = pa.schema([
    ("step", pa.int32()), ("set", pa.string()), ("row", pa.int64()), ("label", pa.int32()),
    *((name, pa.int32()) for name in CLEAN + TRIGGERED),
])
_RETRIEVAL = pa.schema([
    ("step", pa.int32()), ("row", pa.int64()), ("names_target", pa.bool_()),
    ("image", pa.int32()),
    *((name, pa.int32()) for name in ("captions", "images", "clean", "triggered")),
])
_PROBES = pa.schema([
    ("step", pa.int32()), ("row", pa.int64()),
    *((f"{probe}_{view}", pa.int32()) for probe in PROBES for view in ("clean", "triggered")),
])
_HASHED = 1024
"""Images in memory at a time while they are told apart."""
Columns = dict[str, Any]
Seen = Mapping[str, list[Tensor]]
"""Features of the test, clean and triggered, in batches."""


def top_classes(logits: Tensor) -> Tensor:
    """int64 [b, TOP] class indices of float [b, classes] logits, best first.

    Ties go to the lower index; -1 fills up where there are fewer classes.
    """
    order = torch.sort(logits, dim=1, descending=True, stable=True).indices[:, :TOP]
    return torch.nn.functional.pad(order, (0, TOP - order.shape[1]), value=-1)


def _features(
    clip: Clip, images: Images, batch: int, trigger: Trigger | None = None
) -> Iterator[Tensor]:
    """L2-normalised features, float [b, d], of all images in order."""
    for index in torch.arange(len(images)).split(batch):  # type: ignore[no-untyped-call]
        pixels = images.images(index)
        if trigger is not None:
            pixels = trigger(pixels, images.ids[index])
        yield clip.encode_image(pixels)


def image_bytes(images: Images) -> Iterator[bytes]:
    """What is equal for equal images."""
    for index in torch.arange(len(images)).split(_HASHED):  # type: ignore[no-untyped-call]
        for pixels in images.pixels[index].numpy():
            yield hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def _answers(features: Iterable[Tensor], head: Tensor) -> NDArray[np.int32]:
    found = [top_classes(part @ head).cpu() for part in features]
    return torch.cat(found).to(torch.int32).numpy()


@dataclass
class _Model:
    """What is asked of every snapshot."""

    clip: Clip
    sets: Mapping[str, Labelled]
    """The test, the validation, then the further sets."""
    trigger: Trigger
    batch: int

    def features(self, images: Images, triggered: bool = False) -> Iterator[Tensor]:
        return _features(self.clip, images, self.batch, self.trigger if triggered else None)

    def zero_shot(self, seen: Seen) -> Iterator[tuple[str, Labelled, Columns]]:
        """Every labelled set with the answers on it; only the test is shown with the trigger."""
        for name, images in self.sets.items():
            if name != "validation":  # which has the classes of the test before it
                head = self.clip.zero_shot_head(images.classes, images.templates)
            clean = _answers(seen["clean"] if name == "test" else self.features(images), head)
            triggered = (
                _answers(seen["triggered"], head) if name == "test" else np.full_like(clean, -1)
            )
            yield name, images, {
                **dict(zip(CLEAN, clean.T, strict=True)),
                **dict(zip(TRIGGERED, triggered.T, strict=True)),
            }

    def retrieval(
        self, pairs: Pairs, targets: Tensor, images: Tensor, belong: Tensor
    ) -> Columns:
        """Places of captions and images among each other.

        `targets`: bool [m], of the captions; `images`: int64 [m], of which image each is;
        `belong`: as `bdbench.retrieval.matches` has it.
        """
        tokens = self.clip.tokenize(pairs.captions).split(self.batch)  # type: ignore[no-untyped-call]
        texts = torch.cat([
            self.clip.encode_text(self.clip.trim(part).to(self.clip.device)) for part in tokens
        ])
        clean, triggered = (torch.cat(list(self.features(pairs, seen))) for seen in (False, True))
        shown = clean[first_of(images)]
        backward = belong.flip(1)[belong[:, 1].argsort(stable=True)]
        found = {
            "captions": places(shown, texts, belong)[images],
            "images": places(texts, shown, backward), "image": images,
            "clean": first_places(clean, texts, targets),
            "triggered": first_places(triggered, texts, targets),
        }
        return {name: column.cpu().numpy() for name, column in found.items()} | {
            "names_target": targets.cpu().numpy()
        }

    def probes(self, seen: Seen, known: Labelled) -> Columns:
        """What classifiers say of the test that are fitted on the features of `known`."""
        features = torch.cat(list(self.features(known)))
        fitted = fit(features, known.labels.to(self.clip.device), len(known.classes))
        return {
            f"{probe}_{view}": torch.cat(list(map(classify, parts))).cpu().numpy()
            for probe, classify in fitted.items() for view, parts in seen.items()
        }


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write `predictions.parquet` and the like for every snapshot of the model artifact."""
    torch.set_num_threads(spec["threads"])
    device = device_of(Hardware(**spec.get("hardware", {})), context.gpus)
    data = DataCache(inputs["data"].path, device)
    tests = DataCache(inputs["tests"].path, device) if "tests" in inputs else data
    trigger = load_trigger(inputs["poison"], context.registry)
    folder = inputs["model"].path
    snapshots = sorted(folder.glob("step-*.safetensors")) or [folder / "model.safetensors"]
    clip = Clip.load(folder, snapshots[0].name).to(device)
    aside = work / RESUME
    sets = {
        name: (data if name == "validation" else tests).labelled(name).decoded(
            aside / f"{name}.pixels"
        )
        for name in ("test", "validation", *tests.file.tests)
    }
    asked, samples = _Model(clip, sets, trigger, spec["batch"]), 0
    sizes, test = tests.file.sizes, sets["test"]
    with ExitStack() as files:
        def opened(name: str, schema: pa.Schema) -> pq.ParquetWriter:
            writer = pq.ParquetWriter(work / f"{name}.parquet", schema, compression="zstd")
            return cast(pq.ParquetWriter, files.enter_context(writer))

        predictions = opened("predictions", _SCHEMA)
        if "retrieval" in sizes:
            ranked = opened("retrieval", _RETRIEVAL)
            pairs = tests.pairs("retrieval").decoded(aside / "retrieval.pixels")
            label = load_file_of(inputs["poison"]).label
            targets = torch.tensor(names_target(tests, label), device=device)
            shown = numbered(image_bytes(pairs)).to(device)
            belong = matches(shown, pairs.captions).to(device)
        if "probe" in sizes:
            answered = opened("probes", _PROBES)
            known = tests.labelled("probe").decoded(aside / "probe.pixels")
        for path in snapshots:
            clip.load_weights(path)
            step = int(path.stem.partition("-")[2] or 0)
            with torch.inference_mode(), clip.evaluating():
                seen = {
                    view: list(asked.features(test, view == "triggered"))
                    for view in ("clean", "triggered")
                }
                for name, images, columns in asked.zero_shot(seen):
                    columns |= {"set": [name] * len(images), "label": images.labels.numpy()}
                    _write(predictions, step, images, columns)
                    samples += len(images) * (2 if name == "test" else 1)
                if "retrieval" in sizes:
                    _write(ranked, step, pairs, asked.retrieval(pairs, targets, shown, belong))
                    samples += 2 * len(pairs)
                if "probe" in sizes:
                    _write(answered, step, test, asked.probes(seen, known))
                    samples += len(known)
    return samples


def _write(out: pq.ParquetWriter, step: int, images: Images, columns: Columns) -> None:
    whole = {
        "step": np.full(len(images), step), "row": images.ids.numpy(), **columns,
    }
    out.write_table(pa.table({
        field.name: pa.array(whole[field.name], field.type) for field in out.schema
    }))
