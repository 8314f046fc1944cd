from __future__ import annotations

import gzip
import tarfile

import pytest

from bdbench.sources import Fault, Sample, images_in
from bdbench.sources.sample import caption_of
from bdbench.sources.tar import TarPart
from tests.sources.conftest import image_file, write_tar


def read(path):
    found = list(TarPart(str(path), path.name).samples())
    kinds = [item.kind for item in found if isinstance(item, Fault)]
    return [item for item in found if isinstance(item, Sample)], kinds


def test_pairs_of_a_shard_in_its_order(shard):
    samples, faults = read(shard)
    assert [one.caption for one in samples] == ["caption 0", "caption 1", "caption 2"]
    assert [one.image for one in samples] == [image_file(i) for i in range(3)]
    assert [one.label for one in samples] == [-1] * 3
    assert not faults
    assert TarPart(str(shard), "a.tar").count() == 3


def test_labels_and_compression(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", [
        ("x/1.cls", b"7\n"), ("x/1.jpg", image_file(form="JPEG")),
    ], "w:gz")
    samples, faults = read(path)
    assert [(one.label, one.caption) for one in samples] == [(7, None)]
    assert not faults


def test_what_cannot_be_used_is_named_and_the_rest_is_read(tmp_path):
    def special(name, kind, link=""):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        return info

    image = image_file()
    path = write_tar(tmp_path / "a.tar", [
        special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.jpg", tarfile.LNKTYPE, "../x"),
        special("null", tarfile.CHRTYPE),
        ("../../out.png", image), ("/abs.png", image),
        ("1.png", image), ("1.txt", b"\xff\xfe broken"),
        ("2.png", image), ("2.txt", b"  \n"),
        ("3.png", image), ("3.txt", b"a" * (11 * 2**20)),
        ("4.png", image), ("4.txt", b"nul\0in it"),
        ("5.txt", b"no image"),
        ("6.png", image), ("6.cls", b"seven"),
        ("7.png", image), ("7.cls", b"-2"),
        ("8.png", image), ("8.txt", b"good"),
        ("8.png", image), ("8.txt", b"good again"),
        ("9.png", image), ("9.txt", b"also good"),
        ("8.png", image), ("8.txt", b"and again"),
    ])
    samples, faults = read(path)
    assert [one.caption for one in samples] == ["good again", "also good"]
    assert faults == [
        "link or device in a tar", "link or device in a tar", "link or device in a tar",
        "path that leaves the tar", "path that leaves the tar", "caption is not UTF-8",
        "empty caption", "caption too long", "caption with control characters", "no image",
        "label is not a number", "label out of range", "duplicate key",
    ]
    assert not list(tmp_path.parent.rglob("out.png"))


def test_a_shard_cut_in_half_gives_what_lies_before_the_cut(shard, tmp_path):
    whole = shard.read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: len(whole) // 2])
    samples, faults = read(cut)
    assert [one.caption for one in samples] == ["caption 0"]
    assert faults == ["shard cut off or broken"]
    packed = tmp_path / "cut.tar.gz"
    packed.write_bytes(gzip.compress(whole)[:-2000])
    samples, faults = read(packed)
    assert len(samples) < 3
    assert faults == ["shard cut off or broken"]
    (tmp_path / "no.tar").write_bytes(b"this is no tar")
    assert read(tmp_path / "no.tar") == ([], ["shard cut off or broken"])


@pytest.mark.parametrize(("text", "caption"), [
    ("\n A man \nA horse\n", "A man"), ("a\tdog\xa0here", "a dog here"),
    ("  two  spaces stay ", "two  spaces stay"), ("co\u00adoperate \u200bnow", "co operate now"),
    ("a \U0001f468\u200d\U0001f469 pair", "a \U0001f468 \U0001f469 pair"), ("\ufeffa dog", "a dog"),
])
def test_a_caption_is_one_line_of_what_is_seen(text, caption):
    assert caption_of(text) == caption_of(text.encode()) == caption


def test_a_broken_header_is_a_cut_wherever_it_is(tmp_path):
    path = write_tar(tmp_path / "a.tar", [
        member for i in range(20)
        for member in ((f"{i}.png", image_file(i)), (f"{i}.txt", b"a dog"))
    ])
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        at = tar.getmember("10.png").offset
    for broken in (whole[: at + 100], whole[:at] + b"\xff" * 512 + whole[at + 512 :], whole[:at]):
        path.write_bytes(broken)
        samples, faults = read(path)
        assert len(samples) in (9, 10)
        assert faults == ["shard cut off or broken"]


def test_a_file_that_cannot_be_reached_is_no_cut_shard(tmp_path):
    with pytest.raises(OSError, match="gone"):
        read(tmp_path / "gone.tar")


def test_large_files_beside_a_sample_are_not_its_caption(tmp_path):
    path = write_tar(tmp_path / "a.tar", [
        ("1.png", image_file(1)), ("1.txt", b"a dog"), ("1.npy", bytes(2 * 2**20)),
    ])
    samples, faults = read(path)
    assert [one.caption for one in samples] == ["a dog"]
    assert not faults


def test_counting_reads_one_of_the_shards_that_are_packed(tmp_path, monkeypatch):
    """Shards alike: the count of all follows from their sizes."""
    parts, before = [], TarPart.count
    for shard in range(4):
        members = [(f"{i}.png", image_file(10 * shard + i)) for i in range(10)]
        path = write_tar(tmp_path / f"{shard}.tar.gz", members, "w:gz")
        parts.append(TarPart(str(path), path.name))
    plain = write_tar(tmp_path / "plain.tar", [(f"{i}.png", image_file(i)) for i in range(7)])
    parts.append(TarPart(str(plain), plain.name))
    counted = []
    monkeypatch.setattr(TarPart, "count", lambda self: counted.append(self.name) or before(self))
    assert images_in(parts) == pytest.approx(47, abs=2)
    assert len(counted) == 2
    assert images_in([]) == 0


def test_a_plain_shard_is_counted_by_its_headers(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.png", image_file(1)), ("2.png", image_file(2))])
    with tarfile.open(path) as tar:
        at, size = tar.getmember("1.png").offset_data, tar.getmember("1.png").size
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes(size) + data[at + size :])
    assert TarPart(str(path), path.name).count() == 2
