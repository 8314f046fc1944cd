"""A maintainer's word on a submission: how many cells were run again, and how far off they were."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from pydantic import ValidationError

from bdbench.errors import BdbenchError
from bdbench.hashing import file_digest
from bdbench.registry import describe
from bdbench.replay.compare import Replay
from bdbench.schema import Verification
from bdbench.verify import Case


def badge(case: Case, done: Replay, by: str, out: Path | None = None) -> Path:
    """Write what was found beside the track's submissions; returns the file."""
    if out is None:
        name = f"{case.submission.name}.json"
        committed = case.root / case.submission.track / "submissions" / name
        if not committed.is_file() or file_digest(committed) != case.sha256:
            raise BdbenchError(
                f"`{case.path}` is not the track's file `{committed}`, which a badge is for",
                "put it there, or name the file to write with `--out`",
            )
        out = committed.parent.parent / "verified" / name
    try:
        found = Verification(
            submission_sha256=case.sha256, level=done.level, by=by, on=date.today(),
            cells=len(done.cards), seed=done.seed, identical=done.identical,
            largest_difference=done.largest,
        )
    except ValidationError as error:
        raise BdbenchError(describe(error, "badge"), "--badge 'A. Name'") from error
    try:
        out.parent.mkdir(exist_ok=True)
        out.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise BdbenchError(
            f"`{out}` cannot be written: {error.strerror}", "name another file with `--out`"
        ) from error
    return out
