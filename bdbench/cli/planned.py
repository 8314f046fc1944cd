"""`bdbench run --plan`: the stages of a plan, what the store has of them, what the rest costs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import typer
from rich.console import Console
from rich.table import Table

from bdbench.cards.text import clean, counted
from bdbench.environment import cores
from bdbench.execute.pool import Machine
from bdbench.forecast import Forecast, forecast, measured
from bdbench.plan import STAGES, Node, Plan
from bdbench.store import Store, disk_errors

CLUSTERS = (1, 8, 64)
"""GPUs for which the hours of a plan that wants some are told."""
PER_MACHINE = Machine(cores=64, gpus=8)
"""A machine of such a cluster, or the part of it with the GPUs that are counted; it is larger where
a node wants more."""


def print_plan(todo: Plan, store: Store, as_json: bool) -> None:
    """Nodes per stage with what is reused and what the rest costs, or all nodes as JSON."""
    with disk_errors(store.root):
        waiting = {
            key: node for key, node in todo.nodes.items() if store.find(node.stage, key) is None
        }
        costs = measured(todo, store)
    for note in store.taken_notes():
        typer.echo(f"note: {clean(note)}", err=True)
    if as_json:
        typer.echo(json.dumps([
            {"stage": node.stage, "key": key, "label": node.label, "reused": key not in waiting,
             "inputs": node.inputs,
             "seconds": round(costs[key].seconds, 1) if key in costs else None}
            for key, node in todo.nodes.items()
        ], indent=1))
        return
    gpus = max((node.gpus for node in waiting.values()), default=0)
    places = {"this machine": [Machine(cores())]} if gpus == 0 else {
        counted(count, "GPU"): cluster(count, gpus)
        for count in [count for count in CLUSTERS if count >= gpus] or [gpus]
    }
    found = {
        name: forecast(todo, waiting, costs, machines) for name, machines in places.items()
    }
    console = Console(highlight=False)
    console.print(f"{counted(len(todo.cards), 'cell')}, {counted(len(todo.nodes), 'stage')}")
    console.print(_table(todo, waiting, next(iter(found.values()))))
    if waiting:
        for line in told(found):
            console.print(line)


def cluster(gpus: int, least: int = 0) -> list[Machine]:
    """As many machines as have so many GPUs between them, each with `least` where that is more."""
    share = PER_MACHINE.cores // PER_MACHINE.gpus
    each = max(PER_MACHINE.gpus, least)
    whole, rest = divmod(gpus, each)
    return [Machine(share * each, each)] * whole + [Machine(share * rest, rest)] * (rest > 0)


def told(found: Mapping[str, Forecast]) -> list[str]:
    """The hours at each place, and what is not in them."""
    first = next(iter(found.values()))
    lines = []
    if first.work:
        lines += [
            f"on {name}: {duration(one.wall)}, {one.busy:.0%} busy" for name, one in found.items()
        ]
        lines.append(f"through the store: {first.traffic / 1e9:,.1f} GB read and written")
    if first.unknown:
        what = ", ".join(f"{n} {stage}" for stage in STAGES if (n := first.unknown.get(stage)))
        lines.append(f"not counted, because no stage like it has run here: {what}")
    return lines


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h 05 min`, `400 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 2:
        return f"{60 * hours + minutes} min"
    return f"{hours} h {minutes:02} min" if hours < 100 else f"{seconds / 3600:,.0f} h"


def _table(todo: Plan, waiting: Mapping[str, Node], found: Forecast) -> Table:
    counts = Counter(node.stage for node in todo.nodes.values())
    left = Counter(node.stage for node in waiting.values())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("stage", "nodes", "reused", "to run", "work", "GB"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in (stage for stage in STAGES if counts[stage]):
        known = stage in found.work
        table.add_row(
            stage, str(counts[stage]), str(counts[stage] - left[stage]), str(left[stage]),
            duration(found.work[stage]) if known else "?" if left[stage] else "-",
            f"{found.stored[stage] / 1e9:.2f}" if known else "?" if left[stage] else "-",
        )
    return table
