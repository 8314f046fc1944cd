"""Submissions of bad will are refused with a reason, or shown and nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from bdbench.cards.escape import clean
from bdbench.errors import BdbenchError
from bdbench.leaderboard.build import build
from bdbench.leaderboard.folder import load, read_submission
from bdbench.leaderboard.page import page
from bdbench.leaderboard.page_cards import LONGEST
from bdbench.leaderboard.standing import standings
from bdbench.leaderboard.text import markdown, overview, terminal
from bdbench.schema import Cost, Poison, Ref, Score, Submission
from tests.leaderboard.browser import CHROMIUM, Browser
from tests.leaderboard.conftest import TRACK, submission_of, write

OF = TRACK.model_copy(update={"attacks": ("badnet",), "seeds": (11, 22)})
ATTACKS = [
    "</script><script>window.__pwned = 1</script>",
    "<img src=x onerror='window.__pwned = 1'>",
    "<!--<script>", "]]> <svg onload=window.__pwned=1>", "{{ 7 * 7 }}{% raw %}${window.__pwned=1}",
    "javascript:window.__pwned=1", '=HYPERLINK("https://evil.example")', "@SUM(1)*cmd|' /C x'!A0",
    "[click](javascript:window.__pwned=1) ![x](https://evil.example/x.png)", "a | b | c",
    "\u202etxt.exe\u2066\u200b\ufeff", "\u2028window.__pwned=1\u2029", "'\"`;window.__pwned=1//",
    "<b>bold</b> &lt;i&gt; &#60;", "[red]bold[/red]", "__proto__",
]
LINE = st.text(st.characters(exclude_characters="\x7f", min_codepoint=0x20), max_size=300).filter(
    lambda text: len(text.encode("utf-8", "surrogatepass")) < 4000
    and not any(0xD800 <= ord(c) <= 0xDFFF for c in text)
)


def hostile(text: str, name: str = "cleanclip") -> Submission:
    """A submission in which every string that is free to choose is `text`."""
    made = submission_of(name, OF, summary=clean(text)[:300], authors=(clean(text)[:300],))
    line = "".join(c for c in text if c >= " " and c != "\x7f")[:300]
    ref = Ref(kind="attack", name=text, use=text, params={text: text}, overridden={text: text})
    cards = []
    for card in made.cards:
        told = card.provenance
        cards.append(card.model_copy(update={
            "components": {text: ref}, "metrics": (ref,),
            "overridden": {text: text}, "data": {text: 0.5},
            "cost": {text: Cost(seconds=1e300, samples=10**30)},
            "verdict": card.verdict.model_copy(update={"reason": text}),
            "recipe": card.recipe.model_copy(update={"summary": text, "target": text}),
            "poison": Poison(target=text, requested=10**25, poisoned=1, pairs=2,
                             examples=((text, text),)),
            "trajectory": tuple(
                point.model_copy(update={
                    "sweep": {text: 1.0} if point.step else {},
                    "scores": point.scores | {text: Score(value=0, low=0, high=0, n=10**30, k=0)},
                })
                for point in card.trajectory
            ),
            "provenance": told.model_copy(update={
                "versions": {text: text}, "git": text, "seeds": {text: 2**64},
                "threads": {text: 1},
                "stages": tuple(
                    stage.model_copy(update={"stage": text, "label": text, "key": text,
                                             "files": {text: text}})
                    for stage in told.stages
                ),
            }),
        }))
    return made.model_copy(update={
        "summary": line, "authors": (line,), "cards": tuple(cards)
    })


class Skeleton(HTMLParser):
    """The tags of a page, in order, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))


def skeleton(text: str):
    return Skeleton(text).tags


@pytest.mark.parametrize("text", ATTACKS)
def test_no_string_changes_the_structure_of_a_page(folder, text):
    def pages(word):
        (found,) = standings(root=folder(hostile(word), track=OF))
        reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        return (
            skeleton(page([found])),
            skeleton(reader.render(markdown(found))), skeleton(reader.render(overview([found]))),
            found,
        )

    *harmless, _ = pages("word")
    *found, standing = pages(text)
    for ours, theirs in zip(harmless, found, strict=True):
        assert [tag for tag, _ in ours] == [tag for tag, _ in theirs]
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(terminal([standing]))
    shown = console.file.getvalue()
    assert all(c.isprintable() or c == "\n" for c in shown)
    block = page([standing]).split('id="data">')[1].split("</script>")[0]
    data = json.loads(block)
    assert data["tracks"][0]["entries"][0]["summary"] == clean(hostile(text).summary)[:LONGEST]


@given(text=LINE)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_line_comes_out_as_text(text, tmp_path_factory):
    root = tmp_path_factory.mktemp("any")
    write(root, [hostile(text)], OF)
    (found,) = standings(root=root)
    block = page([found]).split('id="data">')[1].split("</script>")[0]
    entry = json.loads(block)["tracks"][0]["entries"][0]
    assert entry["authors"][0].isprintable()
    assert entry["authors"][0] == clean(text)[:LONGEST]


PATHS: list[tuple[str, ...]] = [
    ("version",), ("track",), ("edition",), ("kind",), ("name",), ("summary",), ("authors",),
    ("url",), ("cards",), ("cards", "0"), ("cards", "0", "cell"), ("cards", "0", "cell", "seed"),
    ("cards", "0", "trajectory"), ("cards", "0", "trajectory", "3", "scores"),
    ("cards", "0", "trajectory", "3", "scores", "asr_top1", "value"),
    ("cards", "0", "trajectory", "3", "scores", "asr_top1", "n"),
    ("cards", "0", "trajectory", "0", "scores", "asr_top1", "k"),
    ("cards", "0", "trajectory", "0", "validation"), ("cards", "0", "metrics"),
    ("cards", "0", "trajectory", "3", "order"), ("cards", "0", "selections"),
    ("cards", "0", "selections", "blind"), ("cards", "0", "recipe", "selection", "tolerance"),
    ("cards", "0", "poison", "poisoned"), ("cards", "0", "provenance", "seeds"),
    ("cards", "0", "provenance", "stages"), ("cards", "0", "cost"), ("cards", "0", "data"),
]
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**40), 10**40), st.text(max_size=30),
        st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(ATTACKS),
        st.sampled_from([10**4000, -1, 0, 2**63, 1e308, -0.0]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                                 max_size=3),
    max_leaves=6,
)
DATA = submission_of("cleanclip", OF).model_dump(mode="json")


def changed(path: tuple[str, ...], value, *, key: str | None = None):
    data = json.loads(json.dumps(DATA))
    at = data
    for step in path[:-1]:
        at = at[int(step) if isinstance(at, list) else step]
    last = int(path[-1]) if isinstance(at, list) else path[-1]
    if key is None:
        at[last] = value
    elif isinstance(at[last], dict):
        at[last][key] = value
    return data


@given(path=st.sampled_from(PATHS), value=VALUES, key=st.none() | st.text(max_size=12))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_change_is_refused_or_shown(path, value, key, tmp_path_factory):
    """Whatever stands anywhere: BdbenchError with a hint, or all three kinds of page."""
    root = tmp_path_factory.mktemp("change")
    write(root, [], OF)
    (root / "demo" / "submissions" / "cleanclip.json").write_text(
        json.dumps(changed(path, value, key=key)), encoding="utf-8"
    )
    refused, found = None, []
    try:
        found = standings(root=root)
    except BdbenchError as error:
        refused = error
    if refused is not None:
        assert refused.exit_code == 2
        assert refused.hint
        assert len(refused.message) < 2000
        return
    (found,) = found
    json.loads(page([found]).split('id="data">')[1].split("</script>")[0])
    markdown(found)
    console = Console(file=io.StringIO(), width=120)
    console.print(terminal([found]))
    assert "nan" not in console.file.getvalue().lower()


@given(data=st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_are_refused(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "cleanclip.json"
    path.write_bytes(data)
    with pytest.raises(BdbenchError, match="is not a valid submission"):
        read_submission(path)


def text_of(change) -> str:
    data = json.loads(json.dumps(DATA))
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(("change", "words"), [
    (lambda d: d.update(name="../../evil"), "`name`: String should match pattern"),
    (lambda d: d.update(name="con\x00"), "`name`: String should match pattern"),
    (lambda d: d.update(name="a" * 41), "`name`: String should match pattern"),
    (lambda d: d.update(name="<b>"), "`name`: String should match pattern"),
    (lambda d: d.update(url="javascript:alert(1)"), "`url`: String should match pattern"),
    (lambda d: d.update(url="https://a\" onclick=\"x"), "`url`: String should match pattern"),
    (lambda d: d.update(summary="a\nb"), "`summary`: String should match pattern"),
    (lambda d: d.update(summary="a\x1b[31m"), "`summary`: String should match pattern"),
    (lambda d: d.update(summary="a" * 301), "`summary`: String should have at most 300"),
    (lambda d: d.update(authors=[]), "`authors`: Tuple should have at least 1"),
    (lambda d: d.update(cards=[]), "`cards`: Tuple should have at least 1"),
    (lambda d: d.update(extra=1), "`extra`: Extra inputs are not permitted"),
    (lambda d: d["cards"][0].update(extra=1), "`cards.0.extra`: Extra inputs are not permitted"),
    (lambda d: d.update(edition="1"), "`edition`: Input should be a valid integer"),
    (lambda d: d.update(edition=True), "`edition`: Input should be a valid integer"),
    (lambda d: d.update(kind="metric"), "`kind`: Input should be 'attack'"),
    (lambda d: d.update(version=2), "`version`: Input should be 1"),
    (lambda d: d.update(kind="attack"), "a card is of another attack than the submission"),
    (lambda d: d["cards"].append(d["cards"][0]), "two cards are of the same cell"),
    (lambda d: d["cards"][0]["trajectory"][0]["scores"]["asr_top1"].update(value=float("nan")),
     "Input should be a finite number"),
    (lambda d: d["cards"][0]["cost"]["pretrain"].update(seconds=float("inf")), "finite number"),
])
def test_each_trick_is_refused_with_its_words(folder, change, words):
    root = folder(track=OF)
    (root / "demo" / "submissions" / "cleanclip.json").write_text(text_of(change))
    with pytest.raises(BdbenchError) as error:
        load("demo", root)
    assert words in error.value.message
    assert "cleanclip.json" in error.value.message


def test_deep_and_long_values_are_cut(folder):
    deep: object = "x"
    for _ in range(80):
        deep = [deep]
    long = "y" * 100_000
    made = submission_of("cleanclip", OF)
    params = {"deep": deep, "long": long, "n": 10**4000}
    ref = Ref(kind="defense", name=long, use="a:B", params=params)
    cards = tuple(card.model_copy(update={"components": {"defense": ref}}) for card in made.cards)
    root = folder(made.model_copy(update={"cards": cards}), track=OF)
    text = page(standings(root=root))
    assert "y" * (LONGEST + 1) not in text
    assert "0" * (LONGEST + 1) not in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A page on which every string has an entry of its own, open in a browser."""
    root = tmp_path_factory.mktemp("page") / "leaderboards"
    write(root, [hostile(text, f"hostile{i}") for i, text in enumerate(ATTACKS)], OF)
    build(root)
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.open(root / "index.html")
    yield browser
    browser.close()


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("i", range(len(ATTACKS)))
def test_no_string_runs_in_a_browser(browser: Browser, i: int) -> None:
    for fragment in (f"#/demo/defense/hostile{i}", f"#/demo/card/hostile{i}/badnet/mmcl/11"):
        browser.run(f"location.hash = {fragment!r}")
        browser.wait(f"document.getElementById('sheet').textContent.includes('hostile{i}')")
        # The string is there to be read, as text.
        shown = browser.run("document.getElementById('sheet').textContent")
        assert clean(ATTACKS[i]) in shown
        for tag in ("img", "script", "b", "svg[onload]"):
            assert browser.run(f"document.querySelectorAll('#sheet {tag}').length") == 0
    assert browser.run("window.__pwned") is None
    assert browser.complaints() == []
    assert len(browser.requests()) == 1
