"""Generated submissions in a folder of their own: figures that look like runs and are none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from math import sqrt
from pathlib import Path

import pytest

from bdbench.cards.select import select, verdict
from bdbench.hashing import digest, key_of
from bdbench.schema import Card, Cell, Point, Poison, Score, Stage, Submission, Track
from tests.cards.conftest import OTHERS, TEST, build

LRS = (1e-3, 2e-3, 4e-3, 8e-3)
STRENGTH = {"none": 0.0, "bn_only": 0.02, "finetune": 1.2, "finetune_ssl": 3.0, "cleanclip": 4.5}
RESISTS = {"mmcl": 1.0, "mmcl_ssl": 0.28}
TRACK = Track(
    summary="Generated figures", edition=1, recipe="tiny",
    attacks=("none", "badnet", "badnet_fixed", "blended", "label_consistent"),
    objectives=("mmcl", "mmcl_ssl"), defenses=tuple(STRENGTH), seeds=(11, 22, 33),
)


@cache
def score(k: int, n: int) -> Score:
    """A rate with Wilson's interval in closed form: thousands are drawn here."""
    z, p = 1.96, k / n
    middle, half = p + z * z / 2 / n, z * sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return Score(value=p, low=max(0.0, min(low, p)), high=min(1.0, max(high, p)), n=n, k=k)


def point(acc: float, asr: float, **where) -> Point:
    """A model with the given clean accuracy and ASR."""
    hits = score(round(asr * OTHERS), OTHERS)
    lift = hits.value - 0.01
    return Point(
        **{"sweep": {}, "order": 0, "step": 0} | where,
        scores={
            "clean_top1": score(round(acc * TEST), TEST), "asr_top1": hits,
            "base_rate": score(20, OTHERS),
            "lift": Score(value=lift, low=lift - 0.01, high=min(lift + 0.01, 1.0), n=OTHERS),
            "triggered_top1": score(round(acc * (1 - asr) * TEST), TEST),
        },
        validation=score(round(acc * TEST), TEST),
    )


def trajectory(
    cell: Cell, runs: Sequence[float] = LRS, epochs: int = 6, strength: float | None = None
) -> tuple[Point, ...]:
    """A start and what the runs make of it, drawn from the cell's name."""
    draw = random.Random(repr(cell))
    start = random.Random(f"{cell.attack} {cell.objective} {cell.seed}")
    worked = cell.attack != "none" and not (cell.attack == "blended" and cell.seed == 33)
    acc, asr = start.uniform(0.79, 0.83), start.uniform(0.95, 0.998) if worked else 0.03
    points = [point(acc, asr)]
    strength = STRENGTH.get(cell.defense, 2.0) if strength is None else strength
    strength *= RESISTS.get(cell.objective, 0.5)
    for order, lr in enumerate(runs):
        for step in range(1, epochs + 1):
            done = strength * (order + 1) / len(runs) * step / epochs
            left = asr * 2.718 ** (-draw.uniform(0.7, 1.3) * done)
            cost = 0.012 * order * (1.5 - step / epochs) + draw.uniform(-0.004, 0.01)
            points.append(point(
                acc - cost * (strength > 0.05), max(left, 0.002), sweep={"lr": lr}, order=order,
                step=step,
            ))
    return tuple(points)


@cache
def base() -> Card:
    """What all cards have in common."""
    return build()


def card_of(cell: Cell, track: Track = TRACK, points=None) -> Card:
    """A card of a cell, as the schema has it."""
    points = points or trajectory(cell)
    poisoned = 0 if cell.attack == "none" else 600
    poison = Poison(target="banana", requested=poisoned, poisoned=poisoned, pairs=12000)
    recipe = base().recipe
    stages = tuple(
        Stage(stage=stage, label=f"{cell.attack} / {cell.objective}", key=key_of([repr(cell), i]),
              files={name: digest([repr(cell), stage, name])})
        for i, (stage, name) in enumerate((
            ("data", "pixels.bin"), ("poison", "rows.parquet"), ("pretrain", "model.safetensors"),
            *(("defend", f"step-{i:04}.safetensors") for i in range(6)),
            *(("evaluate", f"predictions-{i}.parquet") for i in range(5)),
        ))
    )
    return base().model_copy(update={
        "cell": cell, "poison": poison, "trajectory": tuple(points),
        "verdict": verdict(points[0], poison, track.gate),
        "selections": select(points, recipe.selection, {"lr": 2e-3}),
        "provenance": base().provenance.model_copy(update={"stages": stages}),
    })


def submission_of(
    name: str, track: Track = TRACK, *, cells: Iterable[Cell] | None = None, kind="defense",
    folder: str = "demo", **fields,
) -> Submission:
    """A submission of a method with every cell of the track, or with the given ones."""
    if "cards" not in fields:
        cells = track.cells(kind, name) if cells is None else cells
        fields["cards"] = tuple(card_of(cell, track) for cell in cells)
    return Submission(**{
        "track": folder, "edition": track.edition, "kind": kind, "name": name,
        "summary": f"The method {name}", "authors": ("A. Author",),
        "url": "https://example.org/method",
    } | fields)


def toml(track: Track) -> str:
    """A track as TOML; JSON's scalars and lists are TOML's."""
    data = track.model_dump(mode="json", exclude_none=True)
    tables = {name: data.pop(name) for name in ("gate", "statistic") if name in data}
    lines = [f"{name} = {json.dumps(value)}" for name, value in data.items()]
    for name, table in tables.items():
        lines += [f"\n[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def write(root: Path, submissions: Iterable[Submission], track: Track = TRACK) -> Path:
    """The folder of the track `demo` below `root`, with the submissions in it."""
    folder = root / "demo"
    (folder / "submissions").mkdir(parents=True, exist_ok=True)
    (folder / "track.toml").write_text(toml(track), encoding="utf-8")
    for submission in submissions:
        path = folder / "submissions" / f"{submission.name}.json"
        path.write_text(submission.model_dump_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def full() -> tuple[Submission, ...]:
    """Five defenses on five attacks, two objectives and three seeds."""
    return tuple(submission_of(name) for name in STRENGTH)


@pytest.fixture
def root(tmp_path: Path, full: tuple[Submission, ...]) -> Path:
    """A folder `leaderboards` with one track that all five defenses were submitted to."""
    write(tmp_path / "leaderboards", full)
    return tmp_path / "leaderboards"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`write` below a folder of its own; returns the folder `leaderboards`."""

    def make(*submissions: Submission, track: Track = TRACK) -> Path:
        write(tmp_path / "leaderboards", submissions, track)
        return tmp_path / "leaderboards"

    return make
