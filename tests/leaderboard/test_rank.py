"""The ranking against a naive implementation of its own, and on cards made by hand."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest

from bdbench.leaderboard.rank import measure, rank
from bdbench.schema import Cell, Gate, Track
from tests.leaderboard.conftest import card_of, point

NAMES = ("none", "finetune", "cleanclip")


def track(**changes) -> Track:
    return Track(**{
        "summary": "By hand", "edition": 1, "recipe": "tiny", "attacks": ("badnet", "blended"),
        "objectives": ("mmcl", "mmcl_ssl"), "defenses": NAMES, "seeds": (1, 2, 3),
        "gate": Gate(lift=0.5, clean_top1=0.5),
    } | changes)


def made(cell: Cell, asr: float, loss: float = 0.01, start: float = 0.99, acc: float = 0.8):
    """A card whose blind selection leaves `asr` and costs `loss`."""
    before, after = point(acc, start), point(acc - loss, asr, sweep={"lr": 1e-3}, step=1)
    # On validation nothing is lost, so that the blind rule takes it whatever it costs on the test.
    after = after.model_copy(update={"validation": before.validation})
    return card_of(cell, points=(before, after))


def cards(of: Track, asr, loss=lambda cell: 0.01, start=lambda cell: 0.99, defenses=NAMES):
    return [
        made(cell, asr(cell), loss(cell), start(cell))
        for name in defenses for cell in of.cells("defense", name)
    ]


LEVEL = {"none": 0.99, "finetune": 0.5, "cleanclip": 0.1}
HARD = {("blended", "mmcl_ssl"): 0.3}


def asr(cell: Cell) -> float:
    more = HARD.get((cell.attack, cell.objective), 0.0) if cell.defense != "none" else 0.0
    return LEVEL[cell.defense] + more + cell.seed / 1000


def test_the_worst_group_ranks_and_not_the_mean():
    rows = rank(cards(track(), asr), track())
    assert [(row.name, row.rank) for row in rows] == [
        ("cleanclip", 1), ("finetune", 2), ("none", 3)
    ]
    best = rows[0]
    assert best.worst.where == ("blended", "mmcl_ssl")
    assert best.worst.asr.value == pytest.approx(0.402, abs=1e-3)
    assert (best.cells, best.expected, best.failed, best.unranked) == (12, 12, 0, None)
    assert best.loss.value == pytest.approx(0.01, abs=1e-3)
    assert [group.where for group in best.groups] == list(product(
        ("badnet", "blended"), ("mmcl", "mmcl_ssl")
    ))
    # A defense that is good on average and fails on one group comes behind an even one.
    def uneven(cell):
        if cell.defense == "cleanclip":
            return 0.9 if (cell.attack, cell.objective) == ("badnet", "mmcl_ssl") else 0.0
        return 0.6
    rows = rank(cards(track(), uneven, defenses=("cleanclip", "finetune")), track())
    assert [row.name for row in rows] == ["finetune", "cleanclip"]


def naive(all_cards, of: Track) -> list[tuple[str, float]]:
    """Names and worst ASR of the defenses, best first, without anything of the module."""
    worked = set()
    for card in all_cards:
        cell, start = card.cell, card.trajectory[0]
        if cell.defense == "none" and card.poison.poisoned and (
            start.scores["lift"].value >= of.gate.lift
            and start.scores["clean_top1"].value >= of.gate.clean_top1
        ):
            worked.add((cell.attack, cell.objective, cell.seed))
    found = {}
    for name in sorted({card.cell.defense for card in all_cards}):
        worst, seen, cost = -1.0, 0, 0.0
        for objective in of.objectives:
            losses = []
            for attack in of.attacks:
                left = []
                for card in all_cards:
                    cell = card.cell
                    if (cell.attack, cell.objective, cell.defense) != (attack, objective, name):
                        continue
                    start, blind = card.trajectory[0], card.trajectory[card.selections.blind]
                    losses.append(
                        start.scores["clean_top1"].value - blind.scores["clean_top1"].value
                    )
                    seen += 1
                    if (attack, objective, cell.seed) in worked:
                        left.append(blind.scores["asr_top1"].value)
                if left:
                    worst = max(worst, sum(left) / len(left))
            cost = max(cost, sum(losses) / max(len(losses), 1))
        wanted = len(of.attacks) * len(of.objectives) * len(of.seeds)
        if seen == wanted and worst >= 0 and cost <= of.accuracy_loss:
            found[name] = worst
    return sorted(found.items(), key=lambda item: item[1])


@pytest.mark.parametrize("seed", range(8))
def test_against_a_naive_implementation(seed):
    draw = np.random.default_rng(seed)
    names = ("none", *(f"method{i}" for i in range(6)))
    of = track(attacks=("none", "badnet", "blended"))
    found = [
        made(cell, draw.uniform(0, 1), draw.uniform(0, 0.1), draw.choice([0.2, 0.9, 0.99]))
        for name in names for cell in of.cells("defense", name)
        if name != "method5" or draw.random() < 0.9
    ]
    rows = rank(found, of, also=names)
    ranked = [(row.name, row.worst.asr.value) for row in rows if row.rank]
    assert [name for name, _ in ranked] == [name for name, _ in naive(found, of)]
    assert [worst for _, worst in ranked] == pytest.approx([worst for _, worst in naive(found, of)])
    assert [row.rank for row in rows if row.rank] == list(range(1, len(ranked) + 1))
    assert {row.name for row in rows} == {card.cell.defense for card in found}


def undefended(of: Track, failed=()):
    """The board's own undefended cards; the attack failed on the seeds of `failed`."""
    return [
        made(cell, 0.3 if cell.seed in failed else 0.99, 0.0,
             start=0.3 if cell.seed in failed else 0.99)
        for cell in of.cells("defense", "none")
    ]


def mine(of: Track, weak=(), bad=(3,)):
    """An entry that fails on the seeds `bad`, and says that the attack did on the seeds `weak`."""
    return [
        made(cell, 0.9 if cell.seed in bad else 0.1, start=0.2 if cell.seed in weak else 0.99)
        for cell in of.cells("defense", "mine")
    ]


def test_an_entry_does_not_decide_which_of_its_cells_count():
    honest, skewed = (
        rank(undefended(track()) + mine(track(), weak), track(), also=["mine"])[0]
        for weak in ((), (3,))
    )
    assert honest.worst.asr == skewed.worst.asr
    assert (honest.rank, honest.failed) == (skewed.rank, skewed.failed)
    assert (honest.name, honest.failed) == ("mine", 0)
    assert honest.worst.asr.value == pytest.approx((0.1 + 0.1 + 0.9) / 3, abs=1e-3)
    # Nor by a poison that was never there.
    clean = [
        card.model_copy(update={"poison": card.poison.model_copy(update={"poisoned": 0})})
        if card.cell.seed == 3 else card for card in mine(track())
    ]
    assert rank(undefended(track()) + clean, track(), also=["mine"])[0] == honest
    # Where the reference failed, the cell is left out, whatever the entry says.
    row = next(row for row in rank(undefended(track(), failed=(3,)) + mine(track()), track(),
                                   also=["mine"]) if row.name == "mine")
    assert (row.rank, row.failed) == (1, 4)
    assert {group.asr.n for group in row.groups} == {2}
    assert row.worst.asr.value == pytest.approx(0.1, abs=1e-3)


def test_without_a_reference_an_entry_that_leaves_out_cells_has_no_rank():
    row = rank(mine(track(), weak=(3,)), track(), also=["mine"])[0]
    assert row.rank is None
    assert row.unranked == "attack failed in 4 cells, and no undefended card confirms it"
    assert rank(mine(track()), track(), also=["mine"])[0].rank == 1
    # A control by its name needs no reference.
    of = track(attacks=("none", "badnet"))
    row = rank([
        made(cell, 0.1, start=0.02 if cell.attack == "none" else 0.99)
        for cell in of.cells("defense", "mine")
    ], of, also=["mine"])[0]
    assert row.rank == 1


def test_a_submitted_attack_is_its_own_reference():
    of = track()
    found = undefended(of) + [
        made(cell, 0.4, start=0.3 if cell.seed == 2 else 0.99)
        for cell in of.cells("attack", "wanet")
    ]
    row = next(row for row in rank(found, of, "attack", ["wanet"]) if row.name == "wanet")
    assert (row.rank, row.failed) == (1, 6)
    assert row.worst.asr.n == 2


def test_the_objective_that_costs_most_decides_on_the_gate():
    def loss(cell):
        return 0.09 if cell.objective == "mmcl_ssl" and cell.defense == "cleanclip" else 0.0

    row = rank(cards(track(), asr, loss=loss), track())[-1]
    assert (row.name, row.rank) == ("cleanclip", None)
    assert row.unranked == "loses more than 5 points of accuracy"
    assert row.loss.value == pytest.approx(0.09, abs=1e-3)
    assert row.losses == {"mmcl": pytest.approx(0, abs=1e-3), "mmcl_ssl": row.loss.value}


def test_the_interval_of_the_loss_is_over_the_seeds():
    """Of cells that agree within each seed there is no more to know than of the seeds."""
    of = track(attacks=("badnet", "blended"), objectives=("mmcl",))
    row = rank(cards(of, asr, loss=lambda cell: cell.seed / 100), of)[0]
    assert row.loss.n == 3
    assert row.loss.high - row.loss.value == pytest.approx(4.3027 * 0.01 / 3**0.5, abs=1e-3)


def test_a_defense_that_loses_too_much_accuracy_has_no_rank():
    rows = rank(cards(
        track(), asr, loss=lambda cell: 0.0512 if cell.defense == "cleanclip" else 0.02
    ), track())
    assert [row.name for row in rows] == ["finetune", "none", "cleanclip"]
    assert rows[-1].rank is None
    assert rows[-1].apart is None
    assert rows[-1].unranked == "loses more than 5 points of accuracy"
    # Exactly the bound is within it.
    exact = [made(cell, 0.5, 0.05) for cell in track().cells("defense", "finetune")]
    loss = exact[0].trajectory[0].scores["clean_top1"].value
    loss -= exact[0].trajectory[1].scores["clean_top1"].value
    assert rank(exact, track(accuracy_loss=loss))[0].rank == 1


def test_the_gate_is_that_of_the_track():
    weak = cards(track(), asr, start=lambda cell: 0.4 if cell.seed == 1 else 0.99)
    # The cards were judged by the gate of their recipe; the track may ask for less or more.
    strict, lax = (rank(weak, track(gate=Gate(lift=lift)))[0] for lift in (0.5, 0.2))
    assert (strict.failed, lax.failed) == (4, 0)
    assert {group.asr.n for group in strict.groups} == {2}
    assert {group.asr.n for group in lax.groups} == {3}
    none = rank(weak, track(gate=Gate(lift=0.5, clean_top1=0.9)))[0]
    assert none.failed == none.cells == 12
    assert none.worst is None
    assert none.unranked == "no attack worked"


def test_failed_cells_leave_the_group_and_the_rank():
    def start(cell):
        return 0.3 if (cell.attack, cell.objective) == ("blended", "mmcl_ssl") else 0.99

    best = rank(cards(track(), asr, start=start), track())[0]
    assert best.failed == 3
    assert ("blended", "mmcl_ssl") not in [group.where for group in best.groups]
    assert best.worst.asr.value == pytest.approx(0.102, abs=1e-3)


def test_controls_count_for_accuracy_alone():
    of = track(attacks=("none", "badnet"))
    found = cards(of, lambda cell: 0.02 if cell.attack == "none" else 0.4,
                  loss=lambda cell: 0.09 if cell.attack == "none" else 0.0,
                  start=lambda cell: 0.02 if cell.attack == "none" else 0.99)
    row = rank(found, of)[0]
    assert {group.where[0] for group in row.groups} == {"badnet"}
    assert row.loss.value == pytest.approx(0.045, abs=1e-3)
    assert (row.failed, row.cells) == (0, 12)


def test_a_row_that_lacks_cells_has_no_rank():
    """Leaving out the cells that go badly must not help."""
    easy = [card for card in cards(track(), asr) if card.cell.attack == "badnet"
            or card.cell.defense != "cleanclip"]
    rows = rank(easy, track())
    assert [(row.name, row.rank) for row in rows] == [
        ("finetune", 1), ("none", 2), ("cleanclip", None)
    ]
    assert rows[-1].unranked == "6 of 12 cells"


def test_what_is_not_of_the_track_is_not_read():
    ours = cards(track(), asr)
    foreign = [
        made(card.cell.model_copy(update=change), 0.999)
        for card in ours[:3]
        for change in ({"recipe": "smoke"}, {"seed": 99}, {"attack": "wanet"},
                       {"objective": "siglip"}, {"defense": "stranger"})
    ]
    assert rank(foreign + ours, track()) == rank(ours, track())
    assert "stranger" in {row.name for row in rank(foreign + ours, track(), also=["stranger"])}


def test_the_first_card_of_a_cell_speaks():
    again = [made(card.cell, 0.0) for card in cards(track(), asr)]
    assert rank(cards(track(), asr) + again, track()) == rank(cards(track(), asr), track())


def test_the_control_is_no_row_among_the_attacks():
    of = track(attacks=("none", "badnet"))
    found = cards(of, asr, start=lambda cell: 0.02 if cell.attack == "none" else 0.99)
    assert [row.name for row in rank(found, of, "attack")] == ["badnet"]


@pytest.mark.parametrize(("seeds", "objectives", "place", "says"), [
    ({1, 2}, {"mmcl_ssl"}, None, "failed in most cells on mmcl_ssl"),
    ({1, 2}, {"mmcl_ssl", "mmcl"}, None, "failed in most cells on mmcl, mmcl_ssl"),
    ({1}, {"mmcl_ssl", "mmcl"}, 1, None),
])
def test_an_attack_that_mostly_fails_on_an_objective_has_no_rank(seeds, objectives, place, says):
    """What is left of the cells where it worked would put it above attacks that always work."""
    def start(cell):
        fails = cell.attack == "badnet" and cell.seed in seeds and cell.objective in objectives
        return 0.3 if fails else 0.99

    found = cards(track(), lambda cell: 0.3 if cell.attack == "blended" else 0.9, start=start)
    rows = {row.name: row for row in rank(found, track(), "attack")}
    assert rows["badnet"].worst.asr.value == pytest.approx(0.9, abs=1e-3)
    assert (rows["badnet"].rank, rows["badnet"].unranked) == (place, says)
    assert (rows["blended"].rank, rows["blended"].unranked) == (2 if place else 1, None)


def test_attacks_are_ranked_by_what_the_best_defense_leaves():
    rows = rank(cards(track(), asr), track(), "attack")
    assert [(row.name, row.rank) for row in rows] == [("badnet", 1), ("blended", 2)]
    assert rows[0].worst.where == ("mmcl", "cleanclip")
    stronger = rank(cards(
        track(), lambda cell: asr(cell) + (0.1 if cell.attack == "blended" else 0) * (
            cell.defense != "none")
    ), track(), "attack")
    assert [row.name for row in stronger] == ["blended", "badnet"]
    # That defenses lose accuracy is not the attack's doing.
    costly = rank(cards(track(), asr, loss=lambda cell: 0.09), track(), "attack")
    assert [row.rank for row in costly] == [1, 2]


def test_objectives_are_ranked_by_the_best_defense_against_the_worst_attack():
    rows = rank(cards(track(), asr), track(), "objective")
    assert [(row.name, row.rank) for row in rows] == [("mmcl", 1), ("mmcl_ssl", 2)]
    # Not by `none`, which leaves everything everywhere.
    assert rows[1].worst.where == ("blended", "cleanclip")
    assert rows[1].worst.asr.value == pytest.approx(0.402, abs=1e-3)


def test_measure_reads_blind_and_oracle():
    points = (
        point(0.8, 0.99), point(0.79, 0.04, sweep={"lr": 1e-3}, step=1),
        point(0.77, 0.02, sweep={"lr": 1e-3}, step=2),
    )
    cell = Cell(recipe="tiny", attack="badnet", objective="mmcl", defense="cleanclip", seed=1)
    found = measure(card_of(cell, points=points), track(), {})
    assert found.asr == points[2].scores["asr_top1"].value
    assert found.loss == pytest.approx(0.03, abs=1e-3)
    assert found.oracle_loss == pytest.approx(0.01, abs=1e-3)
    assert (found.counts, found.control) == (True, False)
    never = measure(card_of(cell, points=(points[0], point(0.7, 0.5, step=1))), track(), {})
    assert never.oracle_loss is None
    row = rank([card_of(cell, points=points)], track())[0]
    assert (row.groups[0].cleaned, row.groups[0].oracle_loss.n) == (1, 1)


def test_rows_are_frozen_data():
    row = rank(cards(track(), asr), track())[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.rank = 0
