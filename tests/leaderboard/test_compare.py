"""Paired comparison: counted by hand on made cards and made predictions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, t

from bdbench.cards.select import select
from bdbench.cli import compare as verb
from bdbench.leaderboard.compare import blind_hits, compare, evaluation_of
from bdbench.leaderboard.folder import load
from bdbench.leaderboard.rank import references
from bdbench.schema import Card, Cell, Gate, Selection, Stage, Track
from bdbench.store import Store
from bdbench.submit import Collected
from tests.cards.conftest import build, point
from tests.leaderboard.conftest import TRACK as GENERATED
from tests.leaderboard.conftest import card_of

TARGET, IMAGES = 3, 1000
TRACK = Track(
    summary="", edition=1, recipe="tiny", attacks=("badnet",), objectives=("mmcl",),
    defenses=("none", "mine"), seeds=(1, 2, 3), gate=Gate(lift=0.5),
)


def made(defense: str, seed: int, asr: float, acc: float, weights: str = "ab") -> Card:
    """A card whose blind selection is its only repaired model, with the ASR `asr`."""
    points = (point(0.8, 0.99), point(acc, asr, step=1))
    stages = [
        Stage(stage="poison", label="", key=f"p{seed:015d}", files={}),
        Stage(stage="pretrain", label="", key=f"m{seed:015d}",
              files={"model.safetensors": weights * 32}),
        Stage(stage="evaluate", label="", key=f"s{seed:015d}", files={}),
        Stage(stage="evaluate", label="", key=f"{defense:x>8}{seed:08d}", files={}),
    ]
    card = build(
        cell=Cell(recipe="tiny", attack="badnet", objective="mmcl", defense=defense, seed=seed),
        trajectory=points, selections=select(points, Selection(), {}),
    )
    return card.model_copy(update={
        "provenance": card.provenance.model_copy(update={"stages": tuple(stages)})
    })


def keep(store: Store, card: Card, hits: np.ndarray) -> None:
    """Publish predictions with `hits` on the images of other classes, and the poison's label."""
    key = evaluation_of(card, card.trajectory[card.selections.blind])
    work = store.workdir(key)
    others = len(hits)
    rows = [
        *(("test", 1, i, 0, TARGET if hit else 1) for i, hit in enumerate(hits)),
        *(("test", 1, others + i, TARGET, TARGET) for i in range(50)),  # the target's own images
        *(("test", 2, i, 0, TARGET) for i in range(others)),  # another epoch
        *(("validation", 1, 10**6 + i, 0, -1) for i in range(9)),
    ]
    frame = pd.DataFrame(rows, columns=["set", "step", "row", "label", "triggered1"])
    frame.sample(frac=1, random_state=0).to_parquet(work / "predictions.parquet")
    store.publish("evaluate", key, label="", spec={}, inputs={}, seconds=0, samples=0)
    poison = next(s.key for s in card.provenance.stages if s.stage == "poison")
    if store.find("poison", poison) is None:
        (store.workdir(poison) / "poison.json").write_text(f'{{"label": {TARGET}}}')
        store.publish("poison", poison, label="", spec={}, inputs={}, seconds=0, samples=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.prepare()
    return store


MINE = [made("mine", seed, asr, 0.78) for seed, asr in ((1, 0.10), (2, 0.30), (3, 0.20))]
NONE = [made("none", seed, asr, 0.80) for seed, asr in ((1, 0.90), (2, 0.95), (3, 0.99))]


def test_differences_by_seed_are_a_hand_count(store: Store) -> None:
    found = compare(MINE, NONE, TRACK, "defense", {}, store)
    assert found is not None
    assert found.other == "none"
    (row,) = found.rows
    assert row.where == ("badnet", "mmcl")
    differences = [
        m.trajectory[1].scores["asr_top1"].value - n.trajectory[1].scores["asr_top1"].value
        for m, n in zip(MINE, NONE, strict=True)
    ]
    assert row.asr.value == pytest.approx(np.mean(differences))
    half = t.ppf(0.975, 2) * np.std(differences, ddof=1) / np.sqrt(3)
    assert row.asr.low == pytest.approx(np.mean(differences) - half)
    statistic = np.mean(differences) / (np.std(differences, ddof=1) / np.sqrt(3))
    assert row.p == pytest.approx(2 * t.sf(abs(statistic), 2))
    assert row.apart
    assert row.images is None
    # One group: the seeds' means are its differences.
    assert found.p == row.p
    assert found.asr == row.asr
    assert found.loss.value == pytest.approx(0.02, abs=1e-3)


def test_images_are_paired_where_the_predictions_are_here(store: Store) -> None:
    rng = np.random.default_rng(0)
    only_mine = only_none = 0
    for mine, none in zip(MINE, NONE, strict=True):
        a, b = rng.random(IMAGES) < 0.2, rng.random(IMAGES) < 0.25
        keep(store, mine, a)
        keep(store, none, b)
        only_mine += int((a & ~b).sum())
        only_none += int((b & ~a).sum())
    hits = blind_hits(MINE[0], store)
    assert hits is not None
    assert len(hits) == IMAGES
    found = compare(MINE, NONE, TRACK, "defense", {}, store)
    assert found is not None
    expected = binomtest(only_mine, only_mine + only_none).pvalue
    assert found.rows[0].images == pytest.approx(expected)


def test_images_are_not_paired_across_different_weights(store: Store) -> None:
    other = [made("none", seed, 0.9, 0.8, weights="cd") for seed in (1, 2, 3)]
    for card in [*MINE, *other]:
        keep(store, card, np.ones(IMAGES, dtype=bool))
    found = compare(MINE, other, TRACK, "defense", {}, store)
    assert found is not None
    assert found.rows[0].images is None


def test_a_cell_whose_attack_failed_is_left_out(store: Store) -> None:
    failed = build(
        cell=NONE[0].cell, trajectory=(point(0.8, 0.1), point(0.8, 0.1, step=1)),
        selections=select((point(0.8, 0.1), point(0.8, 0.1, step=1)), Selection(), {}),
    )
    found = compare(MINE, [failed, *NONE[1:]], TRACK, "defense", {}, store)
    assert found is not None
    assert found.asr.n == 2
    assert compare(MINE[:1], [failed], TRACK, "defense", {}, store) is None


def test_alike_methods_are_not_apart(store: Store) -> None:
    found = compare(MINE, [made("none", s, a, 0.78) for s, a in ((1, .1), (2, .3), (3, .2))],
                    TRACK, "defense", {}, store)
    assert found is not None
    assert found.asr.value == 0
    assert found.p == found.rows[0].p == 1.0


def test_over_all_cells_seeds_count_and_not_cells(store: Store) -> None:
    """Two objectives that agree within each seed are three observations."""
    both = TRACK.model_copy(update={"objectives": ("mmcl", "mmcl_ssl")})

    def twice(cards: list[Card]) -> list[Card]:
        return [
            card.model_copy(update={"cell": card.cell.model_copy(update={"objective": objective})})
            for card in cards for objective in both.objectives
        ]

    once = compare(MINE, NONE, TRACK, "defense", {}, store)
    found = compare(twice(MINE), twice(NONE), both, "defense", {}, store)
    assert once is not None
    assert found is not None
    assert len(found.rows) == 2
    assert found.asr == once.asr
    assert found.loss == once.loss
    assert found.p == pytest.approx(once.p)
    # A row is one of two: Holm doubles the smaller p.
    assert found.rows[0].p == pytest.approx(2 * once.rows[0].p)


def test_the_boards_undefended_card_says_which_cells_count(store: Store) -> None:
    weak = [made("mine", card.cell.seed, 0.1, 0.78) for card in MINE]
    failed = made("none", 1, 0.1, 0.8)
    start = failed.trajectory[0].model_copy(update={"scores": point(0.8, 0.1).scores})
    failed = failed.model_copy(update={"trajectory": (start, *failed.trajectory[1:])})
    found = compare(weak, NONE, TRACK, "defense", references([failed, *NONE[1:]]), store)
    assert found is not None
    assert found.asr.n == 2


# The command, with the cells of a generated board in the place of the store's.


@pytest.fixture
def command(root, monkeypatch, capsys, tmp_path):
    """Runs `bdbench compare` for a method whose cards are given; returns stdout and stderr."""

    def run(kind: str, name: str, cards, as_json: bool = False):
        entry = SimpleNamespace(kind=kind, name=name)
        monkeypatch.setattr(verb, "collect", lambda *_, **__: Collected(entry, GENERATED, cards))
        monkeypatch.setattr(verb, "load", lambda track: load(track, root))
        monkeypatch.setattr(verb, "Store", lambda: Store(tmp_path / "none"))
        monkeypatch.setenv("COLUMNS", "120")
        verb.compare_method(name, "demo", as_json=as_json)
        return capsys.readouterr()

    return run


def cards_of(kind: str, name: str, **points) -> tuple[Card, ...]:
    return tuple(card_of(cell, GENERATED, **points) for cell in GENERATED.cells(kind, name))


def test_the_command_ranks_and_compares_a_method_that_nobody_submitted(command) -> None:
    out = command("defense", "mine", cards_of("defense", "mine")).out
    rows = [[word for word in line.split() if word != "≈"] for line in out.splitlines()]
    assert ["mine", "yours"] in [row[1:3] for row in rows]
    assert "mine minus none" in out
    assert "mine minus cleanclip" in out
    assert out.count(" minus ") == 2
    assert "≈: not distinguishable at 5 %" in out


@pytest.mark.parametrize(("name", "others"), [
    ("cleanclip", ["none", "finetune_ssl"]), ("none", ["cleanclip"]),
    ("mine", ["none", "cleanclip"]),
])
def test_a_defense_meets_the_undefended_models_and_the_best_one(command, name, others) -> None:
    found = json.loads(command("defense", name, cards_of("defense", name), as_json=True).out)
    assert [one["other"] for one in found] == others
    assert all(one["apart"] == (one["p"] < 0.05) for one in found)
    assert {tuple(row["where"]) for row in found[0]["rows"]} == {
        (attack, objective) for attack in GENERATED.attacks if attack != "none"
        for objective in GENERATED.objectives
    }


@pytest.mark.parametrize(("kind", "name", "best"), [
    ("attack", "wanet", "label_consistent"), ("objective", "siglip", "mmcl"),
    ("objective", "mmcl", "mmcl_ssl"),
])
def test_an_attack_or_objective_meets_the_best_one_alone(command, kind, name, best) -> None:
    cards = cards_of(kind, name)
    assert [one["other"] for one in json.loads(command(kind, name, cards, as_json=True).out)] == [
        best]
    assert f"{name} minus {best}" in command(kind, name, cards).out


def test_the_table_is_shown_also_where_nothing_can_be_compared(command) -> None:
    failed = (point(0.8, 0.1), point(0.8, 0.1, step=1))
    cards = cards_of("attack", "wanet", points=failed)
    told = command("attack", "wanet", cards)
    assert "no attack worked" in told.out
    assert " minus " not in told.out
    assert told.err == (
        "nothing to compare with: no cell of `wanet` counts together with one of another entry of"
        " the track `demo`\n"
    )
    assert json.loads(command("attack", "wanet", cards, as_json=True).out) == []
