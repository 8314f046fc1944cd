"""Which rows of a ranking can be told apart: by the seeds, for what ranks, and in its direction."""

from __future__ import annotations

from scipy.stats import ttest_1samp

from bdbench.leaderboard.rank import ALPHA, rank
from bdbench.schema import Track
from tests.leaderboard.test_rank import NAMES, asr, cards, track


def apart(asr, of: Track, axis="defense", defenses=NAMES):
    return [(row.name, row.apart) for row in rank(cards(of, asr, defenses=defenses), of, axis)]


def test_ties_and_what_cannot_be_told_apart():
    def close(cell):
        noise = (0.02, -0.02, 0.01)[cell.seed - 1]
        wobble = (0.0, 0.01, 0.02)[cell.seed - 1]
        return {"cleanclip": 0.3, "finetune": 0.3 + noise, "none": 0.9 + wobble}[cell.defense]

    assert apart(close, track()) == [("cleanclip", None), ("finetune", False), ("none", True)]
    assert apart(lambda cell: 0.3, track()) == [
        ("cleanclip", None), ("finetune", False), ("none", False)
    ]


def test_seeds_count_and_not_cells():
    """Many cells that agree within each of three seeds are three observations."""
    more = (0.05, 0.3, 0.7)
    wide = track(attacks=tuple(f"a{i}" for i in range(9)), objectives=("mmcl", "mmcl_ssl"))
    narrow = track(attacks=("a0",), objectives=("mmcl",))

    def spread(cell):
        return 0.1 + (more[cell.seed - 1] if cell.defense == "none" else 0)

    pair = ("none", "cleanclip")
    # Cell by cell all 54 pairs of the wide track point the same way.
    for of in (wide, narrow):
        assert apart(spread, of, defenses=pair) == [("cleanclip", None), ("none", False)]
    assert ttest_1samp(more, 0).pvalue > ALPHA
    one_seed = track(seeds=(1,))
    assert apart(asr, one_seed) == [("cleanclip", None), ("finetune", False), ("none", False)]


def test_what_is_tested_is_what_ranks():
    """Much better on three groups of four, alike on the worst: not apart."""
    def alike(cell):
        if (cell.attack, cell.objective) == ("blended", "mmcl_ssl"):
            return {1: 0.9, 2: 0.92, 3: 0.91}[cell.seed] + 0.001 * (cell.defense == "none")
        return 0.9 if cell.defense == "none" else 0.05

    assert apart(alike, track(), defenses=("none", "cleanclip"))[1] == ("none", True)
    jitter = {1: 0.003, 2: -0.001, 3: 0.002}
    assert apart(
        lambda cell: alike(cell) + jitter[cell.seed] * (cell.defense == "none"), track(),
        defenses=("none", "cleanclip"),
    )[1] == ("none", False)


def test_a_difference_against_the_rank_is_no_mark_of_merit():
    """Behind by the worst group's mean, yet ahead in the worst cell of every seed."""
    of = track(attacks=("a", "b", "c"), objectives=("mmcl",))
    left = {"cleanclip": {("a", 1): 0.8, ("b", 2): 0.81, ("c", 3): 0.82}, "finetune": {
        ("a", seed): 0.5 + seed / 1000 for seed in (1, 2, 3)}}

    def asr(cell):
        return left[cell.defense].get((cell.attack, cell.seed), 0.01)

    assert apart(asr, of, defenses=("cleanclip", "finetune")) == [
        ("cleanclip", None), ("finetune", False)
    ]


def test_holm_counts_the_rows():
    """p of 0.03 is enough for one row and not for two of them."""
    more = (0.40, 0.60, 0.75)
    assert ALPHA / 2 < ttest_1samp(more, 0).pvalue < ALPHA

    def level(cell):
        return 0.1 + (0 if cell.defense == "cleanclip" else more[cell.seed - 1])

    assert apart(level, track(), defenses=("none", "cleanclip"))[1] == ("none", True)
    assert apart(level, track())[1:] == [("finetune", False), ("none", False)]


def test_attacks_are_told_apart_in_the_direction_of_their_rank():
    def level(cell):
        return (0.9 if cell.attack == "badnet" else 0.3) + cell.seed / 1000 * (
            1 if cell.attack == "badnet" else 2)

    assert apart(level, track(), "attack") == [("badnet", None), ("blended", True)]
