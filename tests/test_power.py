"""A power cut: what was not forced to the disk is lost, and the next run goes on from the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bdbench import train
from bdbench.files import settle
from bdbench.plan import cells, plan
from bdbench.registry import Registry
from bdbench.schema import Card
from bdbench.sources.collect import collect
from bdbench.sources.sample import Sample
from bdbench.stages import defend
from bdbench.store import Store
from bdbench.worker import run_node


class Disk:
    """Knows which files were forced to the disk, and in which state."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._safe: set[tuple[int, int, int]] = set()
        force = os.fsync

        def forced(descriptor: int) -> None:
            force(descriptor)
            self._safe.add(self._state(os.fstat(descriptor)))

        monkeypatch.setattr(os, "fsync", forced)
        self._replace = Path.replace
        monkeypatch.setattr(Path, "replace", lambda path, to: self.named(path, to))

    def named(self, path: Path, to: Path) -> Path:
        """A file gets its name; only the seconds may be lost, of which every report adds some."""
        assert path.stem == "seconds" or self._safe_file(path), f"`{path}` may be empty"
        beside = to.with_suffix(".pixels")
        assert not beside.exists() or self._safe_file(beside), f"`{beside}` may be empty"
        return self._replace(path, to)

    def _safe_file(self, path: Path) -> bool:
        return self._state(path.stat()) in self._safe

    def _state(self, stat: os.stat_result) -> tuple[int, int, int]:
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def cut(self, folder: Path) -> list[str]:
        """Empty all other files, as ext4 and XFS leave them; returns their names."""
        lost = [
            path for path in sorted(folder.rglob("*"))
            if path.is_file() and not self._safe_file(path)
        ]
        for path in lost:
            path.write_bytes(b"")
        return [path.name for path in lost]


def test_a_file_gets_its_name_once_its_bytes_are_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, aside = Disk(monkeypatch), tmp_path / "aside"
    aside.write_text("new")
    (tmp_path / "file").write_text("old")
    settle(aside, tmp_path / "file")
    assert disk.cut(tmp_path) == []
    assert (tmp_path / "file").read_text() == "new"
    assert not aside.exists()


def test_what_is_published_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, store, key = Disk(monkeypatch), Store(tmp_path), "0" * 16
    store.prepare()
    (store.workdir(key) / "a.txt").write_text("one")
    made = store.publish("data", key, label="", spec={}, inputs={}, seconds=0, samples=0)
    assert disk.cut(made.path) == []
    assert Store(tmp_path).find("data", key) is not None


class Cut(Exception):
    """The power goes."""


@pytest.mark.parametrize("stage", ["pretrain", "defend"])
def test_training_goes_on_from_its_last_epoch(
    stage: str, smoke_card: Card, shared_store: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, known = Registry(), Store(shared_store)
    wanted = cells(registry, recipe="smoke", attacks=["badnet"], objectives=["mmcl_ssl"],
                   defenses=["cleanclip"], seeds=[0])
    todo = plan(registry, wanted, {"defense": {"epochs": 3, "lr": 1e-4}})
    node = next(node for node in todo.nodes.values() if node.stage == stage)
    seen: list[Mapping[str, Any]] = []

    def made(store: Store, tell: Callable[[Any], None]) -> Mapping[str, str]:
        """Digests of the files that the node leaves."""
        store.prepare()
        for key in node.inputs.values():
            place = store.root / "objects" / todo.stages[key]
            place.mkdir(parents=True, exist_ok=True)
            if not (place / key).exists():
                (place / key).symlink_to(known.open(todo.stages[key], key).path)
        run_node(store, registry, todo.job(node), tell)
        return store.open(stage, node.key).manifest.files

    def cut(progress: Mapping[str, Any]) -> None:
        if progress["epoch"] > 2:
            raise Cut

    monkeypatch.setattr(train, "REPORT_EVERY", 0.0)
    calm = made(Store(tmp_path / "calm"), seen.append)
    assert seen[-1]["seen"] == seen[-1]["done"]
    with monkeypatch.context() as patches:
        disk = Disk(patches)
        # A defense reports to a queue, from which nothing comes back.
        patches.setattr(defend, "one_way", nullcontext)
        patches.setattr(defend, "fit", lambda *given, report, **named: train.fit(
            *given, report=lambda progress: report(vars(progress)), **named))
        with pytest.raises(Cut):
            made(Store(tmp_path / "cut"), cut)
        lost = disk.cut(tmp_path / "cut" / "work")
    assert "seconds.json" in lost
    assert not [name for name in lost if name.endswith(".safetensors")]
    assert made(Store(tmp_path / "cut"), seen.append) == calm
    assert seen[-1]["seen"] > seen[-1]["done"], "it began anew"


def test_decoded_pixels_are_safe_before_their_index_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")

    class One:
        def count(self) -> int:
            return 1

        def samples(self) -> Iterator[Sample]:
            yield Sample("a", (tmp_path / "red.png").read_bytes(), "red", 0)

    disk = Disk(monkeypatch)
    found = collect([One()], 8, False, tmp_path / "parts")
    assert disk.cut(tmp_path / "parts") == []
    (table,) = found.tables()
    assert table["caption"].to_pylist() == ["red"]
