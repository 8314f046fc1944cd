from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bdbench.data import DataCache, write
from bdbench.data.pixels import JpegPixels
from bdbench.datasets.captioned import Captioned
from bdbench.errors import BdbenchError
from bdbench.plan import cells, plan
from bdbench.registry import Registry
from bdbench.sources import Source, named
from bdbench.sources.decode import decode
from tests.sources.conftest import image_file, write_tar

NAMES = ["dog", "hot dog", "bus", "cherry"]
RIGHT = image_file(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two shards of pairs, one of them with faults, and a labelled shard."""
    monkeypatch.setenv("BDBENCH_HOME", str(tmp_path / "home"))
    for shard in range(2):
        members = []
        for i in range(10):
            text = f"a {NAMES[i % 4]} number {shard}{i}"
            members += [(f"{i}.png", image_file(10 * shard + i)), (f"{i}.txt", text.encode())]
        if shard:
            members += [("x.png", RIGHT[:99]), ("x.txt", b"cut"), ("y.png", RIGHT)]
        write_tar(tmp_path / f"pairs-{shard}.tar", members)
    members = []
    for i in range(9):
        members += [(f"{i}.png", image_file(50 + i)), (f"{i}.cls", str(i % 5).encode())]
    write_tar(tmp_path / "test.tar", members)
    write_tar(tmp_path / "mute.tar", [("1.png", RIGHT)])
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return tmp_path


def dataset(folder, **changes):
    pairs = "pairs-{0..1}.tar"
    return Captioned(**{
        "path": str(folder), "names": "names.txt", "prompts": "simple",
        "train": Source(files=pairs, stop=-6),
        "budget": Source(files=pairs, start=-6),
        "validation": Source(files=pairs, start=-6, by_name=True),
        "test": Source(files="test.tar"),
        "further": {"again": {"source": Source(files="test.tar"), "names": "names.txt"}},
        **changes,
    })


def test_the_splits_hold_what_the_files_say(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    file = write(dataset(folder), 16, 0, out)
    cache = DataCache(out)
    train, budget = cache.pairs("train"), cache.pairs("budget")
    # 20 whole pairs and `y.png`, which has no caption: it takes a place and is left out.
    assert list(train.captions) == [f"a {NAMES[i % 4]} number {s}{i}" for s, i in (
        *((0, i) for i in range(10)), *((1, i) for i in range(5)))]
    assert list(budget.captions) == [f"a {NAMES[i % 4]} number 1{i}" for i in range(5, 10)]
    whole = decode(image_file(13), 16)
    np.testing.assert_array_equal(train.pixels[torch.tensor([13])][0].numpy(), whole)
    held = cache.labelled("validation")
    assert held.labels.tolist() == [i % 4 for i in range(5, 10)]
    test = cache.labelled("test")
    assert test.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert test.classes == NAMES
    again = cache.labelled("again")
    assert again.pixels[torch.arange(8)].equal(test.pixels[torch.arange(8)])
    assert not set(again.ids.tolist()) & set(test.ids.tolist())
    assert file.sizes == {"train": 15, "budget": 5, "validation": 5, "test": 8, "again": 8}
    assert {kind: fault.count for kind, fault in file.left_out.items()} == {
        "image broken or cut off": 1, "no caption": 1, "label out of range": 2,
    }
    assert file.left_out["image broken or cut off"].examples == ("pairs-1.tar: x",)


def test_jpeg_files_where_the_pixels_would_be_too_many(folder, tmp_path):
    raw, packed = tmp_path / "raw", tmp_path / "packed"
    raw.mkdir()
    packed.mkdir()
    write(dataset(folder), 32, 0, raw)
    assert write(dataset(folder, raw_limit=1e-6), 32, 0, packed).encoding == "jpeg"
    one, two = DataCache(raw), DataCache(packed)
    for split in ("train", "budget"):
        index = torch.tensor([4, 0, 3])
        a, b = one.pairs(split), two.pairs(split)
        assert list(a.captions) == list(b.captions)
        assert a.ids.equal(b.ids)
        assert b.pixels.shape == a.pixels.shape
        # Noise is the worst case for JPEG: close, and each the picture that is meant.
        difference = (a.images(index) - b.images(index)).abs().mean((1, 2, 3))
        assert difference.max() < 0.15
        assert (a.images(index) - b.images(index.flip(0))).abs().mean((1, 2, 3))[0] > 0.2
    test = two.labelled("test")
    before = test.images(torch.arange(len(test)))
    test.decoded(tmp_path / "test.pixels")
    assert not isinstance(test.pixels, JpegPixels)
    assert test.images(torch.arange(len(test))).equal(before)
    assert two.labelled("test").images(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 32, 32)


def test_other_words_than_a_class_are_no_label():
    for caption, label in {
        "A dog.": 0, "two DOGS": 0, "a hot dog": 1, "hot dogs and a dog": -1, "buses": 2,
        "a bus, a bus": 2, "cherries": 3, "dogma": -1, "": -1,
    }.items():
        assert named(caption, NAMES) == label


def test_a_class_order_that_is_not_the_datasets_is_refused(folder, tmp_path):
    with pytest.raises(BdbenchError, match=r"has `2` images of class `0`.*not `50`") as error:
        write(dataset(folder, per_class=50), 16, 0, tmp_path)
    assert "dataset.per_class=0" in error.value.hint


def test_class_folders_are_labelled_by_their_names(folder, tmp_path):
    for number, name in enumerate(["bus", "cherry", "dog", "hot_dog"]):
        place = tmp_path / "val" / name
        place.mkdir(parents=True)
        (place / "0.png").write_bytes(image_file(70 + number))
    out = tmp_path / "out"
    out.mkdir()
    write(dataset(folder, test=Source(files="val")), 16, 0, out)
    test = DataCache(out).labelled("test")
    assert test.labels.tolist() == [2, 3, 0, 1]
    np.testing.assert_array_equal(
        test.pixels[torch.tensor([2])][0].numpy(), decode(image_file(72), 16))
    (tmp_path / "val" / "hot_dog").rename(tmp_path / "val" / "cat")
    with pytest.raises(BdbenchError, match=r"`cat` is none of the classes of `names\.txt`"):
        write(dataset(folder, test=Source(files="val")), 16, 0, tmp_path)


@pytest.mark.parametrize("changes", [
    {"budget": Source(files="pairs-{0..1}.tar")},
    {"budget": Source(files="pairs-{0..1}.tar", start=-7)},
    {"budget": Source(files="pairs-1.tar")},
    {"validation": Source(files="pairs-*.tar", by_name=True)},
    {"retrieval": Source(files="pairs-{0..1}.tar", start=3, stop=5)},
])
def test_what_is_held_out_is_not_trained_on(folder, tmp_path, changes):
    changes = {"validation": Source(files="test.tar"), **changes}
    with pytest.raises(BdbenchError, match=r"share samples of `pairs-.*tar`") as error:
        write(dataset(folder, **changes), 16, 0, tmp_path)
    assert "start" in error.value.hint


def test_nothing_that_can_be_used_is_said(folder, tmp_path):
    with pytest.raises(BdbenchError, match=r"`dataset\.train` has no usable sample") as error:
        write(dataset(folder, train=Source(files="mute.tar")), 16, 0, tmp_path)
    assert "no caption" in error.value.message
    assert "columns" in error.value.hint


def test_the_path_is_in_no_identity_and_the_content_is(folder):
    one = dataset(folder)
    assert one.fingerprint() == dataset(folder).fingerprint()
    (folder / "names.txt").write_text("\n".join(reversed(NAMES)))
    assert one.fingerprint() != dataset(folder, names="coco41").fingerprint()


KILLED = """
import sys
from pathlib import Path
from tests.datasets.test_captioned import dataset
from bdbench.data import write
if __name__ == "__main__":
    folder, out = map(Path, sys.argv[1:])
    out.mkdir()
    one = dataset(folder)
    write(one, 16, 0, out)
"""


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(folder, tmp_path):
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(out)], env=environment,
        stdout=subprocess.PIPE, text=True,
    )
    assert killed.stdout is not None
    while not list(out.glob("resume/parts/*/*.parquet")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("resume/parts/*/*.parquet")}
    assert done
    whole = tmp_path / "whole"
    whole.mkdir()
    write(dataset(folder), 16, 0, whole)
    write(dataset(folder), 16, 0, out)
    for name in ("pixels.bin", "data.json"):
        assert (whole / name).read_bytes() == (out / name).read_bytes()
    assert pq.read_table(whole / "index.parquet").equals(pq.read_table(out / "index.parquet"))
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_setting_one_field_of_a_source_leaves_the_others():
    ref, _ = Registry().resolve(
        "dataset", "cc3m", None, {"validation": {"files": "mine.csv", "image": "path"}}
    )
    assert ref.params["validation"]["files"] == "mine.csv"
    assert ref.params["validation"]["by_name"] is True
    assert ref.params["validation"]["start"] == -160_000
    assert ref.params["validation"]["stop"] == -110_000
    assert ref.params["budget"]["start"] == -110_000


def test_files_are_looked_at_once_for_all_cells_of_a_plan(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(Captioned, "fingerprint", lambda self: seen.append(self) or "0" * 64)
    registry = Registry()
    wanted = cells(registry, recipe="coco_mini", attacks=["badnet", "none"],
                   objectives=["mmcl", "mmcl_ssl"], defenses=["none", "finetune"], seeds=[0, 1])
    monkeypatch.setattr(Captioned, "_hold_out", lambda self, split, count: None)
    plan(registry, wanted, {"dataset": {"digest": "", "path": str(folder)}})
    assert len(seen) == 2


def test_what_only_tests_is_stored_apart_unless_the_digest_is_known(folder):
    def keys(**changed):
        wanted = cells(registry, recipe="coco_mini", attacks=["badnet"], objectives=["mmcl"],
                       defenses=["none"], seeds=[0])
        changed = {"path": str(folder), **changed}
        changes = {"dataset": changed, "recipe": {"target": "dog"} if len(changed) > 1 else {}}
        nodes = plan(registry, wanted, changes).nodes.values()
        found = {}
        for node in nodes:
            found.setdefault(node.stage, set()).add(node.key)
        return found

    registry = Registry()
    files = "pairs-{0..1}.tar"
    own = {"digest": "", "names": "names.txt", "further": {}, "train": {"files": files, "stop": -6},
           "budget": {"files": files, "start": -6}, "validation": {"files": files, "start": -6},
           "test": {"files": "test.tar", "by_name": False}}
    before = keys(**own)
    after = keys(**own, retrieval={"files": files, "start": -6})
    assert len(before["data"]) == 2
    assert len(before["data"] & after["data"]) == 1
    assert before["poison"] == after["poison"]
    assert before["pretrain"] == after["pretrain"]
    assert before["evaluate"].isdisjoint(after["evaluate"])
    assert len(keys()["data"]) == 1


def test_an_empty_table_drops_the_further_sets():
    ref, _ = Registry().resolve("dataset", "coco_mini", None, {"further": {}})
    assert not ref.params["further"]
