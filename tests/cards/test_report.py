"""The files that a run of many cells leaves, against counts and curves by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from bdbench.cards import frontiers
from bdbench.cards.fit import Fitted
from bdbench.cards.frontiers import LOSSES, curve
from bdbench.cards.matrix import matrix
from bdbench.cards.report import write
from bdbench.cards.text import percent
from bdbench.leaderboard.folder import read_submission
from bdbench.registry import share_dir
from bdbench.schema import Card

DEFENSES = ("none", "finetune", "cleanclip")


@pytest.fixture(scope="module")
def cards() -> dict[str, Card]:
    """Some of the committed cards, of three seeds, and of an attack that failed."""
    found = []
    for track in ("tiny", "coco_mini"):
        for name in DEFENSES:
            path = share_dir("leaderboards") / track / "submissions" / f"{name}.json"
            found += [
                card for card in read_submission(path).cards
                if (track, card.cell.attack) in {
                    ("tiny", "none"), ("tiny", "blended"), ("coco_mini", "label_consistent")}
            ]
    return {f"{i:016x}": card for i, card in enumerate(found)}


@pytest.fixture(scope="module")
def folder(cards: dict[str, Card], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    write(cards, place)
    return place


def test_the_files_are_these_and_whole(cards: dict[str, Card], folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "matrix.csv", "matrix.md", "heat-none.png", "heat-blended.png",
        "heat-label_consistent.png", "frontier-mmcl.png", "frontier-mmcl_ssl.png"}
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            image.load()


def test_the_same_cards_give_the_same_bytes(
    cards: dict[str, Card], folder: Path, tmp_path: Path
) -> None:
    for path in write(cards, tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    (tmp_path / "matrix.md").write_text("as it was")
    write(cards, tmp_path)
    assert (tmp_path / "matrix.md").read_text() == "as it was"


def test_the_rows_are_those_of_the_cards(cards: dict[str, Card], folder: Path) -> None:
    with (folder / "matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == list(cards)
    for row, card in zip(rows, cards.values(), strict=True):
        assert (row["attack"], row["objective"], row["defense"], int(row["seed"])) == (
            card.cell.attack, card.cell.objective, card.cell.defense, card.cell.seed)
        assert row["status"] == card.verdict.status
        assert float(row["start asr_top1"]) == card.trajectory[0].scores["asr_top1"].value
        blind = card.trajectory[card.selections.blind]
        assert float(row["blind clean_top1"]) == blind.scores["clean_top1"].value
        assert row["blind point"].endswith(f"epoch={blind.step}")
        place = card.selections.oracle["0.05"]
        found = row["oracle 0.05 lift"]
        assert found == "" if place is None else (
            float(found) == card.trajectory[place].scores["lift"].value)
        assert float(row["seconds"]) == pytest.approx(
            sum(cost.seconds for cost in card.cost.values()), abs=0.06)


def test_no_field_is_a_formula_and_no_name_leaves_the_folder(
    cards: dict[str, Card], tmp_path: Path
) -> None:
    card = next(iter(cards.values()))
    names = {"attack": "../../evil", "objective": "$x$ [red]", "defense": "=cmd|' /C calc'!A0\n|"}
    hostile = card.model_copy(update={"cell": card.cell.model_copy(update=names)})
    place = tmp_path / "in" / "it"
    write({"k": hostile}, place)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != place] == []
    with (place / "matrix.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["defense"].startswith("'=cmd")
    lines = (place / "matrix.md").read_text().splitlines()
    assert len([line for line in lines if line]) == 4
    assert lines[2].replace("&#", "").count("|") == lines[0].count("|")


def test_a_curve_is_the_lowest_asr_within_each_loss(cards: dict[str, Card]) -> None:
    for card in list(cards.values())[::5]:
        models = [
            (point.scores["clean_top1"].value, point.scores["asr_top1"].value)
            for point in card.trajectory
        ]
        start = models[0][0]
        assert len(LOSSES) == 101
        for i, found in enumerate(curve(card)):
            within = [asr for clean, asr in models if start - clean <= i / 1000 + 1e-9]
            assert found == min(within)


def failing(cards: dict[str, Card], seeds: set[int]) -> list[Card]:
    """The cards of blended on mmcl, but in some seeds the attack failed and has 1 % of ASR."""
    found = []
    for card in cards.values():
        if (card.cell.attack, card.cell.objective) != ("blended", "mmcl"):
            continue
        if card.cell.seed in seeds:
            data = card.model_dump()
            data["verdict"]["status"] = "attack_failed"
            for point in data["trajectory"]:
                point["scores"]["asr_top1"]["value"] = 0.01
            card = Card.model_validate(data)
        found.append(card)
    return found


def test_seeds_whose_attack_failed_are_in_no_mean(
    cards: dict[str, Card], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defense must not look better for an attack that did not work."""
    some = failing(cards, {32686})
    row = next(row for row in matrix(some).rows if row[2] == "none")
    starts = [card.trajectory[0].scores for card in some
              if card.cell.defense == "none" and card.cell.seed != 32686]
    means = [percent(sum(scores[name].value for scores in starts) / 2)
             for name in ("clean_top1", "asr_top1")]
    assert row[3:5] == ("attack_failed (1/3)", f"{'/'.join(means)} (2/3)")
    drawn: dict[str, dict[str, list[list[float]]]] = {}
    monkeypatch.setattr(frontiers, "figure", lambda panels, *_: drawn.update(panels))
    frontiers.draw(some, tmp_path / "x.png")
    assert list(drawn) == ["against blended (2 of 3 seeds)"]
    assert drawn["against blended (2 of 3 seeds)"]["cleanclip"] == [
        curve(card) for card in some
        if card.cell.defense == "cleanclip" and card.cell.seed != 32686
    ]


def test_where_no_attack_worked_there_is_no_frontier_and_the_table_says_so(
    cards: dict[str, Card], tmp_path: Path
) -> None:
    none = failing(cards, {46043, 32686, 17774})
    names = {path.name for path in write({str(i): card for i, card in enumerate(none)}, tmp_path)}
    assert names == {"matrix.csv", "matrix.md", "heat-blended.png"}
    row = next(row for row in matrix(none).rows if row[2] == "none")
    assert (row[3], row[4].split("/")[1]) == ("attack_failed", "1.0")


def test_more_defenses_than_colours_look_different() -> None:
    looks = {str(frontiers._look(i)) for i in range(24)}
    assert len(looks) == 24


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_has_the_means_and_nothing_is_cut(cards: dict[str, Card], width: int) -> None:
    out = io.StringIO()
    table = matrix(list(cards.values()))
    Console(file=out, width=width, color_system=None).print(Fitted(table))
    text = out.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for row in table.rows:
        assert all(word in words for cell in row for word in cell.split())
    same = [card for card in cards.values() if (
        card.cell.attack, card.cell.objective, card.cell.defense
    ) == ("blended", "mmcl", "cleanclip")]
    assert len(same) == 3
    (row,) = (row for row in table.rows if row[:3] == ("blended", "mmcl", "cleanclip"))
    means = [
        sum(card.trajectory[card.selections.blind].scores[name].value for card in same) / 3
        for name in ("clean_top1", "asr_top1")
    ]
    assert row[table.head.index("blind")] == "/".join(map(percent, means))
    assert row[table.head.index("seeds")] == "46043, 32686, 17774"


def test_seeds_that_are_the_same_everywhere_are_told_once(cards: dict[str, Card]) -> None:
    table = matrix([card for card in cards.values() if card.cell.attack == "blended"])
    assert "seeds" not in table.head
    assert table.note == (
        "clean/ASR in per cent; seeds 46043, 32686, 17774, the mean over the seeds")
    (failed, *_) = [row for row in matrix(list(cards.values())).rows if "attack_failed" in row]
    assert failed[0] == "label_consistent"
