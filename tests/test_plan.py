"""Plans: each distinct stage once, keys that change with what changes the outcome."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdbench.errors import BdbenchError
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry

GOLDEN = Path(__file__).parent / "golden" / "keys.json"
REGISTRY = Registry()


def planned(
    attacks: list[str] | None = None, objectives: list[str] | None = None,
    defenses: list[str] | None = None, seeds: list[int] | None = None, recipe: str = "tiny",
    overrides: dict[str, dict[str, object]] | None = None,
) -> Plan:
    wanted = cells(
        REGISTRY, recipe=recipe, attacks=attacks or ["badnet"], objectives=objectives or ["mmcl"],
        defenses=defenses or ["cleanclip"], seeds=seeds or [0],
    )
    return plan(REGISTRY, wanted, overrides)


def keys(todo: Plan) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, node in todo.nodes.items():
        found.setdefault(node.stage, set()).add(key)
    return found


def test_golden_keys() -> None:
    """A change of this file invalidates results: say so in the commit that changes it.

    `BDBENCH_GOLDEN=write pytest tests/test_plan.py` writes it anew.
    """
    found = {}
    for recipe in ("tiny", "smoke"):
        todo = planned(["all"], ["all"], ["all"], [0], recipe)
        found[recipe] = {
            " / ".join((cell.attack, cell.objective, cell.defense)): key
            for cell, key in sorted(todo.cards.items(), key=lambda item: str(item[0]))
        }
    if os.environ.get("BDBENCH_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_cells_share_their_stages() -> None:
    todo = planned(["badnet", "blended"], ["mmcl", "mmcl_ssl"], ["cleanclip", "finetune"], [0, 1])
    counts = Counter(node.stage for node in todo.nodes.values())
    assert len(todo.cards) == counts["card"] == 16
    assert counts["data"] == 2
    assert counts["poison"] == 4
    assert counts["pretrain"] == 8
    points = sum(
        len(REGISTRY.recipe("tiny").defenses[name].sweep["lr"])
        for name in ("cleanclip", "finetune")
    )
    assert counts["defend"] == 8 * points
    assert counts["evaluate"] == 8 + counts["defend"]


@settings(max_examples=15, deadline=None)
@given(
    attacks=st.lists(st.sampled_from(["none", "badnet", "blended"]), min_size=1, max_size=4),
    defenses=st.lists(st.sampled_from(["none", "bn_only", "finetune"]), min_size=1, max_size=4),
    seeds=st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_order_is_topological_and_repeats_add_nothing(
    attacks: list[str], defenses: list[str], seeds: list[int]
) -> None:
    todo = planned(attacks, ["mmcl"], defenses, seeds)
    seen: set[str] = set()
    for key, node in todo.nodes.items():
        assert set(node.inputs.values()) <= seen
        assert key == node.key
        seen.add(key)
    assert len(todo.cards) == len(set(attacks)) * len(set(defenses)) * len(set(seeds))
    assert todo.nodes.keys() == planned(sorted(attacks), ["mmcl"], defenses, seeds).nodes.keys()


def test_all_stands_for_every_name() -> None:
    todo = planned(["all"], ["all"], ["none"])
    attacks = {cell.attack for cell in todo.cards}
    assert attacks == {entry.name for entry in REGISTRY.entries("attack")}


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        ({"defense": {"epochs": 2}}, {"data", "poison", "pretrain"}),
        ({"attack": {"rate": 0.5}}, {"data"}),
        ({"objective": {}}, {"data", "poison", "pretrain", "defend", "evaluate", "card"}),
        ({"recipe": {"pretrain": {"epochs": 3}}}, {"data", "poison"}),
        ({"recipe": {"threads": {"pretrain": 3}}}, {"data", "poison"}),
        ({"recipe": {"resolution": 48}}, set()),
        ({"recipe": {"gate": {"lift": 0.9}}},
         {"data", "poison", "pretrain", "defend", "evaluate"}),
    ],
)
def test_a_change_keeps_what_it_does_not_touch(
    overrides: dict[str, dict[str, object]], kept: set[str]
) -> None:
    before, after = keys(planned()), keys(planned(overrides=overrides))
    assert {stage for stage in before if before[stage] == after[stage]} == kept


def test_seeds_by_purpose_differ() -> None:
    (node,) = [node for node in planned().nodes.values() if node.stage == "card"]
    seeds = node.spec["seeds"]
    assert sorted(seeds) == ["data", "defend", "poison", "pretrain"]
    assert len(set(seeds.values())) == 4


def test_the_defend_stage_is_told_nothing_of_the_attack() -> None:
    for node in planned(["badnet", "blended"]).nodes.values():
        if node.stage == "defend":
            assert set(node.inputs) == {"data", "pretrain"}
            assert "attack" not in json.dumps(node.spec)
            assert "banana" not in json.dumps(node.spec)


def test_unknown_target_is_refused() -> None:
    with pytest.raises(BdbenchError, match="`bananna` is not a class") as caught:
        planned(overrides={"recipe": {"target": "bananna"}})
    assert "`banana`" in caught.value.hint


def test_unknown_model_is_refused_before_anything_runs() -> None:
    with pytest.raises(BdbenchError, match=r"`recipe\.model\.name` = `RN5O` is no") as caught:
        planned(overrides={"recipe": {"model": {"name": "RN5O"}}})
    assert "`RN50`" in caught.value.hint
    assert planned(overrides={"recipe": {"model": {"name": "ViT-B-32", "tokenizer": "open_clip"}}})


def test_unknown_override_kind_is_refused() -> None:
    with pytest.raises(BdbenchError, match="`attacks` cannot be set") as caught:
        planned(overrides={"attacks": {"size": 3}})
    assert "`attack`" in caught.value.hint


def test_a_role_that_does_not_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.py"
    path.write_text(
        "from bdbench import register\nfrom bdbench.api import Scan\n\n"
        '@register("look")\nclass Look(Scan):\n    pass\n'
    )
    registry = Registry([path])
    wanted = cells(registry, recipe="tiny", attacks=["badnet"], objectives=["mmcl"],
                   defenses=["look"], seeds=[0])
    with pytest.raises(BdbenchError, match="`look` is no repair"):
        plan(registry, wanted)
