"""Content-addressed artifacts: work happens aside and is published with one atomic rename.

    <root>/objects/<stage>/<key>/   manifest.json and the files it names
    <root>/work/<key>/              unfinished work, continued by the next run
    <root>/jobs/                    what runs on a cluster, and what it says
    <root>/corrupt/                 artifacts whose bytes changed, set aside
    <root>/locks/                   one file per key being worked on
    <root>/checked/<key>            sizes and times of files whose bytes were found to be right
    <root>/pulled/<key>             empty: the artifact was made elsewhere
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError

from bdbench.environment import git_state, versions
from bdbench.errors import BdbenchError
from bdbench.files import force
from bdbench.hashing import canonical_json, digest, file_digest
from bdbench.store.artifact import Artifact, Manifest
from bdbench.store.disk import WRITABLE, default_root, disk_errors

_RUN, _GC = "run-", "gc"
RESUME = "resume"
"""Folder of a work directory for training state; dropped on publication."""
PULLED = "pulled"
"""Folder with the keys of artifacts from elsewhere, whose seconds are of another machine."""
_SETTLED = 2.0
"""Seconds after which a file that changes again has another time of modification on any disk."""


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
            if not path.exists():
                return None
            if (path / "manifest.json").exists():  # published since, with one rename
                return self.find(stage, key)
            self._set_aside(path, "it has no manifest")
            return None
        except (ValidationError, UnicodeDecodeError):
            self._set_aside(path, "its manifest cannot be read")
            return None
        if key not in self._checked:
            try:
                wrong = self._wrong(path, manifest)
            except FileNotFoundError:
                wrong = "a file of it went away"
            if wrong:
                self._set_aside(path, wrong)
                return None
            self._checked.add(key)
        return Artifact(path, manifest)

    def _wrong(self, path: Path, manifest: Manifest) -> str | None:
        """What is wrong with the files of an artifact.

        They are hashed, unless they were before and have not been written to since.
        """
        files = {name: path / name for name in manifest.files}
        for name, file in files.items():
            if Path(name).name != name:
                return f"it names a file outside itself, `{name}`"
            if not file.is_file():
                return f"`{name}` does not match its sha256"
        stats = [file.stat() for file in files.values()]
        state = digest([
            manifest.files, [[stat.st_size, stat.st_mtime_ns, stat.st_ino] for stat in stats]
        ])
        memo = self.root / "checked" / path.name
        with suppress(OSError):
            if memo.read_text(encoding="utf-8") == state:
                return None
        for name, file in files.items():
            if file_digest(file) != manifest.files[name]:
                return f"`{name}` does not match its sha256"
        if max(stat.st_mtime for stat in stats) < time.time() - _SETTLED:
            with suppress(OSError):  # of another user, or read-only
                memo.parent.mkdir(exist_ok=True)
                memo.write_text(state, encoding="utf-8")
        return None

    def taken_notes(self) -> list[str]:
        """The notes so far, which are told once."""
        told, self.notes = self.notes, []
        return told

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
            try:
                path.rename(aside)
            except FileNotFoundError:  # by another process, which tells of it
                return
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
        mine = FileLock(place)
        with self.lock(_GC):  # until it has ended
            mine.acquire()
        try:
            yield
        finally:
            mine.release()
            with suppress(OSError):
                place.unlink()

    def workdir(self, key: str) -> Path:
        """The folder to work in; after a kill it still holds what was saved."""
        path = self.root / "work" / key
        (path / RESUME).mkdir(parents=True, exist_ok=True)
        return path

    def spent(self, key: str, seconds: float) -> float:
        """Add to the seconds that earlier, interrupted attempts recorded; returns the sum."""
        path = self.workdir(key) / RESUME / "seconds.json"
        before = 0.0
        with suppress(FileNotFoundError, ValueError):  # of a power cut: not worth a wait for disks
            before = float(json.loads(path.read_text()))
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
        with suppress(FileNotFoundError):  # of one that was pulled, and found corrupt
            (self.root / PULLED / key).unlink()
        return self.adopt(work, manifest)

    def adopt(self, folder: Path, manifest: Manifest) -> Artifact:
        """Move a folder on this disk, with files that are known to be right, to its address."""
        path = self._path(manifest.stage, manifest.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = canonical_json(manifest.model_dump(mode="json"))
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        for name in (*manifest.files, "manifest.json"):
            force(folder / name)
        folder.rename(path)
        # Last of all: a kill before this costs no training, and one meanwhile leaves it to `gc`.
        shutil.rmtree(path / RESUME, ignore_errors=True)
        self._checked.add(manifest.key)
        return Artifact(path, manifest)

    def artifacts(self) -> list[Artifact]:
        """All artifacts with a readable manifest, unchecked, by stage and key."""
        found = []
        for path in sorted((self.root / "objects").glob("*/*/manifest.json")):
            try:
                manifest = Manifest.model_validate_json(path.read_bytes())
            except (FileNotFoundError, ValidationError, UnicodeDecodeError):
                continue
            found.append(Artifact(path.parent, manifest))
        return found

    def gc(self, *, dry_run: bool = False) -> list[Path]:
        """Delete artifacts that no card was made from, unfinished work, old jobs, what is corrupt.

        Returns what was (or would be) deleted. BdbenchError while a run uses the store, or a job
        of a cluster is at work, which outlives the run that queued it. A run that begins waits.
        """
        if dry_run or not (self.root / "locks").is_dir():
            return self._gc(dry_run)
        with disk_errors(self.root), self.lock(_GC):
            return self._gc(dry_run)

    def _gc(self, dry_run: bool) -> list[Path]:
        for path in sorted((self.root / "locks").glob("*.lock")):
            if path.stem != _GC and self._held(path):
                raise BdbenchError(
                    f"a run is using the store `{self.root}`, and what it has finished belongs to"
                    f" no card yet: it holds `{path}`",
                    "wait for it, or stop it: the same command continues it",
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
        doomed += sorted((self.root / "objects").glob(f"*/*/{RESUME}"))
        for name in ("work", "jobs", "corrupt"):
            doomed += sorted((self.root / name).glob("*"))
        if not dry_run:
            with disk_errors(self.root):
                for path in doomed:
                    if path.parent.parent == self.root / "objects":
                        for about in ("checked", PULLED):
                            (self.root / about / path.name).unlink(missing_ok=True)
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif path.exists():
                        path.unlink()  # a probe that a kill left behind
        return doomed

    def _held(self, lock: Path) -> bool:
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except (BlockingIOError, PermissionError):  # of another user, who alone can tell
            return True
        except OSError:  # of a disk without such locks, for which FileLock has others
            with suppress(TimeoutError), FileLock(lock, timeout=0):
                return False
            return True
        return False


__all__ = ["PULLED", "RESUME", "Artifact", "Manifest", "Store", "default_root", "disk_errors"]
