"""What a run tells while it works: a table and bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bdbench.cards.text import clean, counted
from bdbench.cli.live import CellTable
from bdbench.execute import NodeEvent
from bdbench.plan import Plan

PLAIN_EVERY = 30.0
"""Seconds between lines where there is no terminal."""
_MANY = 30
"""Stages of a plan from which on those that are reused are counted in one line."""
_REFRESH = 4
"""Per second."""


class RunProgress:
    """A listener for `execute`; a context manager while it draws."""

    def __init__(self, console: Console, todo: Plan) -> None:
        self._console, self._total, self._finished = console, len(todo.nodes), 0
        self._reused = 0
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._bars = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", markup=False), TimeRemainingColumn(),
            console=console,
        )
        terminal = console.is_terminal
        self._cells = CellTable(todo) if terminal and len(todo.cards) > 1 else None
        self._live = Live(
            console=console, transient=True, refresh_per_second=_REFRESH,
            get_renderable=self._drawn,
        ) if terminal else None

    def __enter__(self) -> RunProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell_reused()
        if self._live is not None:
            self._live.stop()

    def _drawn(self) -> Group:
        """The table above the bars, as high as the terminal."""
        parts: list[RenderableType] = [] if self._cells is None else [
            self._cells.table(self._console.height - len(self._tasks) - 4), ""
        ]
        return Group(*parts, self._bars)

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, emoji=False)

    def _tell_reused(self) -> None:
        if self._reused:
            self._line(f"[{self._finished}/{self._total}] {counted(self._reused, 'stage')}  reused")
            self._reused = 0

    def __call__(self, event: NodeEvent) -> None:
        node, now = event.node, time.monotonic()
        name = f"{node.stage:<8}  {clean(node.label)}"
        if event.kind == "note":
            self._line(f"note: {clean(event.data['text'])}")
        elif event.kind == "started":
            self._tell_reused()
            self._started[node.key] = self._told[node.key] = now
            self._tasks[node.key] = self._bars.add_task(name, total=None, detail="")
            if self._cells is not None:
                self._cells.started(node)
        elif event.kind == "progress":
            self._progress(event, name, now)
        else:
            self._ended(event, name, now)

    def _ended(self, event: NodeEvent, name: str, now: float) -> None:
        node = event.node
        self._finished += 1
        begun = self._started.pop(node.key, None)
        if node.key in self._tasks:
            self._bars.remove_task(self._tasks.pop(node.key))
        if self._cells is not None:
            self._cells.ended(node, event.kind)
        if event.kind == "reused" and begun is None and self._total >= _MANY:
            self._reused += 1
            return
        what = f"{now - (begun or now):.1f} s" if event.kind == "done" else {
            "reused": "reused", "failed": "FAILED", "dropped": "left out: it rests on what failed",
        }[event.kind]
        self._line(f"[{self._finished}/{self._total}] {name}  {what}")
        if event.kind == "failed":
            for line in event.data["text"].split("\n"):
                self._line(f"  {clean(line)}".rstrip())

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
