"""Check a submission: reads one file and executes nothing of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bdbench.errors import BdbenchError
from bdbench.leaderboard.folder import LARGEST, load_track, runs_here
from bdbench.registry import Registry, share_dir
from bdbench.schema import Submission
from bdbench.verify import cells, figures, twin
from bdbench.verify.case import Case, Check, Outcome, Rule, Said, no

_WRITES = "bdbench submit NAME --track TRACK --author 'A. Name' writes one"
_SHOWN = 5
"""Mistakes of the form that are told."""
_LONGEST = 400
"""Characters of a reason: what it quotes may be megabytes."""

_CELLS: dict[str, tuple[str, Rule]] = {
    "track": ("it is for this edition of the track", cells.track),
    "cells": ("it has every cell that the track asks for and no other", cells.asked),
    "name": ("the name is nobody else's", cells.name),
    "recipe": ("nothing of the track's recipe is changed", cells.recipe),
    "components": ("everything but the method is bdbench's own", cells.components),
    "files": ("every file has a sha256, and one key has one file", cells.files),
    "code": ("the cards were made by a commit", cells.code),
    "figures": ("every model has every metric", figures.sound),
}
_FIGURES: dict[str, tuple[str, Rule]] = {
    "method": ("the method is the same in all cells", cells.method),
    "keys": ("every key and seed is what the track and the method make", cells.keys),
    "runs": ("the runs are the declared sweep, with all epochs", cells.runs),
    "rates": ("every rate is k / n with Wilson's interval", figures.rates),
    "lift": ("every lift is ASR less base rate", figures.lift),
    "counts": ("every figure is of the track's test images", figures.counts),
    "poisoned": ("target and poison rate are the track's", figures.poisoned),
    "selections": ("the rules pick the models that they are said to pick", figures.selections),
    "verdict": ("the verdicts follow from the figures", figures.judged),
    "reference": ("the track's undefended models are those that it pins", twin.reference),
    "data": ("the data are those of the reference", twin.data),
    "poison": ("the poison is that of the reference", twin.poison),
    "twin": ("the undefended models are those of the reference", twin.undefended),
    "start": ("the same undefended model has the same figures", twin.start),
}


@dataclass(frozen=True)
class Report:
    """What all checks say, and the submission if its form and track are right."""

    path: Path
    checks: tuple[Check, ...]
    case: Case | None = None

    @property
    def failed(self) -> list[Check]:
        """The checks that say no."""
        return [check for check in self.checks if check.outcome == "no"]


def verify(path: Path, *, root: Path | None = None, registry: Registry | None = None) -> Report:
    """Check a submission file; BdbenchError when it cannot be read at all.

    `root`: another folder `leaderboards` than the shipped one.
    """
    data = _read(path)
    if data is None:
        return Report(path, (Check(
            "size", "it is small enough to be read", "no",
            f"it has more than `{LARGEST}` bytes",
        ),))
    size = Check("size", "it is small enough to be read", "yes", f"{len(data):,} bytes")
    claim = "it has the form of a submission"
    try:
        submission = Submission.model_validate_json(data)
    except ValidationError as error:
        return Report(path, (size, Check("schema", claim, "no", _form(error))))
    checks = [size, Check("schema", claim, "yes", f"version {submission.version}")]
    root, registry = root or share_dir("leaderboards"), registry or Registry()
    try:
        track = load_track(submission.track, root)
        if not runs_here(track):
            raise BdbenchError(
                f"this version of bdbench cannot run the track `{submission.track}` yet: it has no"
                f" recipe `{track.recipe}`", "pip install --upgrade bdbench",
            )
    except BdbenchError as error:
        text = f"{error.message}. {error.hint}"
        return Report(path, (*checks, Check("track", _CELLS["track"][0], "no", text)))
    case = Case(
        path=path, sha256=hashlib.sha256(data).hexdigest(), submission=submission, track=track,
        recipe=registry.recipe(track.recipe), registry=registry, root=root,
    )
    checks += [_check(case, name, *rule) for name, rule in _CELLS.items()]
    if checks[-1].outcome != "no":
        checks += [_check(case, name, *rule) for name, rule in _FIGURES.items()]
    return Report(path, tuple(checks), case)


def _check(case: Case, name: str, claim: str, rule: Rule) -> Check:
    order: tuple[Outcome, ...] = ("no", "warning", "yes")
    said = list(_safely(rule, case))
    outcome: Outcome = next((o for o in order if any(s.outcome == o for s in said)), "yes")
    texts = [text for found, text in said if found == outcome]
    more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
    return Check(name, claim, outcome, f"{_short(texts[0])}{more}" if texts else "")


def _safely(rule: Rule, case: Case) -> Iterator[Said]:
    """What nobody foresaw in a file must not pass, nor end in a traceback."""
    try:
        yield from rule(case)
    except BdbenchError as error:
        yield no(error.message)
    except Exception as error:
        yield no(f"it cannot be checked: {type(error).__name__}: {error}")


def _read(path: Path) -> bytes | None:
    """The file; None when it is too large."""
    if path.is_symlink() or not path.is_file():
        there = "is not a plain file" if path.exists() else "does not exist"
        raise BdbenchError(f"`{path}` {there}", _WRITES)
    if path.stat().st_size > LARGEST:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BdbenchError(f"`{path}` cannot be read: {error.strerror}") from error
    if data.lstrip()[:1] != b"{":
        raise BdbenchError(f"`{path}` is not a JSON object", _WRITES)
    return data


def _form(error: ValidationError) -> str:
    """Places and messages, never the values: they may be large."""
    mistakes = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [
        f"`{'.'.join(map(str, item['loc'])) or 'file'}`: {item['msg']}"
        for item in mistakes[:_SHOWN]
    ]
    more = [f"and {len(mistakes) - _SHOWN} more"] * (len(mistakes) > _SHOWN)
    return "; ".join(shown + more)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


__all__ = ["Case", "Check", "Outcome", "Report", "verify"]
