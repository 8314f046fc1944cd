"""What a run tells: a plain line every 30 s, or bars with epoch, speed and the time left."""

from __future__ import annotations

import io
import re
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from bdbench.cli import progress
from bdbench.cli.progress import PLAIN_EVERY, RunProgress
from bdbench.execute import NodeEvent
from bdbench.plan import Node, Plan

NODE = Node("pretrain", "badnet / mmcl", {}, {})
OTHER = Node("data", "shapes", {}, {})
SAMPLES = 100
"""Per second of the fake clock."""


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=made))
    return made


def trained(seconds: float, total: int = 100_000, resumed: int = 0) -> NodeEvent:
    done = round(seconds * SAMPLES)
    return NodeEvent("progress", NODE, {
        "epoch": 2, "epochs": 10, "done": done, "total": total, "seen": done + resumed,
    })


def plain() -> tuple[io.StringIO, Console]:
    out = io.StringIO()
    return out, Console(file=out, force_terminal=False, width=80)


def test_elsewhere_a_plain_line_comes_every_thirty_seconds(clock: Clock) -> None:
    out, console = plain()
    assert PLAIN_EVERY == 30
    lines = {}
    with RunProgress(console, Plan({NODE.key: NODE})) as tell:
        tell(NodeEvent("started", NODE))
        for second in range(1, 100):
            clock.now = 1000 + second
            before = len(out.getvalue())
            tell(trained(second))
            if out.getvalue()[before:]:
                lines[second] = out.getvalue()[before:]
    first, *later = lines
    assert first in (30, 31)
    assert [b - a for a, b in zip(lines, later, strict=False)] == [first] * 2
    left = (100_000 - first * SAMPLES) / SAMPLES
    assert lines[first] == (
        f"pretrain  badnet / mmcl  epoch 2/10, 100 samples/s, {left:.0f} s left\n"
    )


def test_a_resumed_stage_counts_only_its_own_samples_as_speed(clock: Clock) -> None:
    out, console = plain()
    with RunProgress(console, Plan({NODE.key: NODE})) as tell:
        tell(NodeEvent("started", NODE))
        clock.now += 40
        tell(trained(40, total=10_000, resumed=5_000))
    assert out.getvalue().endswith("100 samples/s, 10 s left\n")


def test_each_stage_ends_in_a_numbered_line(clock: Clock) -> None:
    out, console = plain()
    with RunProgress(console, Plan({OTHER.key: OTHER, NODE.key: NODE})) as tell:
        tell(NodeEvent("reused", OTHER))
        tell(NodeEvent("started", NODE))
        clock.now += 12.34
        tell(NodeEvent("done", NODE))
    assert out.getvalue().splitlines() == [
        "[1/2] data      shapes  reused", "[2/2] pretrain  badnet / mmcl  12.3 s",
    ]


def test_a_terminal_shows_epoch_speed_and_time_left() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with RunProgress(console, Plan({NODE.key: NODE})) as tell:
        tell(NodeEvent("started", NODE))
        for done in range(1, 4):
            time.sleep(0.05)
            tell(trained(done, total=1000))
        tell._bars.refresh()
    last = [line for line in out.getvalue().replace("\r", "\n").split("\n") if "epoch" in line][-1]
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)
    assert re.match(
        r"pretrain  badnet / mmcl .*epoch 2/10, [\d,]+ samples/s 0:00:\d\d", shown
    ), shown


@pytest.mark.parametrize("terminal", [True, False])
def test_a_label_is_neither_markup_nor_control_nor_emoji(terminal: bool) -> None:
    out = io.StringIO()
    node = Node("pretrain", "[red]x[/] \x1b[45mx :smile:", {}, {})
    console = Console(file=out, force_terminal=terminal, width=120, highlight=False)
    with RunProgress(console, Plan({OTHER.key: OTHER, node.key: node})) as tell:
        tell(NodeEvent("started", node))
        tell._bars.refresh()
        tell(NodeEvent("note", node, {"text": "[/] \x1b[45m"}))
        tell(NodeEvent("done", node))
    text = out.getvalue()
    assert "\x1b[45m" not in text
    assert "pretrain  [red]x[/] \N{REPLACEMENT CHARACTER}[45mx :smile:" in text
    assert "note: [/] \N{REPLACEMENT CHARACTER}[45m\n" in text
