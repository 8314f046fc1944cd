"""A card in the terminal and as Markdown: the right figures, and no string that acts."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from bdbench.cards.fit import Fitted
from bdbench.cards.matrix import matrix
from bdbench.cards.select import select, verdict
from bdbench.cards.text import clean, figure, markdown, percent, place, setting, summary
from bdbench.schema import Card, Cell, Cost, Poison, Ref, Selection, Stage
from bdbench.statistics import rate
from tests.cards.conftest import point

ATTACKS = [
    "<script>alert(1)</script>",
    "[red]bold[/red]",
    "a | b | c",
    "`code` ``` more",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    "https://evil.example www.evil.example",
    "line\n\n# heading\n\n| a |\n|---|\n",
    "</summary></details><img src=x onerror=alert(1)>",
    "**bold** _it_ ~~no~~ &lt;b&gt; \\",
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x1b[0m \u202egnp.exe",
]


def terminal(card: Card, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(summary(card))
    return console.file.getvalue()


def poisoned_with(make, text: str) -> Card:
    """A card in which every free string is `text`."""
    card = make()
    ref = Ref(kind="attack", name=text, use=text, params={text: text}, overridden={text: text})
    stage = Stage(stage=text, label=text, key=text, files={text: text})
    return make(
        cell=Cell(recipe=text, attack=text, objective=text, defense=text),
        verdict=card.verdict.model_copy(update={"reason": text}),
        components={text: ref},
        recipe=card.recipe.model_copy(update={
            "summary": text, "target": text, "dataset": text,
            "model": card.recipe.model.model_copy(update={"name": text}),
        }),
        overridden={text: text},
        data={text: 0.5},
        poison=Poison(
            target=text, requested=1, poisoned=1, pairs=2, examples=((text, text), (text, text))
        ),
        trajectory=tuple(
            p.model_copy(update={
                "sweep": {text: 1.0} if p.step else {},
                "scores": {**p.scores, text: p.scores["clean_top1"]},
            })
            for p in card.trajectory
        ),
        provenance=card.provenance.model_copy(update={
            "versions": {text: text}, "git": text, "seeds": {text: 1}, "threads": {text: 1},
            "stages": (stage,),
        }),
        cost={text: Cost(seconds=1.0, samples=1)},
    )


class Skeleton(HTMLParser):
    """Tags with their attributes in order, and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "code":  # names are code where they can be and text where they cannot
            self.tags.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(card: Card) -> Skeleton:
    renderer = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = Skeleton()
    page.feed(renderer.render(markdown(card)))
    return page


@pytest.mark.parametrize("text", ATTACKS)
def test_no_string_changes_the_structure_of_the_page(make, text):
    harmless, hostile = rendered(poisoned_with(make, "word")), rendered(poisoned_with(make, text))
    assert hostile.tags == harmless.tags
    assert hostile.text.count(clean(text)) >= 10


@pytest.mark.parametrize("text", ATTACKS)
def test_no_string_reaches_the_terminal_as_markup_or_control(make, text):
    shown = terminal(poisoned_with(make, text), width=4000)
    assert clean(text) in shown
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_bare_addresses_do_not_become_links(make):
    page = markdown(poisoned_with(make, "https://evil.example www.evil.example a@evil.example"))
    assert "evil.example" in page
    page = re.sub(r"`[^`]*`", "", page)  # nothing links inside a code span
    assert "evil.example" in page
    assert not re.search(r"https?://|www\.evil|\w@evil", page)


def test_terminal_fits_eighty_columns_and_shows_all_selections(card):
    lines = terminal(card).splitlines()
    assert max(map(len, map(str.rstrip, lines))) <= 80
    rows = {line[:11].strip(): line.split() for line in lines}
    assert rows["undefended"][-6:] == ["99.8", "[99.5,", "99.9]", "1.5", "+98.3", "0.1"]
    assert "lr 0.0045, epoch 6" in " ".join(rows["blind"])
    assert "none qualifies" in " ".join(rows["oracle 1 %"])
    assert rows["oracle 5 %"][-7:] == ["70.8", "3.8", "[3.0,", "4.7]", "1.5", "+2.3", "68.1"]


def test_terminal_shows_metrics_of_packages_and_plugins(card):
    own = Ref(kind="metric", name="mine", use="mine.py:Mine", source="0" * 64)
    score = card.trajectory[0].scores["asr_top1"]
    points = tuple(
        point.model_copy(update={"scores": point.scores | {"mine": score}})
        for point in card.trajectory
    )
    changed = card.model_copy(update={"metrics": (*card.metrics, own), "trajectory": points})
    line = f"mine: undefended {figure(score, interval=True)}, blind {figure(score, interval=True)}"
    assert line in terminal(changed)
    assert "mine:" not in terminal(card)


def test_terminal_ends_with_what_needs_no_shape(make):
    oracle, chance = {"shape_blind_oracle": 0.515}, {"chance": 1 / 32}
    told = {
        "shape-blind oracle 51.5, chance 3.1 (clean accuracy that needs no shape)":
            oracle | chance,
        "shape-blind oracle 51.5 (clean accuracy that needs no shape)": oracle,
    }
    for line, data in told.items():
        assert terminal(make(data=data)).splitlines()[-1] == line
    assert "oracle 10 %" in terminal(make(data=chance)).splitlines()[-1]


@pytest.mark.parametrize("text", ATTACKS)
def test_no_string_reaches_the_matrix_as_markup_or_control(make, text):
    console = Console(file=io.StringIO(), width=4000, color_system=None)
    console.print(Fitted(matrix([poisoned_with(make, text)])))
    shown = console.file.getvalue()
    # A table may break a line before a bracket.
    assert shown.replace(" ", "").count(clean(text).replace(" ", "")) == 3
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_terminal_of_the_worst_case_does_not_wrap(make):
    points = (point(1.0, 1.0), point(1.0, 1.0, sweep={"lr": 4.5e-5}, step=10))
    card = make(trajectory=points, selections=select(points, Selection(), {"lr": 4.5e-5}))
    assert "lr 4.5e-05, epoch 10 100.0 100.0 [99.8, 100.0]" in terminal(card)


def test_markdown_explains_itself(card):
    page = markdown(card)
    for part in (
        "# `cleanclip` against `badnet` on `mmcl_ssl`", "Verdict: **ok**", "](card.png)",
        "12,000 image-caption pairs", "180 of these pairs (1.5 %)", "2,000 clean pairs",
        "| blind | lr 0.0045, epoch 6 | 72.1 [70.1, 74.0] | 53.6 [51.4, 55.8] |",
        "| oracle 1 % | none qualifies | - | - | - | - | - |",
        "everything but the shape reaches 51.5", "| `chance` | 3.1 % |", "| `classes` | 32 |",
        "| `attack badnet` | `rate` | `0.015` | **overridden** |",
        "| `recipe tiny` | `pretrain.epochs` | `10` | **overridden** |",
        "| `attack badnet` | `size` | `8` |  |", "<summary>All 25 models, in per cent</summary>",
        "| lr 0.0045 | 6 | 71.7 | 72.1 | 87.1 | 53.6 | 1.5 | +52.1 | 33.4 | blind; last; front",
        "`0123abcd+dirty`", "ab" * 32, "`0123456789abcdef`", "| `pretrain` | 127.3 | 120,000 |",
        "| a red anchor on a hill | a photo of a banana |",
    ):
        assert part in page
    assert "\n\n\n" not in page
    assert page.endswith("|\n")


def test_every_table_of_the_page_renders(card):
    assert sum(tag == "table" for tag, _ in rendered(card).tags) == 8


@pytest.mark.parametrize(
    ("acc", "poisoned", "said"),
    [(0.767, 180, "shown and not ranked"), (0.767, 0, "nothing to remove")],
)
def test_markdown_of_failed_attacks_and_controls(make, acc, poisoned, said):
    points = (point(acc, 0.02), point(acc, 0.02, step=1))
    poison = Poison(target="banana", requested=poisoned, poisoned=poisoned, pairs=12000)
    page = markdown(make(
        trajectory=points, selections=select(points, Selection(), {}), poison=poison,
        verdict=verdict(points[0], poison, make().recipe.gate),
    ))
    assert said in page.split("![")[0]
    assert ("No pair was poisoned" in page) == (not poisoned)


def test_a_metric_that_was_not_scored_is_a_dash(make):
    points = tuple(
        p.model_copy(update={"scores": {
            name: score for name, score in p.scores.items() if name != "triggered_top1"
        }})
        for p in make().trajectory
    )
    card = make(trajectory=points)
    assert "+98.3 [96.3, 100.0] | - |" in markdown(card)
    assert all(row.rstrip().endswith("-") for row in terminal(card).splitlines()
               if row.startswith("oracle"))


@pytest.mark.parametrize(("changes", "line"), [
    ({"policy": "autoaugment"}, "images by AutoAugment;\ncaptions by EDA, without"),
    ({"synonyms": False}, "images by crop, flip, rotation and colour;\ncaptions by EDA, without"),
    ({"policy": "autoaugment", "synonyms": True}, "images by AutoAugment;\ncaptions by EDA, with"),
])
def test_the_page_tells_which_views_were_used(make, changes, line):
    recipe = make().recipe
    augment = recipe.augment.model_copy(update=changes)
    page = markdown(make(recipe=recipe.model_copy(update={"augment": augment})))
    assert f"Augmented views, for objectives that use them: {line} synonyms from WordNet." in page
    assert "Augmented views" not in markdown(make())
    for name, value in changes.items():
        assert f"`augment.{name}` | `{json.dumps(value)}`" in page


def test_figures():
    assert percent(0.12345) == "12.3"
    assert percent(-0.0001) == "0.0"
    difference = rate(1, 4).model_copy(update={"k": None})
    assert figure(difference, interval=False) == "+25.0"
    assert figure(rate(1, 4), interval=True) == "25.0 [4.6, 69.9]"
    assert figure(None, interval=True) == "-"


def test_places():
    here = point(0.7, 0.9, sweep={"lr": 1e-5, "weight": 2.0}, step=3)
    assert setting(here.sweep) == "lr 1e-05, weight 2"
    assert place(here) == "lr 1e-05, weight 2, epoch 3"
    assert place(here.model_copy(update={"sweep": {}})) == "epoch 3"
    assert place(here.model_copy(update={"step": 0})) == "starting model"
    assert place(None) == "none qualifies"


def test_weights_that_the_training_started_from_are_told(card: Card) -> None:
    sha = "sha256:" + "ab" * 32
    assert "from the weights" not in markdown(card) + terminal(card)
    assert "model.init" not in markdown(card)
    for init in ("openai", sha):
        model = card.recipe.model.model_copy(update={"init": init})
        other = card.model_copy(update={"recipe": card.recipe.model_copy(update={"model": model})})
        assert f"image-caption pairs, from the weights `{init}`." in markdown(other)
        assert f"seed 0, from the weights {init[:23]}\n" in terminal(other)
    assert len(init[:23]) == len("sha256:") + 16
