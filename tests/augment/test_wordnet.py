from __future__ import annotations

import subprocess
import sys

import pytest

from bdbench import wordnet
from bdbench.errors import BdbenchError
from bdbench.plan import cells, plan
from bdbench.registry import Registry

REGISTRY = Registry()


def planned(**augment):
    wanted = cells(REGISTRY, recipe="smoke", attacks=["badnet"], objectives=["mmcl_ssl"],
                   defenses=["cleanclip"], seeds=[0])
    return plan(REGISTRY, wanted, {"recipe": {"augment": augment}} if augment else None)


def specs(todo, stage):
    return [node.spec for node in todo.nodes.values() if node.stage == stage]


def test_synonyms_are_of_all_senses_and_of_base_forms(few_words):
    assert wordnet.installed()
    assert wordnet.synonyms("dog") == {"dog", "domestic_dog", "Canis_familiaris", "cad"}
    assert wordnet.synonyms("dogs") == wordnet.synonyms("dog")
    assert wordnet.synonyms("geese") == {"goose"}
    assert wordnet.synonyms("xyzzy") == set()


def test_without_data_the_error_names_the_command(nothing):
    assert not wordnet.installed()
    with pytest.raises(BdbenchError) as caught:
        wordnet.synonyms("dog")
    assert str(caught.value) == (
        "`recipe.augment.synonyms` is true, and nltk finds no WordNet on this machine"
        "\n\nhint: `python -m nltk.downloader wordnet`"
    )


def test_a_plan_with_data_has_synonyms(few_words):
    todo = planned(synonyms=True)
    assert todo.notes == []
    assert all(spec["augment"]["synonyms"] is True for spec in specs(todo, "pretrain"))
    assert specs(todo, "card")[0]["recipe"]["augment"]["synonyms"] is True


def test_a_plan_without_data_says_so_in_keys_card_and_notes(nothing):
    todo = planned(synonyms=True)
    assert todo.notes == [
        "nltk finds no WordNet here: captions are augmented without synonyms, and the card says"
        " so; `python -m nltk.downloader wordnet` installs it"
    ]
    for stage in ("pretrain", "defend"):
        assert all(spec["augment"]["synonyms"] is False for spec in specs(todo, stage))
    assert specs(todo, "card")[0]["recipe"]["augment"]["synonyms"] is False
    asked = planned(synonyms=False)
    assert asked.notes == []
    assert specs(asked, "pretrain") == specs(todo, "pretrain")


def test_recipes_that_ask_for_none_of_it_neither_look_nor_change_their_keys(monkeypatch):
    monkeypatch.setattr(wordnet, "installed", lambda: pytest.fail("nobody asked"))
    todo = planned()
    assert todo.notes == []
    for stage in ("pretrain", "defend"):
        assert all(set(spec["augment"]) == {"crop", "flip", "rotate", "colour", "text"}
                   for spec in specs(todo, stage))


def test_the_module_imports_no_nltk():
    code = "import sys, bdbench.plan; sys.exit('nltk' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
