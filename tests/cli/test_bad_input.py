"""Data as bad as they come, through the command line: reported, left out, refused if so wished."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Cli
from tests.sources.conftest import image_file, write_tar

pytestmark = pytest.mark.usefixtures("inline")

GOOD = image_file(1)
WORDS = [
    "run", "--recipe", "smoke", "--attack", "badnet", "--objective", "mmcl", "--defense", "none",
]
SETTINGS = {
    "recipe.dataset": "coco_mini", "recipe.budget.pairs": 4, "recipe.pretrain.epochs": 1,
    "recipe.pretrain.batch": 8, "attack.rate": 0.1, "dataset.digest": "", "dataset.further": {},
    "dataset.names": "names.txt", "dataset.train.files": "{pairs,cut}.tar",
    "dataset.budget": {"files": "pairs.csv", "image": "file", "caption": "says"},
    "dataset.validation": {"files": "val", "start": 0, "by_name": False},
    "dataset.test": {"files": "test.tar", "by_name": False},
}


class Executed:
    """Writes a file if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def form(image: Image.Image, name: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def enormous() -> bytes:
    """A PNG whose header says 60,000 by 60,000."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a table and a folder, with every fault there is beside a few samples without."""
    root = tmp_path_factory.mktemp("bad")
    data = root / "data"
    (root / "cwd").mkdir()
    data.mkdir()
    (root / "secret.png").write_bytes(GOOD)
    (data / "names.txt").write_text("banana\ndog\n")
    red = Image.new("RGB", (40, 40), (200, 30, 10))
    moved = [Image.new("RGB", (40, 40), (0, 0, i)) for i in range(3)]
    images = {
        "cmyk.jpg": form(red.convert("CMYK"), "JPEG"), "grey.png": form(red.convert("L"), "PNG"),
        "deep.png": form(Image.fromarray(np.full((40, 40), 51_000, np.uint16)), "PNG"),
        "moving.gif": form(red, "GIF", save_all=True, append_images=moved),
        "cut.png": GOOD[:200], "empty.jpg": b"", "enormous.png": enormous(),
        "page.jpg": b"<html>404</html>",
    }
    members = [
        member for name, image in images.items()
        for member in ((name, image), (f"{name.split('.')[0]}.txt", b"a dog of another kind"))
    ]
    members += [("a.png", GOOD), ("a.pickle", pickle.dumps(Executed(root / "executed")))]
    members += [("a.txt", b"one banana")]
    for key, text in {
        "blank": b" \n", "binary": b"\xff\xfe\x00\x01", "long": b"dog " * (10 * 2**18),
        "control": b"a dog\x1b[2J",
    }.items():
        members += [(f"{key}.png", GOOD), (f"{key}.txt", text)]
    members += [("mute.png", GOOD), ("\udcff.png", GOOD), ("line\nhint: `rm`.png", GOOD)]
    for i in range(16):
        members += [(f"{i}.png", image_file(i)), (f"{i}.txt", b"a banana beside a dog")]
    members += [
        ("3.png", GOOD), ("3.txt", b"the same key again"),
        ("../../climbs.png", GOOD), ("../../climbs.txt", b"a dog"),
        (f"{root}/absolute.png", GOOD), (f"{root}/absolute.txt", b"a dog"),
        special("soft.png", tarfile.SYMTYPE, "../secret.png"),
        special("hard.png", tarfile.LNKTYPE, "../secret.png"),
        special("device.png", tarfile.CHRTYPE),
    ]
    write_tar(data / "pairs.tar", members)
    whole = write_tar(root / "whole.tar", [
        member for i in range(4)
        for member in ((f"{i}.png", image_file(20 + i)), (f"{i}.txt", b"two dogs"))
    ]).read_bytes()
    (data / "cut.tar").write_bytes(whole[: len(whole) // 2])
    for i in range(4):
        (data / f"{i}.png").write_bytes(image_file(40 + i))
    (data / "through.png").symlink_to(root / "secret.png")
    rows = [f"{i}.png,a dog" for i in range(4)]
    rows += ["gone.png,a dog", "../secret.png,a dog", "through.png,a dog", ","]
    rows += [f"{'long' * 80}.png,a dog", f"0.png,{'dog ' * (10 * 2**18)}", "0.png,one,too many"]
    (data / "pairs.csv").write_text("\n".join(["file,says", *rows]))
    for name in ("banana", "dog"):
        (data / "val" / name).mkdir(parents=True)
        for i in range(2):
            (data / "val" / name / f"{i}.png").write_bytes(image_file(50 + i))
    Path(os.fsdecode(bytes(data / "val/dog") + b"/\xff.png")).write_bytes(image_file(56))
    (data / "val/dog/notes.txt").write_text("no image")
    (data / "header.csv").write_text("image,caption\n")
    write_tar(data / "mute.tar", [("1.png", GOOD)])
    labels = {f"{i}": b"%d" % (i % 2) for i in range(8)}
    labels |= {"far": b"99", "minus": b"-2", "word": b"seven"}
    write_tar(data / "test.tar", [
        member for key, label in labels.items()
        for member in ((f"{key}.png", image_file(60)), (f"{key}.cls", label))
    ])
    return root


LEFT_OUT = {
    "image broken or cut off": 1, "empty image file": 1, "image too large": 1, "not an image": 1,
    "empty caption": 1, "caption is not UTF-8": 1, "caption too long": 2,
    "caption with control characters": 1, "no caption": 3, "duplicate key": 1,
    "path that leaves the tar": 4, "link or device in a tar": 3, "shard cut off or broken": 1,
    "file is missing": 2, "no image": 1, "path that leaves the folder": 2,
    "row with another number of columns": 1, "label out of range": 2, "label is not a number": 1,
}
"""By kind, how many of the samples above."""


def settings(**changed: object) -> list[str]:
    """As words of the command line; a value is written in TOML."""
    words = []
    for name, value in (SETTINGS | changed).items():
        words += ["--set", f"{name}={_toml(value)}"]
    return words


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Iterator[Path]:
    """All but the store is afterwards as it was before."""
    monkeypatch.setenv("BDBENCH_HOME", str(folder / "store"))
    monkeypatch.setenv("BDBENCH_DATA", str(folder / "data"))
    monkeypatch.chdir(folder / "cwd")

    def tree() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() if path.is_file() else b""
            for path in folder.rglob("*") if not path.is_relative_to(folder / "store")
        }

    before = tree()
    yield folder
    assert tree() == before
    assert not (folder / "executed").exists()


def test_faults_are_told_before_training_and_counted_on_the_card(place: Path, cli: Cli) -> None:
    done = cli(*WORDS, *settings(), "--json")
    assert done.status == 0, done.err
    (one,) = json.loads(done.out)
    assert one["card"]["left_out"] == LEFT_OUT
    assert one["card"]["data"]["train"] == 4 + 1 + 16 + 2
    told, _, _ = done.err.partition("pretrain  badnet")
    text = Path(one["path"]).read_text(encoding="utf-8")
    for kind, count in LEFT_OUT.items():
        part = "coco_mini / tests" if "label" in kind else "coco_mini"
        assert f"note: {part}: left out {count} x {kind} (`" in told
        assert f"| {kind} | {count} |" in text
    for example in (
        "pairs.tar: cut", "pairs.tar: ../../climbs.png", "gone.png", "pairs.csv: row 8",
        "test.tar: far", "pairs.tar: mute", "pairs.tar: ?", "pairs.tar: line hint: `rm`",
    ):
        assert f"`{example}`" in told


def test_strict_refuses_before_training(place: Path, cli: Cli) -> None:
    done = cli(*WORDS, *settings(), "--strict")
    assert (done.status, done.out) == (2, "")
    message, _, hint = done.err[done.err.index("error:") :].partition("\n\nhint: ")
    head, *told = message.splitlines()
    assert head == "error: the dataset `coco_mini` has samples that cannot be used:"
    told.remove("the dataset `coco_mini / tests` has samples that cannot be used:")
    assert told[0].startswith("4 x path that leaves the tar (`pairs.tar: ../../climbs.png`, `")
    assert sorted(line.partition(" (`")[0] for line in told) == sorted(
        f"{count} x {kind}" for kind, count in LEFT_OUT.items())
    assert "without `--strict`" in hint
    assert not re.search(r"pretrain(?!.*reused$)", done.err, re.MULTILINE)


@pytest.mark.parametrize(("changed", "says", "hint"), [
    ({"dataset.train.files": "gone-{0..3}.tar"}, "gone-0.tar` does not exist", "dataset.path"),
    ({"dataset.train.files": "*.gone"}, "nothing matches", "dataset.path"),
    ({"dataset.train.files": "names.txt"}, "is of no form that is read", "tar, parquet, csv"),
    ({"dataset.names": "gone.txt"}, "gone.txt` cannot be read", "one name per line"),
    ({"dataset.budget": {"files": "pairs.csv"}}, "no column `image`: it has `file, says`",
     "--set dataset.train.image=file"),
    ({"dataset.train.files": "mute.tar"}, "`dataset.train` has no usable sample", "columns"),
    ({"dataset.budget": {"files": "pairs.tar"}}, "`dataset.budget` and `dataset.train` share"
     " samples of `pairs.tar`", "dataset.train.stop=-1000"),
    ({"recipe.budget.pairs": 5}, "has `4` clean pairs for the defenses, and the recipe asks for"
     " `5`", "recipe.budget.pairs=4"),
    ({"dataset.train.files": "{3..1}.tar"}, "`{3..1}.tar` stands for no file", "{000..123}"),
    ({"dataset.budget": {"files": "header.csv"}}, "`dataset.budget` has no usable sample",
     "columns"),
    ({"dataset.per_class": 50}, "`4` images of class `0` (`banana`), not `50`", "per_class=0"),
    ({"dataset.train.files": f"hub:owner/name@{'0' * 40}/train"},
     "`owner/name` at `000000000000` cannot be read from the Hub", "check the network"),
    ({"dataset.train.files": "http://127.0.0.1:9/pairs.tar"}, "`http://127.0.0.1:9/pairs.tar`"
     " cannot be reached", "download"),
    ({"dataset.train.files": "nowhere://pairs.tar"}, "`nowhere://pairs.tar` cannot be reached",
     "download"),
    ({"dataset.train.files": "s3://bucket/*.tar"}, "`s3://bucket/*.tar` cannot be reached",
     "download"),
])
def test_what_cannot_be_read_at_all_is_refused_in_seconds(
    changed: dict[str, object], says: str, hint: str, place: Path, cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    begun = time.monotonic()
    done = cli(*WORDS, *settings(**changed))
    assert time.monotonic() - begun < 30
    assert (done.status, done.out) == (2, "")
    message, _, told = done.err[done.err.index("error:") :].partition("\n\nhint: ")
    assert says in message
    assert hint in told
    assert "Traceback" not in done.err
    assert not re.search(r"pretrain(?!.*reused$)", done.err, re.MULTILINE)
