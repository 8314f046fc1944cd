"""The CC6M matrix by simulation: `python -m tests.scaling` prints the table that README has.

Seven attacks, two objectives and eight defenses with the paper's seven learning rates, three seeds,
on the recipe `cc6m_rn50`. bdbench ships fewer methods than that: copies of those it ships stand in
for the others, under other versions, and so every one of them is run.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bdbench.cli.planned import cluster, duration
from bdbench.forecast import Cost, Forecast, forecast
from bdbench.plan import Node, Plan, cells, plan
from bdbench.registry import Registry

GPUS = (1, 8, 64)
METHODS = {
    "attacks": ["none", "badnet", "badnet", "blended", "blended", "label_consistent",
                "label_consistent"],
    "objectives": ["mmcl", "mmcl_ssl"],
    "defenses": ["none", "bn_only", "finetune", "finetune", "finetune_ssl", "cleanclip",
                 "cleanclip", "cleanclip"],
}
SEEDS = (0, 1, 2)

HOURS = {"Mmcl": 26.0, "MmclSsl": 38.0}
"""Assumed of a pre-training on eight GPUs, by objective: the middle of what Verma et al. report."""
PAIRS, EPOCHS, IMAGES = 6_000_000, 64, 6_210_000
TESTED, VALIDATED, PROMPTS = 50_000, 50_000, 80_000
"""What every model is asked: test images, twice, validation images, and prompts for the classes."""
FORWARD = 3.0
"""Assumed: images or prompts a second that are only encoded, over pairs a second trained on."""
DECODED = 500.0
"""Assumed: images that a core decodes and scales in a second; at most 16 cores do."""
MODEL, IMAGE, ROW = 0.41e9, 30e3, 20.0
"""Bytes of a model in fp32 and of a stored image, as the recipe tells, and of a prediction."""


def registry(folder: Path) -> Registry:
    """The shipped registry, with as many methods as the matrix has."""
    shipped = Registry()._root
    shutil.copytree(shipped, folder, ignore=lambda at, names: set(names) & set(METHODS))
    for kind, sources in METHODS.items():
        (folder / kind).mkdir()
        for i, source in enumerate(sources):
            text = re.sub(r"^version = .*\n", "", (shipped / kind / f"{source}.toml").read_text(),
                          flags=re.MULTILINE)
            (folder / kind / f"{source}_{i}.toml").write_text(f"version = {i + 1}\n{text}")
    return Registry(root=folder)


def matrix(folder: Path, gpus: int) -> Plan:
    """The plan of all cells, each model pre-trained on eight GPUs, or on one where there is one."""
    found = registry(folder)
    wanted = cells(found, recipe="cc6m_rn50", attacks=["all"], objectives=["all"],
                   defenses=["all"], seeds=SEEDS)
    return plan(found, wanted, {
        "dataset": {"digest": "0" * 64, "path": str(folder)},
        "recipe": {"hardware": {"processes": min(gpus, 8)}},
    })


def speed(use: str) -> float:
    """Pairs a second on one GPU."""
    return PAIRS * EPOCHS / (HOURS[use.split(":")[-1]] * 3600 * 8)


def cost(todo: Plan, node: Node, cores: int) -> Cost:
    """Of a stage, from the assumptions above; `cores`: of a machine.

    The images that are trained on do not stay in memory: they are read anew in every epoch. Those
    of a defense and of the test do.
    """
    spec = node.spec
    if node.stage == "data":
        return Cost(IMAGES / DECODED / min(node.threads, cores), round(IMAGES * IMAGE))
    if node.stage == "poison":
        return Cost(60, 1_000_000)
    if node.stage == "pretrain":
        seconds = PAIRS * EPOCHS / speed(spec["objective"]["use"]) / node.gpus
        return Cost(seconds, round(MODEL), round(EPOCHS * PAIRS * IMAGE))
    if node.stage == "defend":
        with_ssl = spec["defense"]["use"].endswith(("CleanClip", "FineTuneSsl"))
        pairs = models(node) * spec["budget"]
        return Cost(
            30 + pairs / speed("MmclSsl" if with_ssl else "Mmcl"), round(models(node) * MODEL),
            round(spec["budget"] * IMAGE + MODEL),
        )
    if node.stage == "evaluate":
        count = max(1, models(todo.nodes[node.inputs["model"]]))
        images = (2 * TESTED + VALIDATED) * count
        encoded = images + PROMPTS * count
        return Cost(30 + encoded / (FORWARD * speed("Mmcl")), round(images * ROW),
                    round((TESTED + VALIDATED) * IMAGE + count * MODEL))
    return Cost(5, 1_000_000)


def models(node: Node) -> int:
    """How many a node makes: a defense, one an epoch."""
    return int(node.spec["defense"]["params"].get("epochs", 0)) if node.stage == "defend" else 0


def simulated(gpus: int) -> tuple[Plan, Forecast]:
    """The plan and what it costs on so many GPUs."""
    with tempfile.TemporaryDirectory() as folder:
        todo = matrix(Path(folder) / "registry", gpus)
    machines = cluster(gpus)
    costs = {key: cost(todo, node, machines[0].cores) for key, node in todo.nodes.items()}
    return todo, forecast(todo, todo.nodes, costs, machines)


def table() -> Iterator[str]:
    """The rows, as Markdown."""
    yield "| GPUs | hours | GPU hours | at work | in the store | through the store |"
    yield "|--:|--:|--:|--:|--:|--:|"
    for gpus in GPUS:
        todo, found = simulated(gpus)
        needed = sum(
            cost(todo, node, 1).seconds * node.gpus for node in todo.nodes.values()
        ) / 3600
        yield (
            f"| {gpus} | {duration(found.wall)} | {needed:,.0f} | {found.busy:.0%}"
            f" | {sum(found.stored.values()) / 1e12:,.1f} TB | {found.traffic / 1e12:,.1f} TB |"
        )


if __name__ == "__main__":
    print("\n".join(table()))
