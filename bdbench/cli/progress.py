"""What a run tells while it works: bars on a terminal, a plain line every 30 s elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bdbench.cards.text import clean
from bdbench.execute import NodeEvent

PLAIN_EVERY = 30.0
"""Seconds between lines where there is no terminal."""


class RunProgress:
    """A listener for `execute`; a context manager while it draws."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._finished = console, total, 0
        self._bars = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", markup=False), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> RunProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, emoji=False)

    def __call__(self, event: NodeEvent) -> None:
        node, now = event.node, time.monotonic()
        name = f"{node.stage:<8}  {clean(node.label)}"
        if event.kind == "note":
            self._line(f"note: {clean(event.data['text'])}")
        elif event.kind == "started":
            self._started[node.key] = self._told[node.key] = now
            self._tasks[node.key] = self._bars.add_task(name, total=None, detail="")
        elif event.kind == "progress":
            self._progress(event, name, now)
        else:
            self._finished += 1
            seconds = now - self._started.pop(node.key, now)
            if node.key in self._tasks:
                self._bars.remove_task(self._tasks.pop(node.key))
            what = "reused" if event.kind == "reused" else f"{seconds:.1f} s"
            self._line(f"[{self._finished}/{self._total}] {name}  {what}")

    def _progress(self, event: NodeEvent, name: str, now: float) -> None:
        data, key = event.data, event.node.key
        speed = data["done"] / max(1e-9, now - self._started[key])
        epoch = f"epoch {data['epoch']}/{data['epochs']}, " if "epoch" in data else ""
        detail = f"{epoch}{speed:,.0f} samples/s"
        self._bars.update(
            self._tasks[key], total=data["total"], completed=data["seen"], detail=detail
        )
        if not self._console.is_terminal and now - self._told[key] > PLAIN_EVERY:
            self._told[key] = now
            left = (data["total"] - data["seen"]) / max(1e-9, speed)
            self._line(f"{name}  {detail}, {left:.0f} s left")
