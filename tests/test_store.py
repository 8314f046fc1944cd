"""The store: atomic, verified, shared, and clear about a bad disk."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdbench.errors import BdbenchError
from bdbench.hashing import file_digest
from bdbench.store import RESUME, Store, disk_errors

KEY = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def publish(
    store: Store, key: str = KEY, stage: str = "data", inputs: dict[str, str] | None = None
) -> Path:
    work = store.workdir(key)
    (work / "a.txt").write_text("one")
    (work / RESUME / "state").write_text("half")
    return store.publish(
        stage, key, label="x", spec={"n": 1}, inputs=inputs or {}, seconds=2.0, samples=3
    ).path


def test_what_is_published_is_found_with_its_hashes(store: Store) -> None:
    path = publish(store)
    artifact = Store(store.root).find("data", KEY)
    assert artifact is not None
    assert artifact.path == path
    assert artifact.size == 3
    # sha256 of "one", from sha256sum
    expected = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert artifact.manifest.files == {"a.txt": expected}
    assert not (path / RESUME).exists()
    assert list((store.root / "work").iterdir()) == []


def test_missing_is_none_and_open_says_so(store: Store) -> None:
    assert store.find("data", KEY) is None
    with pytest.raises(BdbenchError, match=f"`data/{KEY}` is not in the store"):
        store.open("data", KEY)


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "manifest", "no manifest"])
def test_a_corrupt_artifact_is_named_and_set_aside(store: Store, harm: str) -> None:
    path = publish(store)
    if harm == "flip":
        (path / "a.txt").write_text("two")
    elif harm == "truncate":
        (path / "a.txt").write_text("on")
    elif harm == "delete":
        (path / "a.txt").unlink()
    elif harm == "manifest":
        (path / "manifest.json").write_text("{")
    else:
        (path / "manifest.json").unlink()
    fresh = Store(store.root)
    assert fresh.find("data", KEY) is None
    assert f"`data/{KEY}` is corrupt" in fresh.notes[0]
    assert "computed again" in fresh.notes[0]
    assert len(list((store.root / "corrupt").iterdir())) == 1
    publish(fresh)
    assert Store(store.root).find("data", KEY) is not None


def age(path: Path) -> None:
    """As if all its files had been written a minute ago."""
    for file in path.iterdir():
        os.utime(file, (time.time() - 60,) * 2)


def test_bytes_that_were_right_are_hashed_again_only_after_a_change(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return file_digest(path)

    monkeypatch.setattr("bdbench.store.file_digest", counted)
    path = publish(store)
    hashed.clear()
    for times in (1, 2):  # so young a file may change and keep its time
        assert Store(store.root).find("data", KEY)
        assert len(hashed) == times
    age(path)
    for _ in range(3):
        assert Store(store.root).find("data", KEY)
    assert len(hashed) == 3
    (path / "a.txt").write_text("two")
    assert Store(store.root).find("data", KEY) is None


def test_gc_forgets_what_it_deletes(store: Store) -> None:
    age(publish(store))
    assert Store(store.root).find("data", KEY)
    assert (store.root / "checked" / KEY).is_file()
    store.gc()
    assert not (store.root / "checked" / KEY).exists()


def test_a_manifest_cannot_name_files_outside(store: Store) -> None:
    path = publish(store)
    text = (path / "manifest.json").read_text().replace('"a.txt"', '"../../../a.txt"')
    (path / "manifest.json").write_text(text)
    fresh = Store(store.root)
    assert fresh.find("data", KEY) is None
    assert "outside itself" in fresh.notes[0]


@pytest.mark.parametrize(("stage", "key"), [("data", "../x"), ("..", KEY), ("data", "/etc")])
def test_an_address_cannot_leave_the_store(store: Store, stage: str, key: str) -> None:
    with pytest.raises(BdbenchError, match="is no address of an artifact"):
        store.find(stage, key)


def test_seconds_add_up_over_restarts(store: Store) -> None:
    store.workdir(KEY)
    store.spent(KEY, 5.0)
    store.spent(KEY, 1.5)
    publish(store)
    assert store.open("data", KEY).manifest.seconds == 8.5


@pytest.mark.parametrize("text", ["", "{", "1.5.2"])
def test_seconds_that_a_power_cut_took_are_not_counted(store: Store, text: str) -> None:
    (store.workdir(KEY) / RESUME / "seconds.json").write_text(text)
    assert store.spent(KEY, 1.5) == 1.5


def test_two_holders_of_a_key_take_turns(store: Store) -> None:
    order: list[str] = []
    held = threading.Event()

    def first() -> None:
        with store.lock(KEY):
            held.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with Store(store.root).lock(KEY):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_an_artifact_that_is_published_meanwhile_is_not_set_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appears between the look for its manifest and the look for its folder."""
    exists, folder = Path.exists, store.root / "objects" / "data" / KEY

    def appears(self: Path) -> bool:
        if self == folder and not exists(folder):
            monkeypatch.undo()
            publish(store)
        return exists(self)

    monkeypatch.setattr(Path, "exists", appears)
    reader = Store(store.root)
    assert reader.find("data", KEY) is not None
    assert reader.notes == []


def test_of_two_that_find_it_corrupt_one_sets_it_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(store)
    (path / "a.txt").write_text("two")
    one, other = Store(store.root), Store(store.root)
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        monkeypatch.undo()
        assert other.find("data", KEY) is None
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    assert one.find("data", KEY) is None
    assert (len(one.notes), len(other.notes)) == (0, 1)
    assert len(list((store.root / "corrupt").iterdir())) == 1


def test_an_artifact_that_goes_away_while_it_is_read_is_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = publish(store)

    def gone(file: Path) -> str:
        for other in path.iterdir():
            other.unlink()
        path.rmdir()
        raise FileNotFoundError(errno.ENOENT, "gone", str(file))

    monkeypatch.setattr("bdbench.store.file_digest", gone)
    assert Store(store.root).find("data", KEY) is None


def test_the_size_is_of_the_files_that_are_there(store: Store) -> None:
    (publish(store) / "a.txt").unlink()
    (found,) = store.artifacts()
    assert found.size == 0


@pytest.mark.parametrize("work", [KEY, f"{KEY}.pulled"])
def test_gc_waits_for_what_is_worked_on(
    work: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of a cluster outlives the run that queued it, and reads what no card needs yet."""
    publish(store, "a" * 16)
    (store.root / "work" / work).mkdir()
    lock = store.root / "locks" / f"{KEY}.lock"
    with store.lock(KEY), pytest.raises(BdbenchError, match=f"it holds `{lock}`"):
        Store(store.root).gc()
    lock.touch()
    open_file = Path.open

    def refused(self: Path, *given: Any, **named: Any) -> Any:
        if self == lock:
            raise PermissionError(errno.EACCES, "of another user", str(self))
        return open_file(self, *given, **named)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(BdbenchError, match="a run is using the store"):
        Store(store.root).gc()
    monkeypatch.undo()
    assert {path.name for path in store.gc(dry_run=True)} == {"a" * 16, work}
    assert {path.name for path in store.gc()} == {"a" * 16, work}


def test_gc_on_a_disk_without_the_systems_locks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There `FileLock` has another way, and is asked."""
    publish(store)

    def unsupported(*given: object) -> None:
        raise OSError(errno.ENOSYS, "not here")

    shared = SimpleNamespace(flock=unsupported, LOCK_SH=fcntl.LOCK_SH, LOCK_NB=fcntl.LOCK_NB)
    monkeypatch.setattr("bdbench.store.fcntl", shared)
    with store.in_use(), pytest.raises(BdbenchError, match="a run is using the store"):
        Store(store.root).gc()
    (store.root / "locks" / "run-1-1.lock").touch()
    assert len(store.gc()) == 1


def test_a_run_that_begins_while_gc_is_at_work_waits(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    order: list[str] = []

    def run() -> None:
        with Store(store.root).in_use():
            order.append("run")

    begun = threading.Thread(target=run)
    rmtree = shutil.rmtree

    def slow(path: Path, *given: Any, **named: Any) -> None:
        begun.start()
        time.sleep(0.3)
        rmtree(path, *given, **named)
        order.append("gc")

    monkeypatch.setattr("bdbench.store.shutil.rmtree", slow)
    store.gc()
    begun.join()
    assert order == ["gc", "run"]


def test_a_kill_while_an_artifact_gets_its_name_costs_no_training(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    for place in ("pathlib.Path.rename", "shutil.rmtree"):
        with monkeypatch.context() as patches:
            patches.setattr(place, killed)
            with pytest.raises(KeyboardInterrupt):
                publish(store)
        left = [*store.root.glob(f"work/*/{RESUME}/state"), *store.root.glob("objects/*/*/a.txt")]
        assert left, place
    assert Store(store.root).find("data", KEY) is not None
    publish(store, "c" * 16, "card", {"data": KEY})
    assert [path.name for path in store.gc()] == [RESUME]
    assert Store(store.root).find("data", KEY) is not None


def test_gc_keeps_what_a_card_rests_on(store: Store) -> None:
    publish(store, "a" * 16)
    publish(store, "b" * 16, "pretrain", {"data": "a" * 16})
    publish(store, "c" * 16, "card", {"pretrain": "b" * 16})
    publish(store, "d" * 16, "defend", {"pretrain": "b" * 16})
    store.workdir("e" * 16)
    (store.root / "jobs" / "f").mkdir(parents=True)
    (store.root / "corrupt" / "x").mkdir(parents=True)
    would = store.gc(dry_run=True)
    assert len(list((store.root / "objects").glob("*/*"))) == 4
    assert [path.name for path in store.gc()] == [path.name for path in would]
    assert [path.name for path in would] == ["d" * 16, "e" * 16, "f", "x"]
    left = sorted(path.name for path in (store.root / "objects").glob("*/*"))
    assert left == ["a" * 16, "b" * 16, "c" * 16]


def test_gc_waits_for_a_run(store: Store) -> None:
    publish(store)
    with store.in_use(), pytest.raises(BdbenchError, match="a run is using the store") as caught:
        Store(store.root).gc()
    assert "continues" in caught.value.hint
    assert len(store.gc()) == 1


def test_gc_does_not_wait_for_a_run_that_was_killed(store: Store) -> None:
    publish(store)
    (store.root / "locks" / "run-1-1.lock").touch()
    (store.root / "work" / ".probe-1").touch()
    assert len(store.gc()) == 2
    assert not list((store.root / "work").iterdir())


@pytest.mark.parametrize(
    ("code", "says", "hint"),
    [
        (errno.ENOSPC, "is full", "bdbench store gc"),
        (errno.EDQUOT, "is over its quota", "bdbench store gc"),
        (errno.EROFS, "is read-only", "BDBENCH_HOME"),
        (errno.EACCES, "is not writable", "BDBENCH_HOME"),
    ],
)
def test_disk_errors_are_explained(code: int, says: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(BdbenchError) as caught, disk_errors(tmp_path):
        raise OSError(code, "no")
    assert f"the store `{tmp_path}` {says}" in caught.value.message
    assert hint in caught.value.hint


def test_other_disk_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no")


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BdbenchError, match="is not a folder"):
        Store(tmp_path / "file").prepare()


def test_home_is_taken_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BDBENCH_HOME", str(tmp_path))
    assert Store().root == tmp_path
