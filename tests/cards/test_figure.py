"""The figure: right marks, the same bytes twice, and no string that acts."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from unittest.mock import patch

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from bdbench.cards.figure import draw
from bdbench.cards.select import select
from bdbench.schema import Cell, Selection
from tests.cards.conftest import point


@pytest.fixture
def page(tmp_path):
    """Draw a card and hand back the matplotlib figure instead of its pixels."""

    def inspect(card) -> Figure:
        with patch.object(Figure, "savefig", autospec=True) as saved:
            draw(card, tmp_path / "card.png")
        return saved.call_args.args[0]

    return inspect


def legends(figure: Figure) -> list[list[str]]:
    found = figure.axes[0].findobj(Legend)
    return [[text.get_text() for text in key.get_texts()] for key in found]


def test_the_same_card_gives_the_same_bytes(card, tmp_path):
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    draw(card, one)
    draw(card, two)
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(b"\x89PNG")
    assert b"Software" not in one.read_bytes()
    assert b"tEXt" not in one.read_bytes()


def test_user_settings_of_matplotlib_do_not_matter(card, tmp_path):
    import matplotlib

    draw(card, tmp_path / "one.png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        draw(card, tmp_path / "two.png")
        assert matplotlib.rcParams["font.size"] == 20
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_runs_and_selections_are_named(card, page):
    marks, runs = legends(page(card))
    assert [text.split(":")[0] for text in marks] == [
        "undefended", "blind (ranked)", "last epoch, default", "oracle, ASR ≤ 5 %", "accepted",
    ]
    assert runs == ["lr 0.001", "lr 0.003", "lr 0.0045", "lr 0.006"]


def test_marks_stand_on_the_selected_models(card, page):
    drawn = [tuple(m.get_offsets()[0]) for m in page(card).axes[0].collections
             if len(m.get_offsets()) and m.get_offsets().any()]
    picks = card.selections
    expected = [0, picks.blind, picks.last, picks.oracle["0.05"]]
    assert np.allclose(drawn, [
        (100 * card.trajectory[i].scores["clean_top1"].value,
         100 * card.trajectory[i].scores["asr_top1"].value) for i in expected
    ])


def test_colours_run_along_the_sweep(card, page):
    lines = [line for line in page(card).axes[0].lines if len(line.get_xdata()) == 6]
    lightness = [sum(line.get_color()[:3]) for line in lines]
    assert lightness == sorted(lightness, reverse=True)
    assert len(set(lightness)) == 4


def test_the_shape_blind_oracle_is_a_line_where_known(card, make, page):
    def verticals(figure):
        return [line for line in figure.axes[0].lines if np.allclose(line.get_xdata(), 51.5)]

    assert len(verticals(page(card))) == 1
    assert not verticals(page(make(data={})))


def test_a_far_shape_blind_oracle_is_told_at_the_edge(make, page):
    axes = page(make(data={"shape_blind_oracle": 0.027})).axes[0]
    assert axes.get_xlim()[0] > 40
    (note,) = (text for text in axes.texts if "oracle" in text.get_text())
    assert note.get_text() == "← shape-blind oracle 2.7"
    assert note.xy[0] == axes.get_xlim()[0]


def test_without_a_sweep_the_run_is_called_by_its_defense(make, page):
    points = (point(0.77, 0.99), point(0.75, 0.9, step=1), point(0.74, 0.5, step=2))
    card = make(trajectory=points, selections=select(points, Selection(), {}))
    assert legends(page(card))[1] == ["cleanclip"]


def test_a_lone_starting_model_is_drawn(make, page, tmp_path):
    points = (point(0.77, 0.99),)
    card = make(trajectory=points, selections=select(points, Selection(), {}), data={})
    assert len(legends(page(card))) == 1
    draw(card, tmp_path / "card.png")


def test_a_long_sweep_names_some_runs_with_both_ends(make, page):
    points = (point(0.77, 0.99), *(
        point(0.76, 0.9, sweep={"lr": float(i)}, order=i, step=1) for i in range(13)
    ))
    card = make(trajectory=points, selections=select(points, Selection(), {"lr": 0.0}))
    runs = legends(page(card))[1]
    assert len(runs) == 9
    assert (runs[0], runs[-1]) == ("lr 0", "lr 12")


@pytest.mark.parametrize("text", [r"$\frac{", "<b>", "_name", "a\nb", "[red]|`", "\x1b[31m"])
def test_no_string_is_read_as_mathematics_or_breaks_the_figure(make, tmp_path, text):
    points = tuple(
        p.model_copy(update={"sweep": {text: 1.0} if p.step else {}}) for p in make().trajectory
    )
    card = make(
        trajectory=points,
        cell=Cell(recipe=text, attack=text, objective=text, defense=text),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(card, tmp_path / "card.png")
    assert (tmp_path / "card.png").stat().st_size > 10_000


def test_cards_import_neither_torch_nor_pyplot_and_libraries_only_when_used():
    code = (
        "import sys, bdbench.cards.select, bdbench.cards.text, bdbench.cards.figure\n"
        "print([m for m in ('torch', 'matplotlib', 'rich', 'scipy', 'pandas', 'jinja2')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
