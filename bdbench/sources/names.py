"""Names of classes and zero-shot templates: of a known set, or from a file of lines."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bdbench.errors import BdbenchError
from bdbench.hashing import digest
from bdbench.registry import near, share_dir

_OPEN_CLIP = {"imagenet1k": "IMAGENET_CLASSNAMES"}
_TEMPLATES = {"imagenet": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}
_SYNSET = re.compile(r"n\d{8}")
"""A folder of ImageNet: sorted, they are in the order of the labels."""
_SYNSETS = {
    "imagenet1k": "5e738e464c43c92037bbb4252eeb6ba2c306091861443ae7e182e28c9662324e",
    "imagenette": "96beeb860d91baa190fa0c45201fd89fae147444212111ed1ff54651b6a5e9b5",
}
"""Digests of the sorted synsets whose classes a known set names in this order."""


@cache
def _metadata() -> Any:
    """open_clip's file of names and templates, read alone: the package would import torch."""
    package = importlib.util.find_spec("open_clip")
    assert package
    assert package.origin
    path = Path(package.origin).parent / "zero_shot_metadata.py"
    spec = importlib.util.spec_from_file_location("_zero_shot_metadata", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BdbenchError(f"`{path}` cannot be read: {error}", "one name per line") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def known_names() -> list[str]:
    """The sets of class names that need no file."""
    shipped = (share_dir("registry") / "names").glob("*.txt")
    return sorted([*_OPEN_CLIP, *(path.stem for path in shipped)])


def class_names(names: str, root: Path) -> list[str]:
    """The names of a known set, or the lines of a file below `root`; the index is the label."""
    if names in _OPEN_CLIP:
        return list(getattr(_metadata(), _OPEN_CLIP[names]))
    shipped = share_dir("registry") / "names" / f"{names}.txt"
    if names in known_names():
        return _lines(shipped)
    if not names.endswith(".txt"):
        raise BdbenchError(
            f"`{names}` is no known set of class names, and no `.txt` file",
            near(names, known_names()),
        )
    return _lines(root / names)


def prompt_templates(templates: str, root: Path) -> list[str]:
    """The zero-shot templates of a known set, or of a file; one `{}` each."""
    if templates in _TEMPLATES:
        # A name with braces would survive: none has any.
        return [template("{}") for template in getattr(_metadata(), _TEMPLATES[templates])]
    if not templates.endswith(".txt"):
        raise BdbenchError(
            f"`{templates}` is no known set of templates, and no `.txt` file",
            near(templates, _TEMPLATES),
        )
    lines = _lines(root / templates)
    for line in lines:
        if line.count("{}") != 1 or line.replace("{}", "").count("{"):
            raise BdbenchError(f"the template `{line[:100]}` has not one `{{}}`", "a photo of a {}")
    return lines


def folder_labels(folders: Sequence[str], names: Sequence[str], known: str) -> list[int]:
    """The label of each class folder: by its name, by its number, or a synset's by its place.

    Args:
        folders: Their names, sorted.
        names: Of the classes, by label.
        known: What the names are called: the synsets of ImageNet are held against its own.

    Raises:
        BdbenchError: Which folder is which class cannot be told.
    """
    called: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        called.setdefault(_plain(name), []).append(label)
    labels = [called.get(_plain(folder), []) for folder in folders]
    if all(len(found) == 1 for found in labels):
        return [found[0] for found in labels]
    if all(name.isascii() and name.isdigit() for name in folders):
        return [int(name) for name in folders]
    hint = "call the folders by the names of the classes, or number them from 0"
    for folder, found in zip(folders, labels, strict=True):
        if any(labels) and len(found) != 1:
            how = "two" if found else "none"
            raise BdbenchError(f"the folder `{folder}` is {how} of the classes of `{known}`", hint)
    if len(folders) != len(names):
        raise BdbenchError(
            f"there are `{len(folders)}` class folders and `{len(names)}` names in `{known}`", hint
        )
    if not all(map(_SYNSET.fullmatch, folders)):
        raise BdbenchError(f"the folder `{folders[0]}` is none of the classes of `{known}`", hint)
    if known in _SYNSETS and digest(list(folders)) != _SYNSETS[known]:
        raise BdbenchError(f"the class folders are not the synsets of `{known}`", hint)
    return list(range(len(folders)))


def balanced(labels: NDArray[np.int64], names: Sequence[str], per_class: int) -> None:
    """BdbenchError unless a test, int64 [n], has so many images of every class."""
    counts = np.bincount(labels, minlength=len(names))
    wrong = np.flatnonzero(counts != per_class)
    if len(wrong):
        raise BdbenchError(
            f"the test has `{counts[wrong[0]]}` images of class `{wrong[0]}`"
            f" (`{names[wrong[0]]}`), not `{per_class}`; {len(wrong)} classes are wrong",
            "a wrong class order or a partial copy; `--set dataset.per_class=0` takes any set",
        )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()


def named(caption: str | None, names: Sequence[str]) -> int:
    """The one class that a caption names, in the singular or a plural; -1 for none or several.

    Longer names go first, so that `hot dog` is no `dog`.
    """
    found = all_named(caption, names)
    return found.pop() if len(found) == 1 else -1


def all_named(caption: str | None, names: Sequence[str]) -> set[int]:
    """The classes that a caption names."""
    pattern, labels = _words(tuple(names))
    return {labels[word.lower()] for word in pattern.findall(caption or "")}


@cache
def _words(names: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, int]]:
    """A pattern of all names and their plurals, and the class of each."""
    labels: dict[str, int] = {}
    for label, name in enumerate(names):
        name = name.lower()
        plurals = [name + "s", name + "es", name[:-1] + "ies" if name.endswith("y") else name]
        for word in (name, *plurals):
            labels.setdefault(word, label)
    longest = sorted(labels, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, longest))})\b", re.IGNORECASE), labels
