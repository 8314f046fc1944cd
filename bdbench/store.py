"""Content-addressed artifacts: work happens aside and is published with one atomic rename.

    <root>/objects/<stage>/<key>/   manifest.json and the files it names
    <root>/work/<key>/              unfinished work, continued by the next run
    <root>/corrupt/                 artifacts whose bytes changed, set aside
    <root>/locks/                   one file per key being worked on
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path
from pydantic import ValidationError

from bdbench.environment import git_state, versions
from bdbench.errors import BdbenchError
from bdbench.hashing import canonical_json, file_digest
from bdbench.schema import Strict

_RUN = "run-"
RESUME = "resume"
"""Folder of a work directory for training state; dropped on publication."""
WRITABLE = "set BDBENCH_HOME to a writable folder"


class Manifest(Strict):
    """What an artifact is and what its bytes hash to."""

    stage: str
    key: str
    label: str
    spec: dict[str, Any]
    inputs: dict[str, str]
    """Keys of the artifacts it was made from, by role."""
    files: dict[str, str]
    """sha256 by file name."""
    seconds: float
    """Work that went into it, over all restarts."""
    samples: int
    """Images or pairs that went through the model."""
    versions: dict[str, str] = {}
    """Of the packages that it was computed with."""
    git: str | None = None
    """The commit of the bdbench checkout, `+dirty` if changed; None for an installed package."""


@dataclass(frozen=True)
class Artifact:
    """A published artifact."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum((self.path / name).stat().st_size for name in self.manifest.files)


def default_root() -> Path:
    """`$BDBENCH_HOME`, or the platform's cache folder."""
    home = os.environ.get("BDBENCH_HOME")
    return Path(home).expanduser() if home else user_cache_path("bdbench")


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a clear error; finished artifacts are untouched."""
    try:
        yield
    except Exception as error:
        number = _errno(error, root)
        reasons = {
            errno.ENOSPC: "is full", errno.EDQUOT: "is over its quota",
            errno.EROFS: "is read-only", errno.EACCES: "is not writable",
            errno.EPERM: "is not writable", errno.ENOTDIR: "is not a folder",
            errno.EEXIST: "is not a folder",
        }
        if number not in reasons:
            raise
        hint = (
            "free space there or point BDBENCH_HOME at another disk; `bdbench store gc` deletes"
            " what no card needs, unfinished work too"
            if number in (errno.ENOSPC, errno.EDQUOT)
            else WRITABLE
        )
        raise BdbenchError(f"the store `{root}` {reasons[number]}", hint) from error


def _errno(error: Exception, root: Path) -> int | None:
    """The system's number for a failure of this disk; None for anything else."""
    if not isinstance(error, OSError):
        # Libraries written in Rust, safetensors among them, have it in the text alone.
        found = re.search(r"\(os error (\d+)\)", str(error))
        return int(found[1]) if found else None
    if isinstance(error.filename, str):
        place = Path(error.filename).absolute()
        if not (place.is_relative_to(root) or root.is_relative_to(place)):
            return None  # a file of the user's or of a plugin's, elsewhere
    return error.errno


class Store:
    """Artifacts under one root folder; several processes may share it."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or default_root()).absolute()
        self._checked: set[str] = set()
        self.notes: list[str] = []
        """Artifacts found corrupt and set aside, one line each."""

    def prepare(self) -> None:
        """Create the folders; BdbenchError when the root cannot be written."""
        with disk_errors(self.root):
            try:
                for name in ("objects", "work", "locks"):
                    (self.root / name).mkdir(parents=True, exist_ok=True)
            except FileNotFoundError as error:  # /proc says so, and a dangling link
                raise BdbenchError(
                    f"the store `{self.root}` cannot be created", WRITABLE
                ) from error
            probe = self.root / "work" / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()

    def _path(self, stage: str, key: str) -> Path:
        if not (re.fullmatch(r"\w+", stage) and re.fullmatch(r"\w+", key)):
            raise BdbenchError(
                f"`{stage}/{key}` is no address of an artifact", "`bdbench store ls` lists them"
            )
        return self.root / "objects" / stage / key

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact if it is here and its bytes are intact.

        A corrupt one is set aside and noted, so that the caller recomputes it.
        """
        path = self._path(stage, key)
        try:
            manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
        except FileNotFoundError:
            if path.exists():
                self._set_aside(path, "it has no manifest")
            return None
        except (ValidationError, UnicodeDecodeError):
            self._set_aside(path, "its manifest cannot be read")
            return None
        if key not in self._checked:
            for name, expected in manifest.files.items():
                if Path(name).name != name:
                    self._set_aside(path, f"it names a file outside itself, `{name}`")
                    return None
                file = path / name
                if not file.is_file() or file_digest(file) != expected:
                    self._set_aside(path, f"`{name}` does not match its sha256")
                    return None
            self._checked.add(key)
        return Artifact(path, manifest)

    def open(self, stage: str, key: str) -> Artifact:
        """The artifact; BdbenchError when it is missing or corrupt."""
        artifact = self.find(stage, key)
        if artifact is None:
            raise BdbenchError(f"`{stage}/{key}` is not in the store `{self.root}`", "run it again")
        return artifact

    def _set_aside(self, path: Path, why: str) -> None:
        corner = self.root / "corrupt"
        with disk_errors(self.root):
            corner.mkdir(exist_ok=True)
            aside = corner / f"{path.parent.name}-{path.name}-{time.time_ns()}"
            path.rename(aside)
        self.notes.append(
            f"`{path.parent.name}/{path.name}` is corrupt ({why});"
            f" set aside as `{aside.relative_to(self.root)}` and computed again"
        )

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the key; another process waits. The system frees it when its holder dies."""
        with FileLock(self.root / "locks" / f"{key}.lock"):
            yield

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `gc` off while a run goes on: what it has finished belongs to no card yet."""
        place = self.root / "locks" / f"{_RUN}{os.getpid()}-{time.time_ns()}.lock"
        with FileLock(place):
            yield
        place.unlink(missing_ok=True)

    def workdir(self, key: str) -> Path:
        """The folder to work in; after a kill it still holds what was saved."""
        path = self.root / "work" / key
        (path / RESUME).mkdir(parents=True, exist_ok=True)
        return path

    def spent(self, key: str, seconds: float) -> float:
        """Add to the seconds that earlier, interrupted attempts recorded; returns the sum."""
        path = self.workdir(key) / RESUME / "seconds.json"
        before = float(json.loads(path.read_text())) if path.exists() else 0.0
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(before + seconds))
        aside.replace(path)
        return before + seconds

    def publish(
        self, stage: str, key: str, *, label: str, spec: Mapping[str, Any],
        inputs: Mapping[str, str], seconds: float, samples: int,
    ) -> Artifact:
        """Hash the files of the work folder and move it to its address in one rename."""
        work = self.workdir(key)
        total = self.spent(key, seconds)
        files = {path.name: file_digest(path) for path in sorted(work.iterdir())
                 if path.name not in ("manifest.json", RESUME)}
        manifest = Manifest(
            stage=stage, key=key, label=label, spec=dict(spec), inputs=dict(inputs), files=files,
            seconds=total, samples=samples, versions=versions(), git=git_state(),
        )
        for name in files:
            with (work / name).open("rb") as file:
                os.fsync(file.fileno())
        with (work / "manifest.json").open("w", encoding="utf-8") as out:
            out.write(canonical_json(manifest.model_dump(mode="json")))
            out.flush()
            os.fsync(out.fileno())
        path = self._path(stage, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Last of all: a kill before this costs no training.
        shutil.rmtree(work / RESUME)
        work.rename(path)
        self._checked.add(key)
        return Artifact(path, manifest)

    def artifacts(self) -> list[Artifact]:
        """All artifacts with a readable manifest, unchecked, by stage and key."""
        found = []
        for path in sorted((self.root / "objects").glob("*/*/manifest.json")):
            try:
                manifest = Manifest.model_validate_json(path.read_bytes())
            except (ValidationError, UnicodeDecodeError):
                continue
            found.append(Artifact(path.parent, manifest))
        return found

    def gc(self, *, dry_run: bool = False) -> list[Path]:
        """Delete artifacts that no card was made from, unfinished work, and corrupt artifacts.

        Returns what was (or would be) deleted. BdbenchError while a run uses the store.
        """
        for lock in sorted((self.root / "locks").glob(f"{_RUN}*.lock")):
            if self._held(lock.stem):
                raise BdbenchError(
                    f"a run is using the store `{self.root}`, and what it has finished belongs to"
                    " no card yet", "wait for it, or stop it: the same command continues it",
                )
        artifacts = {a.manifest.key: a for a in self.artifacts()}
        keep: set[str] = set()
        todo = [key for key, a in artifacts.items() if a.manifest.stage == "card"]
        while todo:
            key = todo.pop()
            if key not in keep and key in artifacts:
                keep.add(key)
                todo.extend(artifacts[key].manifest.inputs.values())
        doomed = [a.path for key, a in artifacts.items() if key not in keep]
        doomed += sorted((self.root / "work").glob("*"))
        doomed += sorted((self.root / "corrupt").glob("*"))
        if not dry_run:
            with disk_errors(self.root):
                for path in doomed:
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()  # a probe that a kill left behind
        return doomed

    def _held(self, key: str) -> bool:
        lock = FileLock(self.root / "locks" / f"{key}.lock", timeout=0)
        try:
            with lock:
                return False
        except TimeoutError:
            return True
