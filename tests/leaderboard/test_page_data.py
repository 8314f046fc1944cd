"""What the page is made of: names beyond the track, evidence, counts and further metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bdbench.cards.text import percent
from bdbench.leaderboard.page_cards import digits
from bdbench.leaderboard.page_data import claim, data
from bdbench.leaderboard.standing import Standing, standings
from bdbench.leaderboard.statistic import Finding
from bdbench.schema import Card, Cell, Ref, Submission
from bdbench.statistics import Mean, rate
from tests.leaderboard.conftest import STRENGTH, TRACK, card_of, point, submission_of, write
from tests.leaderboard.test_build import DECLARED

WIDE = TRACK.model_copy(update={"statistic": DECLARED})
GRADE = Ref(kind="metric", name="grade", use="mine:Grade", params={"q": 3})


def graded(card: Card) -> Card:
    """The card with the figure of one more metric on every model."""
    points = tuple(
        one.model_copy(update={"scores": one.scores | {"grade": rate(30 + i, 90)}})
        for i, one in enumerate(card.trajectory)
    )
    return card.model_copy(update={"trajectory": points, "metrics": (*card.metrics, GRADE)})


def without_effect(name: str) -> Submission:
    """A defense's submission in which `badnet_fixed` fails on `mmcl_ssl` with every seed.

    That of `none` decides for all others.
    """
    failed = (point(0.8, 0.03), point(0.8, 0.03, sweep={"lr": 2e-3}, step=1))
    return submission_of(name, WIDE, cards=tuple(
        card_of(cell, WIDE, failed if (cell.attack, cell.objective) == ("badnet_fixed", "mmcl_ssl")
                else None)
        for cell in WIDE.cells("defense", name)
    ))


def write_wide(root: Path) -> None:
    """A track with an attack, an objective, a metric and a failed cell of others, and evidence."""
    best = submission_of("cleanclip", WIDE)
    write(root, [
        best.model_copy(update={"cards": tuple(map(graded, best.cards))}),
        without_effect("none"),
        *(submission_of(name, WIDE) for name in STRENGTH if name not in ("cleanclip", "none")),
        submission_of("hidden", WIDE, kind="attack"),
        submission_of("siglip", WIDE, kind="objective"),
    ], WIDE)
    (root / "demo" / "evidence").mkdir()
    for name in ("cleanclip", "finetune"):
        cells = [cell for cell in DECLARED.cells("tiny") if cell.defense == name]
        made = submission_of(name, WIDE, cells=cells)
        (root / "demo" / "evidence" / f"{name}.json").write_text(made.model_dump_json())


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Standing:
    root = tmp_path_factory.mktemp("data") / "leaderboards"
    write_wide(root)
    (found,) = standings(root=root)
    return found


@pytest.fixture(scope="module")
def made(wide: Standing) -> dict[str, Any]:
    return data([wide])


def row_of(track: dict[str, Any], axis: str, name: str) -> dict[str, Any]:
    (found,) = (row for row in track["rows"][axis] if row["name"] == name)
    return found


def card_in(cards: list[dict[str, Any]], *cell: object) -> dict[str, Any]:
    (found,) = (card for card in cards if card["cell"] == list(cell))
    return found


def blind_asr(cards: list[Card], *where: str) -> float:
    found = [
        card.trajectory[card.selections.blind].scores["asr_top1"].value for card in cards
        if (card.cell.attack, card.cell.objective, card.cell.defense) == where
    ]
    assert len(found) == len(TRACK.seeds)
    return sum(found) / len(found)


def test_submitted_attacks_and_objectives_stand_beside_the_tracks_own(wide, made):
    (track,) = made["tracks"]
    assert track["attacks"] == [*TRACK.attacks, "hidden"]
    assert track["objectives"] == [*TRACK.objectives, "siglip"]
    row, cards = row_of(track, "defense", "cleanclip"), list(wide.board.cards())
    further = {tuple(group[:2]): group[3][0] for group in row["further"]}
    assert set(further) == {
        ("hidden", "mmcl"), ("hidden", "mmcl_ssl"), ("badnet", "siglip"),
        ("badnet_fixed", "siglip"), ("blended", "siglip"), ("label_consistent", "siglip"),
    }
    for where in (("hidden", "mmcl"), ("badnet", "siglip")):
        assert further[where] == pytest.approx(blind_asr(cards, *where, "cleanclip"), abs=1e-6)
    of_siglip = [asr for (_, objective), asr in further.items() if objective == "siglip"]
    assert row["parts"]["siglip"][0] == max(of_siglip)
    assert "siglip" in row_of(track, "attack", "badnet")["parts"]


def test_what_is_submitted_beside_the_track_moves_no_rank(wide, made):
    (track,) = made["tracks"]
    row, ranked = row_of(track, "defense", "cleanclip"), wide.rows["defense"][0]
    assert ranked.name == "cleanclip"
    assert row["rank"] == 1
    assert [group[:2] for group in row["groups"]] == [list(g.where) for g in ranked.groups]
    assert {"hidden", "siglip"}.isdisjoint(name for group in row["groups"] for name in group[:2])
    # Per objective of the track, the worst is that of the track's own attacks.
    own = [group[3][0] for group in row["groups"] if group[1] == "mmcl"]
    assert row["parts"]["mmcl"][0] == max(own)


def test_the_control_is_no_attack(made):
    told = {row["name"]: row["unranked"] for row in made["tracks"][0]["rows"]["attack"]}
    assert "none" not in told
    # One of the generated attacks is too weak on these models, and the page says so.
    assert set(told.values()) == {None, "failed in most cells on mmcl_ssl"}


def test_a_card_holds_counts_validation_and_every_metric(wide, made):
    (track,) = made["tracks"]
    card = card_in(track["cards"], "badnet", "mmcl", "cleanclip", 11)
    cell = Cell(recipe="tiny", attack="badnet", objective="mmcl", defense="cleanclip", seed=11)
    (told,) = (one for one in wide.board.cards() if one.cell == cell)
    names = made["pool"][card["metrics"]]
    start, *figures = made["pool"][card["picked"][0]]
    assert start == "starting model"
    by = dict(zip(names, figures, strict=True))
    score = told.trajectory[0].scores["asr_top1"]
    assert by["asr_top1"][3] == f"{score.k:,} / {score.n:,}"
    assert by["lift"][3] == f"n = {told.trajectory[0].scores['lift'].n:,}"
    assert by["grade"] == [*map(digits, (30 / 90, rate(30, 90).low, rate(30, 90).high)), "30 / 90"]
    assert len(card["points"]) == 5 * len(told.trajectory)
    point_7 = told.trajectory[7]
    assert card["points"][35:40] == [
        *map(digits, (point_7.scores["clean_top1"].value, point_7.scores["asr_top1"].value,
                      point_7.validation.value)), point_7.order, point_7.step,
    ]
    metrics = made["pool"][made["pool"][card["about"]]["metrics"]]
    assert metrics[-1] == ["metric", "grade, mine:Grade, version 1, q 3"]


def test_evidence_is_there_and_apart_from_the_ranking(made):
    (track,) = made["tracks"]
    assert len(track["evidence"]) == 20
    card = card_in(track["evidence"], "badnet", "mmcl", "finetune", 3)
    assert track["entries"][card["entry"]] == {"name": "finetune", "folder": "evidence"}
    assert not any(card["cell"][3] in DECLARED.seeds for card in track["cards"])


def test_the_statistic_by_seed(wide, made):
    told = made["tracks"][0]["statistic"]
    assert [row[:2] for row in told["seeds"]] == [
        [objective, seed] for objective in ("mmcl", "mmcl_ssl") for seed in (1, 2, 3, 4, 5)
    ]
    assert told["seeds"][1][2] == digits(wide.finding.by_seed["mmcl"][2])
    assert [row[0] for row in told["means"]] == ["mmcl", "mmcl_ssl", "mmcl minus mmcl_ssl"]
    assert told["claim"].startswith("Against badnet at equal accuracy, cleanclip ")


def test_what_the_statistic_says_in_a_sentence():
    found = Finding(
        removed={"mmcl": Mean(0.231, 0.093, 0.369, 5), "mmcl_ssl": Mean(-0.196, -0.351, -0.041, 5)},
        by_seed={}, difference=Mean(0.427, 0.184, 0.67, 5), failed=(),
    )
    assert claim(DECLARED, found) == (
        "Against badnet at equal accuracy, cleanclip removes 23.1 points [9.3, 36.9] more ASR than"
        " finetune on mmcl and removes 19.6 points [4.1, 35.1] less ASR than finetune on mmcl_ssl"
        " (95 % intervals over 5 seeds)."
    )
    found.removed["mmcl_ssl"] = Mean(-0.02, -0.1, 0.06, 5)
    assert "cannot be told from finetune (-2.0 points [-10.0, 6.0]) on mmcl_ssl" in claim(
        DECLARED, found
    )


@pytest.mark.parametrize("value", [-0.041463, 0.999499, 0.954497])
def test_the_page_rounds_as_the_tables_do(value):
    assert percent(digits(value)) == percent(value)
