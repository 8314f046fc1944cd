"""A track's folder: its submissions, what maintainers verified, and figures reported elsewhere."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from bdbench.errors import BdbenchError
from bdbench.registry import Registry, near, share_dir
from bdbench.schema import Card, Cell, Reported, Submission, Track, Verification

LARGEST = 64 << 20
"""Bytes of a file that is read; a submission of the largest track is a twentieth of it."""

NEEDED = ("clean_top1", "asr_top1", "lift")
"""Metrics that every model of a card must have for the tables to be made."""

_QUOTED = 200
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_BOUND = re.compile(r"0\.\d{1,4}|[01]")

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """A submission with the sha256 of its file, and the maintainers' word on exactly that file."""

    submission: Submission
    sha256: str
    verification: Verification | None

    @property
    def level(self) -> str:
        """`claimed`, or `replayed` or `reproduced` with how many of the cells."""
        found = self.verification
        return f"{found.level} {found.cells}/{len(self.submission.cards)}" if found else "claimed"


@dataclass(frozen=True)
class Board:
    """All that is known of a track."""

    name: str
    track: Track
    entries: tuple[Entry, ...]
    evidence: tuple[Submission, ...]
    """Cells of the declared statistic: `evidence/*.json`, same form as submissions."""
    reported: tuple[Reported, ...]

    def cards(self) -> Iterator[Card]:
        """The cards of all submissions."""
        for entry in self.entries:
            yield from entry.submission.cards


def names(root: Path | None = None) -> list[str]:
    """The tracks below the folder `leaderboards`."""
    folder = root or share_dir("leaderboards")
    found = (path.parent.name for path in folder.glob("*/track.toml"))
    return sorted(name for name in found if _NAME.fullmatch(name))


def load_track(name: str, root: Path | None = None) -> Track:
    """`track.toml` of a track; BdbenchError with near names when there is none."""
    folder = root or share_dir("leaderboards")
    if name not in names(folder):
        raise BdbenchError(f"there is no track `{name}`", near(name, names(folder)))
    path = folder / name / "track.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BdbenchError(f"`{path}` is not valid TOML: {error}", "fix the file") from error
    track = _parsed(Track, json.dumps(data, default=str).encode(), path)
    if runs_here(track):
        tolerance = Registry().recipe(track.recipe).selection.tolerance
        if tolerance > track.accuracy_loss:
            raise BdbenchError(
                f"`{path}`: entries may lose `{track.accuracy_loss:g}` of accuracy, and the blind"
                f" rule of the recipe `{track.recipe}` picks models that lose `{tolerance:g}`",
                "lower `selection.tolerance` in the recipe, or raise `accuracy_loss`",
            )
    return track


def runs_here(track: Track) -> bool:
    """Whether this version of bdbench has the track's recipe."""
    return track.recipe in Registry().recipes()


def read_submission(path: Path) -> Submission:
    """A submission file, checked against the schema; executes nothing, follows no link."""
    return _submission(_bytes(path), path)


def load(name: str, root: Path | None = None) -> Board:
    """A track and everything in its folder; BdbenchError names the file that is wrong and why."""
    folder = (root or share_dir("leaderboards")) / name
    track = load_track(name, root)
    verified = {
        path.stem: _parsed(Verification, _bytes(path), path) for path in _files(folder / "verified")
    }
    with no_collection():
        entries = [_entry(path, name, track, verified) for path in _files(folder / "submissions")]
    _pinned(track, entries, folder)
    for stem in verified:
        if stem not in {entry.submission.name for entry in entries}:
            raise BdbenchError(
                f"`{folder / 'verified' / stem}.json` verifies no submission", "delete it"
            )
    evidence = []
    for path in _files(folder / "evidence"):
        submission = _own(read_submission(path), path, name, track)
        _within(submission, track.statistic.cells(track.recipe) if track.statistic else (), path)
        evidence.append(submission)
    reported = [_reported(path) for path in _files(folder / "reported")]
    return Board(name, track, tuple(entries), tuple(evidence), tuple(reported))


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage: cards hold no cycles, and looking for some takes most of the time.

    Of 2,000 submissions there are millions of objects, and each full collection visits them all.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            # Enabled with all of it in sight, the first collection would visit it at once.
            gc.freeze()
            gc.enable()


def _entry(path: Path, name: str, track: Track, verified: Mapping[str, Verification]) -> Entry:
    data = _bytes(path)
    submission = _own(_submission(data, path), path, name, track)
    _within(submission, track.cells(submission.kind, submission.name), path)
    sha256 = hashlib.sha256(data).hexdigest()
    found = verified.get(submission.name)
    if found is None or found.submission_sha256 != sha256:
        return Entry(submission, sha256, None)
    if found.cells > len(submission.cards):
        raise BdbenchError(
            f"the badge of `{path}` is for `{found.cells}` cells, and it has"
            f" `{len(submission.cards)}`", "`bdbench verify FILE --replay 1 --badge 'A. Name'`",
        )
    return Entry(submission, sha256, found)


def _pinned(track: Track, entries: Iterable[Entry], folder: Path) -> None:
    """The undefended models decide what counts: nobody changes them in passing."""
    if track.reference is None:
        return
    path = folder / "submissions" / "none.json"
    found = {
        entry.sha256 for entry in entries
        if (entry.submission.kind, entry.submission.name) == ("defense", "none")
    }
    if found != {track.reference}:
        raise BdbenchError(
            f"`{path}` {'is another file than' if found else 'is missing:'} the reference that"
            f" `track.toml` pins, sha256 `{track.reference}`",
            f"git checkout {path} brings it back; a new reference needs a new `reference` and a"
            " new `edition` in `track.toml`",
        )


def _own(submission: Submission, path: Path, name: str, track: Track) -> Submission:
    if submission.name != path.stem:
        raise BdbenchError(
            f"`{path}` holds the submission `{submission.name}`",
            f"name the file `{submission.name}.json`",
        )
    if (submission.track, submission.edition) != (name, track.edition):
        raise BdbenchError(
            f"`{path}` is for edition {_cut(submission.edition)} of the track `{submission.track}`,"
            f" not for edition {track.edition} of `{name}`",
            f"bdbench submit {submission.name} --track {name}",
        )
    return submission


def _within(submission: Submission, cells: Iterable[Cell], path: Path) -> None:
    allowed = set(cells)
    for card in submission.cards:
        if card.cell not in allowed:
            cell = card.cell
            raise BdbenchError(
                f"`{path}` holds a card that the track does not ask for: `{_cut(cell.defense)}`"
                f" against `{_cut(cell.attack)}` on `{_cut(cell.objective)}`, recipe"
                f" `{_cut(cell.recipe)}`, seed `{cell.seed}`",
                f"bdbench leaderboard show --track {submission.track} --json lists what it asks",
            )


def _submission(data: bytes, path: Path) -> Submission:
    """A submission whose cards the tables can be made from."""
    submission = _parsed(Submission, data, path)
    for i, card in enumerate(submission.cards):
        if wrong := _unsound(card):
            raise BdbenchError(
                f"`{path}` is not a valid submission: `cards.{i}`: {wrong}",
                "submit cards as `bdbench run` wrote them",
            )
    return submission


def _reported(path: Path) -> Reported:
    reported = _parsed(Reported, _bytes(path), path)
    for bound in (bound for row in reported.rows for bound in row.best):
        if not _BOUND.fullmatch(bound):
            raise BdbenchError(
                f"`{path}`: `{_cut(bound)}` is no ASR bound", "use a rate such as `0.05`"
            )
    return reported


def _unsound(card: Card) -> str | None:
    """Why no table can be made from a card: what the types of its fields cannot say."""
    if not card.trajectory:
        return "the trajectory is empty"
    for i, point in enumerate(card.trajectory):
        for name in NEEDED:
            if name not in point.scores:
                return f"model {i} of the trajectory has no `{name}`"
        for name, score in [*point.scores.items(), ("validation", point.validation)]:
            least = 0 if score.k is not None else -1
            if not (least <= score.low <= score.value <= score.high <= 1):
                return f"`{_cut(name)}` of model {i} is no rate with its interval"
    picked = [card.selections.blind, card.selections.last, *card.selections.oracle.values()]
    for position in picked:
        if position is not None and not 0 <= position < len(card.trajectory):
            return f"a selection picks model `{_cut(position)}` of {len(card.trajectory)}"
    for bound in card.selections.oracle:
        if not _BOUND.fullmatch(bound):
            return f"`{_cut(bound)}` is no ASR bound of the oracle rule"
    return None


def _cut(value: object) -> str:
    """What a message quotes of a file: it may be megabytes."""
    text = str(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]} ..."


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _bytes(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise BdbenchError(f"`{path}` is not a plain file", "check the path")
    size = path.stat().st_size
    if size > LARGEST:
        raise BdbenchError(
            f"`{path}` has `{size}` bytes, more than the `{LARGEST}` that are read",
            "submit one method on one track per file",
        )
    return path.read_bytes()


def _parsed(model: type[M], data: bytes, path: Path) -> M:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = _cut(".".join(map(str, first["loc"])))
        raise BdbenchError(
            f"`{path}` is not a valid {model.__name__.lower()}:"
            f" {f'`{where}`: ' if where else ''}{_cut(first['msg'])}",
            f"`bdbench verify {path}` tells all that is wrong with a submission",
        ) from error
