"""Names of classes, and which class a folder is."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from bdbench.errors import BdbenchError
from bdbench.sources import class_names, folder_labels

TIMM = find_spec("timm")
assert TIMM
assert TIMM.origin
SYNSETS = Path(TIMM.origin).parent / "data/_info"
"""An independent list of the synsets of ImageNet-1K, by label, and their lemmas."""
NETTE = [
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042",
    "n03425413", "n03445777", "n03888257",
]


@cache
def lemmas() -> dict[str, list[str]]:
    lines = (SYNSETS / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    return {line.split("\t")[0]: line.split("\t")[1].lower().split(", ") for line in lines}


def test_the_shipped_sets_are_in_their_canonical_order() -> None:
    # CIFAR numbers its classes by the alphabet, with underscores for spaces.
    for name, count in {"cifar10": 10, "cifar100": 100}.items():
        names = class_names(name, Path())
        assert len(set(names)) == count
        assert sorted(one.replace(" ", "_") for one in names) == [
            one.replace(" ", "_") for one in names]
    assert class_names("cifar10", Path())[3:6] == ["cat", "deer", "dog"]
    assert [class_names("cifar100", Path())[i] for i in (0, 47, 99)] == [
        "apple", "maple tree", "worm"]
    for synset, name in zip(NETTE, class_names("imagenette", Path()), strict=True):
        assert name.lower() in lemmas()[synset]


def test_the_synsets_of_imagenet_are_its_names_in_this_order() -> None:
    synsets = (SYNSETS / "imagenet_synsets.txt").read_text().split()
    names = class_names("imagenet1k", Path())
    assert folder_labels(sorted(synsets), names, "imagenet1k") == list(range(1000))
    # The names were improved by hand since; most are lemmas of the synset, and only of its own.
    same = [any(lemma in name.lower() for lemma in lemmas()[synset])
            for synset, name in zip(synsets, names, strict=True)]
    assert sum(same) > 800
    other = [any(lemma in name.lower() for lemma in lemmas()[synset])
             for synset, name in zip(synsets[1:], names, strict=False)]
    assert sum(other) < 50
    assert folder_labels(NETTE, class_names("imagenette", Path()), "imagenette") == list(range(10))


def test_a_folder_is_the_class_of_its_name_or_its_number() -> None:
    names = ["dog", "hot dog", "Bus"]
    assert folder_labels(["bus", "dog", "hot_dog"], names, "names.txt") == [2, 0, 1]
    assert folder_labels(["bus"], names, "names.txt") == [2]
    assert folder_labels(["0", "1", "10", "2"], ["x"] * 11, "names.txt") == [0, 1, 10, 2]
    assert folder_labels(["n00000001", "n00000002"], ["x", "y"], "names.txt") == [0, 1]


@pytest.mark.parametrize(("folders", "names", "known", "says"), [
    (["bus", "cat"], ["dog", "bus"], "names.txt", "`cat` is none of the classes of `names.txt`"),
    (["bus", "cat"], ["bus", "cat", "Bus"], "names.txt", "`bus` is two of the classes"),
    (["canis", "felis"], ["cat", "dog"], "names.txt", "`canis` is none of the classes"),
    (["a", "b"], ["dog", "hot dog", "bus"], "names.txt", "`2` class folders and `3` names"),
    (NETTE[1:], ["x"] * 1000, "imagenet1k", "`9` class folders and `1000` names"),
    ([*NETTE[:9], "n99999999"], ["x"] * 10, "imagenette", "not the synsets of `imagenette`"),
])
def test_folders_that_may_be_any_class_are_refused(
    folders: list[str], names: list[str], known: str, says: str
) -> None:
    with pytest.raises(BdbenchError) as error:
        folder_labels(folders, names, known)
    assert says in error.value.message
    assert "number them from 0" in error.value.hint
