"""Artifacts that are pushed to another place and pulled into another store."""

from __future__ import annotations

import errno
import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bdbench.errors import BdbenchError, DiskError
from bdbench.execute import NodeEvent, run
from bdbench.forecast import measured
from bdbench.plan import STAGE_VERSIONS, STAGES, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card
from bdbench.store import Store
from bdbench.store.remote import LARGEST_MANIFEST, Moved, Remote, pull, push
from tests.inline import inlined

VERSIONS = {str(stage): version for stage, version in STAGE_VERSIONS.items()}
CELL = {"attack": "badnet", "objective": "mmcl_ssl", "defense": "cleanclip", "recipe": "smoke"}
Json = dict[str, Any]


@pytest.fixture(scope="module")
def place(
    smoke_card: Card, shared_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A remote with all that the smoke cell is made of."""
    folder = tmp_path_factory.mktemp("remote")
    done = list(push(Store(shared_store), Remote(folder.as_uri()), keys(smoke_card)))
    assert {one.outcome for one in done} == {"moved"}
    return folder


def keys(card: Card, *stages: str) -> list[tuple[str, str]]:
    return [
        (stage.stage, stage.key) for stage in card.provenance.stages
        if stage.stage in (stages or STAGES)
    ]


def pulled(home: Path, url: str, wanted: list[tuple[str, str]]) -> list[Moved]:
    return list(pull(Store(home), Remote(url), wanted, VERSIONS))


def test_a_pulled_model_need_not_be_trained(
    place: Path, smoke_card: Card, tmp_path: Path
) -> None:
    wanted = keys(smoke_card, "poison", "pretrain")
    assert [one.outcome for one in pulled(tmp_path, str(place), wanted)] == ["moved", "moved"]
    assert [one.outcome for one in pulled(tmp_path, str(place), wanted)] == ["present", "present"]
    events: list[NodeEvent] = []
    with inlined():
        card = run(**CELL, store=tmp_path, listen=events.append)
    assert {e.node.stage for e in events if e.kind == "reused"} == {"poison", "pretrain"}
    assert not {"poison", "pretrain"} & {e.node.stage for e in events if e.kind == "started"}
    assert card.without_times() == smoke_card.without_times()


def test_any_address_of_fsspec(smoke_card: Card, shared_store: Path, tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4()}"
    wanted = keys(smoke_card, "poison")
    assert [one.outcome for one in push(Store(shared_store), Remote(url), wanted)] == ["moved"]
    assert [one.outcome for one in push(Store(shared_store), Remote(url), wanted)] == ["present"]
    (moved,) = pulled(tmp_path, url, wanted)
    assert (moved.outcome, moved.label) == ("moved", "badnet")
    for name in (path.name for path in (shared_store / "objects" / "poison").glob("*/*")):
        (copy,) = tmp_path.glob(f"objects/poison/*/{name}")
        (original,) = shared_store.glob(f"objects/poison/{wanted[0][1]}/{name}")
        if name != "manifest.json":
            assert copy.read_bytes() == original.read_bytes()
    assert [one.outcome for one in pulled(tmp_path, url, [("poison", "0" * 16)])] == ["missing"]


def test_an_interrupted_push_is_no_artifact_until_it_is_whole(
    smoke_card: Card, shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, remote = keys(smoke_card, "pretrain"), Remote(str(tmp_path / "remote"))
    put, count = remote._system.put_file, 0

    def dies(*args: Any, **more: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise ConnectionResetError("gone")
        put(*args, **more)

    monkeypatch.setattr(remote._system, "put_file", dies)
    with pytest.raises(BdbenchError, match="does not answer as it should: ConnectionResetError"):
        list(push(Store(shared_store), remote, wanted))
    assert not remote.has(*wanted[0])
    assert [one.outcome for one in push(Store(shared_store), remote, wanted)] == ["moved"]
    assert [one.outcome for one in pulled(tmp_path / "home", remote.url, wanted)] == ["moved"]


def test_an_interrupted_pull_loads_only_what_is_left(
    place: Path, smoke_card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, loaded = keys(smoke_card, "pretrain"), []
    fetch = Remote.fetch

    def dies(self: Remote, manifest: Any, name: str, path: Path) -> None:
        loaded.append(name)
        if len(loaded) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        fetch(self, manifest, name, path)

    monkeypatch.setattr(Remote, "fetch", dies)
    with pytest.raises(KeyboardInterrupt):
        pulled(tmp_path, str(place), wanted)
    assert Store(tmp_path).find(*wanted[0]) is None
    first = loaded[0]
    assert [one.outcome for one in pulled(tmp_path, str(place), wanted)] == ["moved"]
    assert first not in loaded[2:]
    assert loaded[1] in loaded[2:]
    assert Store(tmp_path).find(*wanted[0]) is not None


def test_what_appears_while_a_pull_waits_is_not_loaded(
    place: Path, smoke_card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, manifest, other = keys(smoke_card, "poison"), Remote.manifest, []

    def meanwhile(self: Remote, *at: Any) -> Any:
        found = manifest(self, *at)
        monkeypatch.undo()
        other.extend(pulled(tmp_path, str(place), wanted))
        return found

    monkeypatch.setattr(Remote, "manifest", meanwhile)
    assert [one.outcome for one in pulled(tmp_path, str(place), wanted)] == ["present"]
    assert [one.outcome for one in other] == ["moved"]


@pytest.mark.parametrize("named", ["theirs", None])
def test_a_disk_of_ours_that_fills_is_not_the_remotes_fault(
    named: str | None, place: Path, smoke_card: Card, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*given: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", named)

    remote = Remote(str(place))
    monkeypatch.setattr(remote._system, "get_file", full)
    with pytest.raises(DiskError, match=f"the store `{tmp_path}` is full"):
        list(pull(Store(tmp_path), remote, keys(smoke_card, "poison"), VERSIONS))


def test_the_seconds_of_another_machine_tell_nothing_of_this_one(
    place: Path, smoke_card: Card, tmp_path: Path
) -> None:
    registry, store = Registry(), Store(tmp_path)
    todo = plan(registry, cells(
        registry, recipe="smoke", attacks=["badnet"], objectives=["mmcl_ssl"],
        defenses=["cleanclip"], seeds=[1]))
    made = keys(smoke_card, "data", "poison", "pretrain")
    list(pull(store, Remote(str(place)), made, VERSIONS))
    assert measured(todo, store) == {}
    for stage, key in made:  # corrupt, and made here
        (folder := tmp_path / "objects" / stage / key).joinpath("manifest.json").unlink()
        assert Store(tmp_path).find(stage, key) is None
        shutil.copytree(place / "objects" / stage / key, store.workdir(key), dirs_exist_ok=True)
        known = json.loads((place / "objects" / stage / key / "manifest.json").read_text())
        told = {name: known[name] for name in ("label", "spec", "inputs", "samples")}
        assert store.publish(stage, key, **told, seconds=1).path == folder
    known = {todo.stages[key] for key in measured(todo, store)}
    assert known == {"data", "poison", "pretrain"}
    store.gc()
    pulled(tmp_path, str(place), made)
    assert len(list((tmp_path / "pulled").iterdir())) == len(made)
    store.gc()
    assert list((tmp_path / "pulled").iterdir()) == []


def changed(change: Callable[[Json], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = json.loads((folder / "manifest.json").read_text())
        change(data)
        (folder / "manifest.json").write_text(json.dumps(data))

    return edit


def bigger(folder: Path) -> None:
    with (folder / "manifest.json").open("a") as out:
        out.write(" " * LARGEST_MANIFEST)


def flipped(folder: Path) -> None:
    path = folder / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(("edit", "message"), [
    (changed(lambda data: data["files"].update({"../../evil": "0" * 64})),
     "`../../evil` is no name of a file"),
    (changed(lambda data: data["files"].update({"/etc/evil": "0" * 64})),
     "`/etc/evil` is no name of a file"),
    (changed(lambda data: data["files"].update({"..\\evil": "0" * 64})),
     "`..\\evil` is no name of a file"),
    (changed(lambda data: data["files"].update({"resume": "0" * 64})),
     "`resume` is no name of a file"),
    (changed(lambda data: data["spec"].update(seed=1)), "what it tells has another key"),
    (changed(lambda data: data["inputs"].update(data="0" * 16)), "what it tells has another key"),
    (changed(lambda data: data.update(key="0" * 16)), "what it tells has another key"),
    (changed(lambda data: data.update(stage="card")), "it is of the stage `card`"),
    (changed(lambda data: data.update(code="import os")), "it is no manifest"),
    (lambda folder: (folder / "manifest.json").write_bytes(b"\x80\x04pickle"), "it is no manifest"),
    (bigger, "it is too large"),
    (flipped, "does not match its sha256"),
    (lambda folder: (folder / "rows.parquet").unlink(), "FileNotFoundError"),
])
def test_what_was_changed_is_refused_and_nothing_is_written_elsewhere(
    edit: Callable[[Path], None], message: str, place: Path, smoke_card: Card, tmp_path: Path
) -> None:
    ((stage, key),) = keys(smoke_card, "poison")
    remote, home = tmp_path / "remote", tmp_path / "deep" / "home"
    shutil.copytree(place / "objects" / stage, remote / "objects" / stage)
    edit(remote / "objects" / stage / key)
    with pytest.raises(BdbenchError) as caught:
        pulled(home, str(remote), [(stage, key)])
    assert message in caught.value.message
    assert str(remote) in caught.value.message
    assert caught.value.hint
    assert Store(home).artifacts() == []
    outside = [path for path in tmp_path.rglob("*") if home not in path.parents and path.is_file()]
    assert all(remote in path.parents for path in outside)


@pytest.mark.parametrize(("url", "message"), [
    ("nosuch://bucket/a", "`nosuch://bucket/a` is no address: "),
    ("ftp://127.0.0.1:9/a", "`ftp://127.0.0.1:9/a` cannot be reached: "),
])
def test_an_address_that_cannot_be_reached(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BdbenchError) as caught:
        pulled(tmp_path, url, [("poison", "0" * 16)])
    assert caught.value.message.startswith(message)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(BdbenchError) as caught:
        Remote("s3://bucket/a")
    assert str(caught.value) == (
        "`s3://bucket/a` cannot be opened: Install s3fs to access S3\n\nhint: install that package"
    )
