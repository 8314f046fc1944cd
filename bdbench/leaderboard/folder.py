"""A track's folder: its submissions, what maintainers verified, and figures reported elsewhere."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from bdbench.errors import BdbenchError
from bdbench.hashing import file_digest
from bdbench.registry import near, share_dir
from bdbench.schema import Card, Reported, Submission, Track, Verification

LARGEST = 64 << 20
"""Bytes of a file that is read; a submission of the largest track is a twentieth of it."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """A submission with the sha256 of its file, and the maintainers' word on exactly that file."""

    submission: Submission
    sha256: str
    verification: Verification | None

    @property
    def level(self) -> str:
        """claimed, replayed or reproduced."""
        return self.verification.level if self.verification else "claimed"


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
    return sorted(path.parent.name for path in folder.glob("*/track.toml"))


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
    return _parsed(Track, json.dumps(data, default=str).encode(), path)


def read_submission(path: Path) -> Submission:
    """A submission file, checked against the schema; executes nothing, follows no link."""
    return _parsed(Submission, _bytes(path), path)


def load(name: str, root: Path | None = None) -> Board:
    """A track and everything in its folder; BdbenchError names the file that is wrong and why."""
    folder = (root or share_dir("leaderboards")) / name
    track = load_track(name, root)
    entries = []
    for path in _files(folder / "submissions"):
        submission = _own(read_submission(path), path, name, track)
        entries.append(Entry(submission, file_digest(path), None))
    verified = {
        path.stem: _parsed(Verification, _bytes(path), path) for path in _files(folder / "verified")
    }
    for stem in verified:
        if stem not in {entry.submission.name for entry in entries}:
            raise BdbenchError(
                f"`{folder / 'verified' / stem}.json` verifies no submission", "delete it"
            )
    found = [
        Entry(e.submission, e.sha256, _of(verified.get(e.submission.name), e.sha256))
        for e in entries
    ]
    evidence = [
        _own(read_submission(path), path, name, track) for path in _files(folder / "evidence")
    ]
    reported = [_parsed(Reported, _bytes(path), path) for path in _files(folder / "reported")]
    return Board(name, track, tuple(found), tuple(evidence), tuple(reported))


def _of(verification: Verification | None, sha256: str) -> Verification | None:
    """The verification if it is of this very file."""
    if verification is None or verification.submission_sha256 != sha256:
        return None
    return verification


def _own(submission: Submission, path: Path, name: str, track: Track) -> Submission:
    if submission.name != path.stem:
        raise BdbenchError(
            f"`{path}` holds the submission `{submission.name}`",
            f"name the file `{submission.name}.json`",
        )
    if (submission.track, submission.edition) != (name, track.edition):
        raise BdbenchError(
            f"`{path}` is for edition {submission.edition} of the track `{submission.track}`, not"
            f" for edition {track.edition} of `{name}`",
            f"bdbench submit {submission.name} --track {name}",
        )
    return submission


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
        where = ".".join(map(str, first["loc"]))
        raise BdbenchError(
            f"`{path}` is not a valid {model.__name__.lower()}:"
            f" {f'`{where}`: ' if where else ''}{first['msg']}",
            f"`bdbench verify {path}` tells all that is wrong with a submission",
        ) from error
