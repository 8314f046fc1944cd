"""defend: hand the model and a clean budget to the defense, and nothing about the attack."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from bdbench.api import Objective, Repair
from bdbench.clip import Clip
from bdbench.data import DataCache, Labelled, Pairs
from bdbench.errors import BdbenchError
from bdbench.files import settle
from bdbench.group import device_of
from bdbench.hashing import derive_seed
from bdbench.schema import Augment, Hardware, Training
from bdbench.stages import Context, Inputs
from bdbench.store import RESUME
from bdbench.tensors import save_tensors
from bdbench.train import EpochLog, Progress, Report, fit


@dataclass(frozen=True)
class CleanBudget:
    """The budget of `bdbench.api.Budget`, writing snapshots into a folder."""

    pairs: Pairs
    validation: Labelled
    seed: int
    fit: Callable[[Clip, Objective, Training], Clip]
    snapshot: Callable[[Clip, int], None]


def budget_for(
    data: DataCache, pairs: int, augment: Augment, seed: int, work: Path, report: Report,
    logs: list[EpochLog], hardware: Hardware | None = None,
) -> CleanBudget:
    """A budget of the first `pairs` clean pairs; each call of `fit` resumes by itself."""
    clean = data.pairs("budget", pairs)
    calls: list[int] = []

    def snapshot(clip: Clip, step: int) -> None:
        aside = work / RESUME / "snapshot.new"
        save_tensors(clip.state(), aside)
        settle(aside, work / f"step-{step:04d}.safetensors")

    def run_fit(clip: Clip, objective: Objective, training: Training) -> Clip:
        earlier, number = sum(calls), len(calls)
        calls.append(training.epochs)
        logs.extend(fit(
            clip, objective, clean, training, augment, seed=derive_seed(seed, "fit", number),
            state=work / RESUME / f"fit-{number}.safetensors",
            after_epoch=lambda epoch: snapshot(clip, earlier + epoch), report=report,
            hardware=hardware,
        ))
        return clip

    return CleanBudget(clean, data.labelled("validation"), seed, run_fit, snapshot)


@contextmanager
def one_way(report: Callable[[Mapping[str, Any]], None]) -> Iterator[Report]:
    """A report that tells `report` and does not lead to it.

    Progress goes through a queue to another thread: what the defense is handed would otherwise
    reach the registry and the store, and so the attack.
    """
    queue: SimpleQueue[Progress | None] = SimpleQueue()

    def tell() -> None:
        while (progress := queue.get()) is not None:
            report(vars(progress))

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield queue.put
    finally:
        queue.put(None)
        teller.join()


def _equal(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(
        torch.equal(state[name].cpu().nan_to_num(), other[name].nan_to_num()) for name in state
    )


def run(spec: Mapping[str, Any], inputs: Inputs, work: Path, context: Context) -> int:
    """Write the model after every step the defense kept, `step-NNNN.safetensors`."""
    torch.set_num_threads(spec["threads"])
    defense = cast(Repair, context.registry.build("defense", spec["defense"]))
    logs: list[EpochLog] = []
    hardware = Hardware(**spec.get("hardware", {}))
    device = device_of(hardware, context.gpus)
    clip = Clip.load(inputs["pretrain"].path).to(device)
    clip.sort_words()
    with one_way(context.report) as report:
        budget = budget_for(
            DataCache(inputs["data"].path, device), spec["budget"], Augment(**spec["augment"]),
            spec["seed"], work, report, logs, hardware,
        )
        repaired = defense.repair(clip, budget)
    kept = sorted(work.glob("step-*.safetensors"))
    if not kept:
        budget.snapshot(repaired, 1)
    elif not _equal(repaired.state(), load_file(kept[-1])):
        raise BdbenchError(
            f"`{type(defense).__name__}.repair` returned another model than `{kept[-1].name}`, the"
            " last it kept, and only kept models are evaluated",
            "call `budget.snapshot(clip, step)` on it, with a step after that",
        )
    (work / "model.json").write_text(repaired.file.text(), encoding="utf-8")
    lines = "".join(json.dumps(epoch) + "\n" for epoch in logs)
    (work / "train.jsonl").write_text(lines, encoding="utf-8")
    return len(logs) * len(budget.pairs)
