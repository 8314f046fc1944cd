"""`bdbench verify`: check a submission; run parts of it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bdbench.cards.text import clean, percent
from bdbench.cli.progress import RunProgress
from bdbench.errors import BdbenchError, CheckFailed
from bdbench.execute import execute
from bdbench.plan import Plan
from bdbench.replay import HeldOut, Replay, badge, draw, held_out, replay, reproduce
from bdbench.store import Store
from bdbench.verify import Check, Report
from bdbench.verify import verify as check_file

_COUNT = "Cells; drawn at random."


def verify(
    file: Annotated[Path, typer.Argument(help="A submission file.")],
    replay_: Annotated[int, typer.Option(
        "--replay", min=0, help=f"Score and evaluate again from the stored models. {_COUNT}")] = 0,
    reproduce_: Annotated[int, typer.Option(
        "--reproduce", min=0, help="Run the defense again from the stored undefended models. "
        f"{_COUNT}")] = 0,
    held_out_: Annotated[int, typer.Option(
        "--held-out", min=0, help=f"Train with a fresh seed and target class. {_COUNT}")] = 0,
    seed: Annotated[int | None, typer.Option(
        min=0, help="Of what is drawn; by default nobody can foresee it.")] = None,
    plugin: Annotated[list[Path] | None, typer.Option(
        help="The method's file, if it is run again: it is executed.")] = None,
    by: Annotated[str | None, typer.Option(
        "--badge", help="Write what --replay or --reproduce found, signed with this name.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write the badge to.")] = None,
    root: Annotated[Path | None, typer.Option(
        help="Another folder `leaderboards` than the shipped one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a submission: by itself this reads one file and executes nothing of it."""
    if by is not None and not (replay_ or reproduce_):
        raise BdbenchError("a badge says what was run again", "add `--replay 1`")
    report = check_file(file, root=root)
    found: dict[str, Any] = {"file": str(file), "checks": [vars(c) for c in report.checks]}
    if not as_json:
        _print(_title(report), report.checks)
    _stop(report, report.checks, found, as_json)
    if report.case is None or not (replay_ or reproduce_ or held_out_):
        _done(found, as_json)
        return
    case, store, plugins, drawn = report.case, Store(), plugin or [], draw(seed)
    found["seed"] = drawn
    typer.echo(f"drawn with --seed {drawn}", err=True)
    done = [
        again(case, n, drawn, store, plugins, _run)
        for again, n in ((replay, replay_), (reproduce, reproduce_)) if n
    ]
    found["replays"] = [_plain(one) for one in done]
    if not as_json:
        for one in done:
            names = ", ".join(f"{_cell(card)}" for card in one.cards)
            _print(f"{one.level}: {names}", one.checks)
    _stop(report, [check for one in done for check in one.checks], found, as_json)
    if held_out_:
        fresh = held_out(case, held_out_, drawn, store, plugins, _run)
        found["held_out"] = [_fresh(one) for one in fresh]
        if not as_json:
            for cell in fresh:
                typer.echo("\n".join(_lines(cell)))
        _stop(
            report, [cell.check for cell in fresh], found, as_json,
            f"`bdbench verify {shlex.quote(str(file))} --held-out 3` draws other seeds and targets;"
            " if they agree, the entry does not hold beyond the track's",
        )
    if by is not None:
        found["badge"] = str(badge(case, done[-1], by, out))
        if not as_json:
            typer.echo(found["badge"])
    _done(found, as_json)


def _run(todo: Plan, store: Store, plugins: Sequence[Path]) -> None:
    with RunProgress(Console(stderr=True, highlight=False), todo) as progress:
        execute(todo, store, plugins, progress)


def _stop(
    report: Report, checks: Sequence[Check], found: dict[str, Any], as_json: bool,
    hint: str | None = None,
) -> None:
    """End here if a check says no: what comes next would rest on it."""
    failed = sum(check.outcome == "no" for check in checks)
    if not failed:
        return
    _done(found, as_json)
    name, track = "NAME", "TRACK"
    if report.case is not None:
        name, track = report.case.submission.name, report.case.submission.track
    raise CheckFailed(
        f"{failed} of {len(checks)} checks say no",
        hint or "what it says is not what this version of bdbench finds: ask its authors to run it"
        f" again and write it with `bdbench submit {name} --track {track} --author 'A. Name'`",
    )


def _done(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=1))


def _title(report: Report) -> str:
    if report.case is None:
        return str(report.path)
    sub = report.case.submission
    return f"{sub.kind} {sub.name} on the track {sub.track}, edition {sub.edition}"


def _print(title: str, checks: Iterable[Check]) -> None:
    typer.echo(clean(title))
    for check in checks:
        typer.echo(_line(check))


def _line(check: Check) -> str:
    reason = f": {check.reason}" if check.reason else ""
    return f"{check.outcome:<7}  {check.name:<10}  {clean(check.claim + reason)}"


def _cell(card: Any) -> str:
    cell = card.cell
    return f"{cell.attack} / {cell.objective} / {cell.defense} / seed {cell.seed}"


def _plain(one: Replay) -> dict[str, Any]:
    return {
        "level": one.level, "seed": one.seed, "identical": one.identical,
        "cells": [card.cell.model_dump() for card in one.cards],
        "largest_difference": one.largest, "checks": [vars(check) for check in one.checks],
    }


def _figures(card: Any, position: int) -> dict[str, float]:
    scores = card.trajectory[position].scores
    return {name: scores[name].value for name in ("clean_top1", "asr_top1")}


def _fresh(one: HeldOut) -> dict[str, Any]:
    return {
        "cell": one.card.cell.model_dump(), "target": one.target,
        "undefended": _figures(one.none, 0),
        "blind": _figures(one.card, one.card.selections.blind),
        "submitted": [
            {"seed": card.cell.seed, "undefended": _figures(card, 0),
             "blind": _figures(card, card.selections.blind)} for card in one.submitted
        ],
        "bound": one.bound, "check": vars(one.check),
    }


def _lines(one: HeldOut) -> Iterable[str]:
    """The fresh figures beside the submitted ones, in per cent."""
    yield clean(f"held out: {_cell(one.card)}, target {one.target}")
    yield f"{'':<24}{'undefended':>16}{'blind':>16}"
    yield f"{'per cent':<24}{'clean':>8}{'ASR':>8}{'clean':>8}{'ASR':>8}"
    rows = [("held out", one.none, one.card)]
    rows += [(f"submitted, seed {card.cell.seed}", card, card) for card in one.submitted]
    for name, none, card in rows:
        shown = [*_figures(none, 0).values(), *_figures(card, card.selections.blind).values()]
        yield f"{name:<24}" + "".join(f"{percent(value):>8}" for value in shown)
    yield _line(one.check)
