from __future__ import annotations

import io
import os

import pandas as pd
import pytest

from bdbench.clip import _open_clip
from bdbench.errors import BdbenchError
from bdbench.sources import Fault, Sample, Source, fingerprint
from bdbench.sources.source import braces
from tests.sources.conftest import image_file


def read(source, root):
    found = [item for part in source.parts(str(root)) for item in part.samples()]
    kinds = [item.kind for item in found if isinstance(item, Fault)]
    return [item for item in found if isinstance(item, Sample)], kinds


@pytest.fixture
def pictures(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(image_file(i))
    return tmp_path


def test_brace_patterns():
    assert list(braces("a-{08..10}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert list(braces("{x,y}{0..1}")) == ["x0", "x1", "y0", "y1"]
    assert list(braces("plain")) == ["plain"]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_tables_of_paths(pictures, ending):
    separator = "," if ending == "csv" else "\t"
    rows = [
        ("file", "says"), ("0.png", "zero"), ("1.png", ""), ("../../etc/passwd", "climbs"),
        ("gone.png", "lost"), ("0.png", "zero again"), ("0.png", "zero"), ("3.png", "three"),
    ]
    text = "\n".join(separator.join(row) for row in rows)
    text += f"\nbroken{separator}row{separator}of three\n"
    (pictures / f"pairs.{ending}").write_text(text)
    samples, faults = read(
        Source(files=f"pairs.{ending}", image="file", caption="says"), pictures
    )
    assert [one.caption for one in samples] == ["zero", "zero again", "three"]
    assert samples[2].image == image_file(3)
    assert sorted(faults) == sorted([
        "empty caption", "path that leaves the folder", "file is missing", "duplicate key",
        "row with another number of columns",
    ])


def test_missing_columns_are_named(pictures):
    (pictures / "pairs.csv").write_text("path,text\n0.png,zero\n")
    with pytest.raises(BdbenchError, match="has no column `image`: it has `path, text`"):
        Source(files="pairs.csv").parts(str(pictures))
    with pytest.raises(BdbenchError, match="has no column `caption`"):
        Source(files="pairs.csv", image="path").parts(str(pictures))


def test_parquet_with_bytes_or_structs(tmp_path):
    pd.DataFrame({
        "jpg": [image_file(0), image_file(1), None], "txt": ["zero", None, "two"],
    }).to_parquet(tmp_path / "a.parquet")
    samples, faults = read(
        Source(files="a.parquet", image="jpg", caption="txt"), tmp_path
    )
    assert [(one.image, one.caption) for one in samples] == [(image_file(0), "zero")]
    assert faults == ["no caption", "no image"]
    pd.DataFrame({
        "image": [{"bytes": image_file(2), "path": "x"}], "label": [3],
    }).to_parquet(tmp_path / "b.parquet")
    samples, faults = read(Source(files="b.parquet"), tmp_path)
    assert [(one.image, one.label) for one in samples] == [(image_file(2), 3)]
    assert not faults


def test_a_folder_per_class_in_torchvisions_order(tmp_path):
    for name in ("n02", "n01", "n10"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "x.JPEG").write_bytes(image_file(form="JPEG"))
        (tmp_path / "val" / name / "notes.txt").write_text("no image")
    samples, faults = read(Source(files="val"), tmp_path)
    assert [(one.key, one.label) for one in samples] == [
        ("n01/x.JPEG", 0), ("n02/x.JPEG", 1), ("n10/x.JPEG", 2)
    ]
    assert not faults
    _open_clip()  # the CPU build of torch lacks what torchvision asks for at its import
    from torchvision.datasets import ImageFolder

    assert ImageFolder(tmp_path / "val").class_to_idx == {"n01": 0, "n02": 1, "n10": 2}


@pytest.mark.parametrize(("name", "text"), [
    ("metadata.csv", "file_name,caption\n2.png,two\n"),
    ("metadata.jsonl", '{"file_name": "2.png", "caption": "two"}\n'),
    ("metadata.jsonl", '{"file_name": "2.png", "caption": ["two", "deux"]}\n'),
])
def test_a_folder_with_metadata(pictures, name, text):
    (pictures / name).write_text(text)
    samples, _ = read(Source(files="."), pictures)
    assert [(one.image, one.caption) for one in samples] == [(image_file(2), "two")]


def test_lines_of_json(pictures):
    (pictures / "pairs.jsonl").write_text(
        '{"image": "0.png", "caption": "zero", "label": 3}\n'
        '{"image": "1.png", "caption": "5", "label": 0}\n'
    )
    samples, faults = read(Source(files="pairs.jsonl"), pictures)
    assert [(one.caption, one.label) for one in samples] == [("zero", 3), ("5", 0)]
    assert not faults
    (pictures / "pairs.jsonl").write_text("no json\n")
    with pytest.raises(BdbenchError, match=r"pairs\.jsonl` is not a table") as error:
        Source(files="pairs.jsonl").parts(str(pictures))
    assert "an object per line" in error.value.hint


def test_a_folder_of_shards_and_an_absolute_pattern(shard, tmp_path):
    samples, _ = read(Source(files="."), tmp_path)
    assert len(samples) == 3
    samples, _ = read(Source(files=f"{tmp_path}/*.tar"), "")
    assert len(samples) == 3
    first = fingerprint(Source(files="."), str(tmp_path), tmp_path / "known.json")
    shard.write_bytes(shard.read_bytes() + bytes(512))
    assert fingerprint(Source(files="."), str(tmp_path), tmp_path / "known.json") != first


def test_addresses_that_fsspec_opens(shard, tmp_path):
    from pathlib import Path

    samples, faults = read(Source(files=f"file://{shard}"), "")
    assert len(samples) == 3
    assert not faults
    zero = io.BytesIO(Path(shard).read_bytes())
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/s-000.tar", zero.getvalue())
    samples, _ = read(Source(files="memory://bucket/s-{000..000}.tar"), "")
    assert len(samples) == 3


def test_what_is_not_there_is_said_before_anything_is_read(tmp_path):
    with pytest.raises(BdbenchError, match="does not exist") as error:
        Source(files="gone-{0..3}.tar").parts(str(tmp_path))
    assert "dataset.path" in error.value.hint
    with pytest.raises(BdbenchError, match="not said in which folder") as error:
        Source(files="a.tar").parts("")
    assert "BDBENCH_DATA" in error.value.hint
    with pytest.raises(BdbenchError, match="nothing matches"):
        Source(files="*.tar").parts(str(tmp_path))
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(BdbenchError, match="is of no form that is read"):
        Source(files="a.zip").parts(str(tmp_path))
    with pytest.raises(BdbenchError, match=r"neither `metadata\.csv` or `\.jsonl`, nor a folder"):
        Source(files=".").parts(str(tmp_path))
    with pytest.raises(BdbenchError, match="is not of the form `hub:OWNER/NAME@REVISION") as error:
        Source(files="hub:owner/name@main/train").parts("")
    assert "branches move" in error.value.hint


def test_a_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    source = Source(files=f"hub:owner/name@{'0' * 40}/train")
    with pytest.raises(BdbenchError, match="cannot be read from the Hub") as error:
        source.parts("")
    assert "HF_TOKEN" in error.value.hint


def test_the_digest_is_of_the_content_and_files_are_read_once(shard, tmp_path, monkeypatch):
    known = tmp_path / "known.json"
    one = fingerprint(Source(files="a.tar"), str(tmp_path), known)
    assert len(one) == 64

    import bdbench.sources.source as module

    def never(path):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "file_digest", never)
        assert fingerprint(Source(files="a.tar"), str(tmp_path), known) == one
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(1, 1))
    assert fingerprint(Source(files="a.tar"), str(tmp_path), known) != one


def test_the_digest_does_not_depend_on_where_the_files_lie(shard, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "a.tar").write_bytes(shard.read_bytes())
    source = Source(files="a.tar")
    assert fingerprint(source, str(tmp_path), tmp_path / "k") == fingerprint(
        source, str(other), other / "k"
    )


def test_the_images_that_a_table_names_are_in_its_digest(pictures):
    (pictures / "pairs.csv").write_text("image,caption\n0.png,zero\n")
    source = Source(files="pairs.csv")
    before = fingerprint(source, str(pictures), pictures / "k")
    (pictures / "1.png").write_bytes(b"another, which it does not name")
    assert fingerprint(source, str(pictures), pictures / "k") == before
    (pictures / "0.png").write_bytes(image_file(9))
    assert fingerprint(source, str(pictures), pictures / "k") != before
