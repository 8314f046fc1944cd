"""Artifacts from and to another place: any folder or address that fsspec opens.

A remote has the folders of a store, `objects/<stage>/<key>/<file>`. An artifact is there once its
manifest is, which comes last.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import ValidationError

from bdbench.errors import BdbenchError
from bdbench.hashing import file_digest
from bdbench.store import PULLED, RESUME, Artifact, Manifest, Store, disk_errors
from bdbench.store.artifact import address

LARGEST_MANIFEST = 4_000_000
"""Bytes; the specs of a card take some ten thousand."""
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Moved:
    """What became of one artifact."""

    stage: str
    key: str
    label: str
    outcome: Literal["moved", "present", "missing"]
    """`present`: it was there already; `missing`: there is none to move."""
    bytes: int = 0


class Remote:
    """A place that has, or is to have, artifacts."""

    def __init__(self, url: str) -> None:
        """BdbenchError for an address that nothing here can open."""
        import fsspec

        self.url = url
        try:
            self._system, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise BdbenchError(f"`{url}` cannot be opened: {error}", "install that package") \
                from error
        except ValueError as error:
            raise BdbenchError(
                f"`{url}` is no address: {error}", "take a folder, or an address as `s3://BUCKET/A`"
            ) from error
        except OSError as error:
            raise BdbenchError(
                f"`{url}` cannot be reached: {error}", "the same command does what is left"
            ) from error
        self._root = PurePosixPath(root)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Whatever its driver raises, as one clear error."""
        try:
            yield
        except BdbenchError:
            raise
        except Exception as error:
            raise BdbenchError(
                f"`{self.url}` does not answer as it should: {type(error).__name__}: {error}",
                "the same command does what is left",
            ) from error

    def _at(self, stage: str, key: str, name: str) -> str:
        return str(self._root / "objects" / stage / key / name)

    def stages(self, key: str) -> list[str]:
        """The stages of which it has an artifact with this key."""
        with self._reached():
            found = self._system.glob(str(self._root / "objects" / "*" / key / _MANIFEST))
        return sorted(PurePosixPath(path).parts[-3] for path in found)

    def has(self, stage: str, key: str) -> bool:
        """Whether it has an artifact, whole."""
        with self._reached():
            return bool(self._system.exists(self._at(stage, key, _MANIFEST)))

    def manifest(self, stage: str, key: str, versions: Mapping[str, int]) -> Manifest:
        """The manifest of an artifact; BdbenchError if it is not one, or not of this key."""
        with self._reached():
            text = self._system.cat_file(
                self._at(stage, key, _MANIFEST), start=0, end=LARGEST_MANIFEST + 1
            )
        try:
            if len(text) > LARGEST_MANIFEST:
                raise ValueError("it is too large")
            found = Manifest.model_validate_json(text)
            if found.stage != stage or stage not in versions:
                raise ValueError(f"it is of the stage `{found.stage}`")
            if key != address(stage, versions[stage], found.spec, found.inputs) or key != found.key:
                raise ValueError("what it tells has another key")
            for name in found.files:
                if PurePosixPath(name).name != name or "\\" in name or name in (_MANIFEST, RESUME):
                    raise ValueError(f"`{name}` is no name of a file")
        except (ValidationError, ValueError) as error:
            what = "it is no manifest" if isinstance(error, ValidationError) else error
            raise BdbenchError(
                f"`{stage}/{key}` at `{self.url}` is refused: {what}",
                "it is of another version of bdbench, or somebody changed it",
            ) from error
        return found

    def fetch(self, manifest: Manifest, name: str, path: Path) -> None:
        """Load a file of an artifact; BdbenchError if its bytes are not those of the manifest."""
        try:
            with self._reached():
                self._system.get_file(self._at(manifest.stage, manifest.key, name), str(path))
        except BdbenchError as error:
            number = getattr(error.__cause__, "errno", None)
            if number not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # Of our own disk, whatever file the driver names.
            raise OSError(number, os.strerror(number), str(path)) from error
        if file_digest(path) != manifest.files[name]:
            path.unlink()
            raise BdbenchError(
                f"`{manifest.stage}/{manifest.key}/{name}` at `{self.url}` does not match its"
                " sha256", "whoever pushed it has to push it again",
            )

    def put(self, folder: Path, manifest: Manifest) -> None:
        """Store an artifact, its manifest last."""
        stage, key = manifest.stage, manifest.key
        with self._reached():
            self._system.makedirs(str(self._root / "objects" / stage / key), exist_ok=True)
            for name in [*manifest.files, _MANIFEST]:
                self._system.put_file(str(folder / name), self._at(stage, key, name))


def push(store: Store, remote: Remote, wanted: Iterable[tuple[str, str]]) -> Iterator[Moved]:
    """Copy artifacts, by stage and key, whose bytes are as they were, to a remote."""
    for stage, key in wanted:
        artifact = store.find(stage, key)
        if artifact is None:
            yield Moved(stage, key, "", "missing")
        elif remote.has(stage, key):
            yield Moved(stage, key, artifact.manifest.label, "present")
        else:
            remote.put(artifact.path, artifact.manifest)
            yield Moved(stage, key, artifact.manifest.label, "moved", artifact.size)


def pull(
    store: Store, remote: Remote, wanted: Iterable[tuple[str, str]], versions: Mapping[str, int]
) -> Iterator[Moved]:
    """Copy artifacts, by stage and key, from a remote; `versions`: of every stage that there is.

    Each is loaded aside, its bytes are compared with its manifest, its manifest with its key, and
    it is published with one rename. Whether its owner ran what it says, no hash can tell.
    """
    store.prepare()
    for stage, key in wanted:
        here = store.find(stage, key)
        if here is None and not remote.has(stage, key):
            yield Moved(stage, key, "", "missing")
            continue
        taken = None
        if here is None:
            manifest = remote.manifest(stage, key, versions)
            with disk_errors(store.root), store.lock(key):
                here = store.find(stage, key)  # whoever had the lock may have made it
                if here is None:
                    here = taken = _take(store, remote, manifest)
        if taken is None:
            yield Moved(stage, key, here.manifest.label, "present")
        else:
            yield Moved(stage, key, taken.manifest.label, "moved", taken.size)


def _take(store: Store, remote: Remote, manifest: Manifest) -> Artifact:
    """Load what is not there of an earlier, interrupted attempt, and publish."""
    place = store.root / "work" / f"{manifest.key}.pulled"
    place.mkdir(exist_ok=True)
    for name, sha256 in manifest.files.items():
        path = place / name
        if not path.is_file() or file_digest(path) != sha256:
            remote.fetch(manifest, name, path)
    (store.root / PULLED).mkdir(exist_ok=True)
    (store.root / PULLED / manifest.key).touch()
    return store.adopt(place, manifest)
