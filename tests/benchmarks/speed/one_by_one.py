"""A sweep as the authors' scripts have it: run after run, and a fresh evaluation after every epoch.

The training is bdbench's own, so that the models are the same. An evaluation decodes (or draws) the
images anew, stamps the trigger on them and embeds the prompts, in the process that trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bdbench.api import Dataset, Objective, Repair
from bdbench.clip import Clip
from bdbench.data import DataCache, Images, Trigger
from bdbench.datasets.captioned import Captioned
from bdbench.hashing import derive_seed
from bdbench.registry import Registry
from bdbench.schema import Augment, Training
from bdbench.sources import Fault, named
from bdbench.sources.decode import decode
from bdbench.stages import Inputs
from bdbench.stages.defend import CleanBudget
from bdbench.train import fit

Rates = dict[int, dict[str, float]]
"""By epoch: `clean_top1`, `asr_top1` and `validation`."""


def pixels(dataset: Dataset, split: str, side: int, seed: int) -> Iterator[tuple[Any, int]]:
    """uint8 [3, side, side] images with their labels, decoded or drawn anew."""
    if not isinstance(dataset, Captioned):
        for rows in dataset.rows(split, side, seed):
            yield from zip(rows.images, rows.labels.tolist(), strict=True)
        return
    source, names = getattr(dataset, split), dataset.classes()
    every = (one for part in source.parts(dataset._root) for one in part.samples())
    whole = (one for one in every if not isinstance(one, Fault))
    for sample in islice(whole, source.start, source.stop):
        label = named(sample.caption, names)
        if label >= 0:
            yield decode(sample.image, side), label


@dataclass(frozen=True)
class Known:
    """A labelled split: where it comes from, and what is stored of it."""

    split: str
    dataset: Dataset
    seed: int
    cache: DataCache


@dataclass(frozen=True)
class Judge:
    """What an evaluation asks of a model."""

    test: Known
    validation: Known
    trigger: Trigger
    target: int
    batch: int

    def __call__(self, clip: Clip) -> dict[str, float]:
        """The rates of a model, from nothing but its weights and the files."""
        with torch.inference_mode(), clip.evaluating():
            file = self.test.cache.file
            head = clip.zero_shot_head(file.classes, file.templates)
            clean, triggered, truth = self._answers(clip, head, self.test, self.trigger)
            held_out, _, right = self._answers(clip, head, self.validation, None)
        others = truth != self.target
        return {
            "clean_top1": _share(clean == truth), "validation": _share(held_out == right),
            "asr_top1": _share(triggered[others] == self.target),
        }

    def _answers(
        self, clip: Clip, head: Tensor, known: Known, trigger: Trigger | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """int64 [n]: classes without and with the trigger, and the true ones."""
        side, ids = known.cache.file.resolution, known.cache.labelled(known.split).ids
        images, labels = zip(*pixels(known.dataset, known.split, side, known.seed), strict=True)
        stored = Images(ids, torch.from_numpy(np.stack(images)))
        clean, triggered = [], []
        for index in torch.arange(len(stored)).split(self.batch):
            seen = stored.images(index)
            clean.append((clip.encode_image(seen) @ head).argmax(1))
            if trigger is not None:
                stamped = trigger(seen, ids[index])
                triggered.append((clip.encode_image(stamped) @ head).argmax(1))
        return torch.cat(clean), torch.cat(triggered or clean), torch.tensor(labels)


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)


def run(
    spec: Mapping[str, Any], inputs: Inputs, judge: Judge, registry: Registry, work: Path
) -> Rates:
    """A point of the sweep; `spec` and `inputs` are those of its defend stage."""
    torch.set_num_threads(spec["threads"])
    defense = cast(Repair, registry.build("defense", spec["defense"]))
    data, found = DataCache(inputs["data"].path), Rates()
    clean = data.pairs("budget", spec["budget"])
    clip = Clip.load(inputs["pretrain"].path)
    clip.sort_words()

    def fine_tune(clip: Clip, objective: Objective, training: Training) -> Clip:
        def after_epoch(epoch: int) -> None:
            found[epoch] = judge(clip)

        fit(
            clip, objective, clean, training, Augment(**spec["augment"]),
            seed=derive_seed(spec["seed"], "fit", 0), state=work / "fit.safetensors",
            after_epoch=after_epoch,
        )
        return clip

    work.mkdir(parents=True)
    defense.repair(clip, CleanBudget(
        clean, data.labelled("validation"), spec["seed"], fine_tune, lambda clip, step: None,
    ))
    return found
