"""The figures reported elsewhere are those of the files that they were derived from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bdbench.cards.select import oracle
from bdbench.leaderboard.folder import load
from bdbench.leaderboard.standing import standing
from bdbench.leaderboard.tables import tables

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "reference"
METHODS = {"finetune": "mmcl", "finetune_ssl": "ssl", "cleanclip": "mmcl_ssl"}
FILES = {
    "CC3M, 1,500 poisons, 100 K clean pairs": "CC3M_pretrained_1500",
    "CC6M, 3,000 poisons, 100 K clean pairs": "CC6M_pretrained_3000",
    "CC6M, 3,000 poisons, 200 K clean pairs": "CC6M_pretrained_3000_cleaned_200k",
}
# Accuracy and ASR of the poisoned models, in per cent as the authors print them.
STARTS = {
    ("CC3M", "mmcl"): (16.00, 99.88), ("CC3M", "mmcl_ssl"): (17.04, 99.03),
    ("CC6M", "mmcl"): (23.76, 99.98), ("CC6M", "mmcl_ssl"): (23.86, 99.45),
}
ROWS = [
    (track, row)
    for track in ("cc3m_rn50", "cc6m_rn50")
    for reported in load(track).reported
    for row in reported.rows
]


def test_every_setting_is_there():
    assert len(ROWS) == 15
    assert {row.setting for _, row in ROWS} == set(FILES)
    for track, row in ROWS:
        assert row.setting[:4].lower() == track[:4]
        assert set(row.best) == {"0.01", "0.05", "0.1", "0.5"}
        assert row.attack == "badnet"


@pytest.mark.parametrize(("track", "row"), ROWS)
def test_starts(track, row):
    acc, asr = STARTS[row.setting[:4], row.objective]
    assert (100 * row.start.clean_top1, 100 * row.start.asr_top1) == pytest.approx((acc, asr))


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the result files in {REFERENCE}")
@pytest.mark.parametrize(("track", "row"), ROWS)
def test_best_models(track, row):
    name = FILES[row.setting]
    groups = json.loads((REFERENCE / f"cleaning_plot_data_{name}.json").read_text())
    data, poisons = ("", "") if track == "cc3m_rn50" else ("_cc6m", "_3000poison")
    method = METHODS[row.defense]
    asr, acc = groups[f"cleaning_poisoned{data}_{row.objective}{poisons}_clean_{method}_lr_"]
    assert row.points == len(acc) == len(asr)
    for bound, best in row.best.items():
        at = oracle(acc, asr, float(bound))
        if at is None or best is None:
            assert at is best is None
        else:
            printed = f"{100 * best.clean_top1:.2f}/{100 * best.asr_top1:.2f}"
            assert printed == f"{100 * acc[at]:.2f}/{100 * asr[at]:.2f}"


def test_they_are_not_ranked(root):
    """Beside measured rows, also under the name of a defense that was not measured."""
    before = standing(load("demo", root)).rows
    row = ROWS[0][1].model_copy(update={"defense": "perfect"})
    (reported,) = load("cc3m_rn50").reported
    (root / "demo" / "reported").mkdir()
    (root / "demo" / "reported" / "verma2025.json").write_text(
        reported.model_copy(update={"rows": (*reported.rows, row)}).model_dump_json()
    )
    after = standing(load("demo", root))
    assert after.rows == before
    assert any("perfect" in line for table in tables(after) for line in table.rows)


def test_the_source_is_cited():
    for track in ("cc3m_rn50", "cc6m_rn50"):
        (reported,) = load(track).reported
        assert "arXiv 2311.14948" in reported.source
        assert "picked on the test set; one seed" in reported.note
