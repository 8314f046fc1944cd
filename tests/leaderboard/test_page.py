"""The page in headless Chromium: from a file, alone, by hand, in the dark and on a phone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bdbench.leaderboard.build import build
from bdbench.leaderboard.page import VENDORED, block, page
from bdbench.leaderboard.standing import standings
from tests.leaderboard.browser import CHROMIUM, Browser
from tests.leaderboard.conftest import STRENGTH, TRACK, submission_of, write
from tests.leaderboard.test_page_data import write_wide

NO_CHROMIUM = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
ROWS = "[...document.querySelectorAll('#table .link')].map((link) => link.textContent)"
NAMES = ["cleanclip", "finetune_ssl", "finetune", "bn_only", "none"]
PAGE_LIMIT = 2_000_000


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a track that all five defenses were submitted to."""
    root = tmp_path_factory.mktemp("page") / "leaderboards"
    write(root, [submission_of(name) for name in STRENGTH])
    build(root)
    return root / "index.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def tab(chromium: Browser, index: Path) -> Browser:
    """The page at the size of a desk."""
    chromium.size(1280)
    chromium.prefers("light")
    chromium.open(index)
    chromium.wait("document.querySelectorAll('#figures svg').length === 2")
    return chromium


@NO_CHROMIUM
def test_it_loads_alone_and_without_complaint(tab: Browser, index: Path) -> None:
    assert tab.run(ROWS) == NAMES
    # Everything that can be opened is opened once: nothing is asked for and nothing complains.
    for fragment in ("#/demo/attack", "#/demo/objective", "#/demo/defense/cleanclip",
                     "#/demo/card/cleanclip/badnet/mmcl_ssl/11", "#/demo/card/none/none/mmcl/22"):
        tab.run(f"location.hash = {fragment!r}")
        time.sleep(0.1)
    assert tab.complaints() == []
    assert tab.requests() == [index.as_uri()]


@NO_CHROMIUM
def test_the_policy_lets_nothing_else_run(tab: Browser) -> None:
    tab.run("""(() => {
        const script = document.createElement("script");
        script.textContent = "window.__pwned = 1";
        document.body.append(script);
        fetch("https://example.org/").catch(() => {});
        new Image().src = "https://example.org/x.png";
        document.body.setAttribute("onclick", "window.__pwned = 2");
        document.body.click();
    })()""")
    time.sleep(0.5)
    assert tab.run("window.__pwned") is None
    assert tab.run("document.querySelectorAll('script:not([type])').length") == 5
    # Whatever was tried was stopped by the policy before it left, and the console says so.
    failed = [event for event in tab.events if event["method"] == "Network.loadingFailed"]
    assert all(event["params"].get("blockedReason") == "csp" for event in failed)
    told = " ".join(tab.complaints())
    assert "connect-src" in told
    assert "img-src" in told
    assert "script-src" in told


@NO_CHROMIUM
def test_sorting_by_hand_and_by_keyboard(tab: Browser) -> None:
    def heads() -> list[str]:
        return tab.run("[...document.querySelectorAll('#table th[aria-sort]')]"
                       ".filter((th) => th.ariaSort !== 'none')"
                       ".map((th) => th.innerText.trim() + ' ' + th.ariaSort)")

    assert heads() == ["Rank↑ ascending"]
    tab.run("document.querySelector('[data-column=\"name\"]').click()")
    names = tab.run(ROWS)
    assert names == sorted(names)
    assert heads() == ["Defense↑ ascending"]
    # The button keeps the focus, and Enter turns the order round.
    assert tab.run("document.activeElement.dataset.column") == "name"
    tab.press("Enter")
    assert tab.run(ROWS) == names[::-1]
    assert heads() == ["Defense↓ descending"]
    tab.run("document.querySelector('[data-column=\"mmcl_ssl-oracle\"]').click()")
    assert len(tab.run(ROWS)) == 5


@NO_CHROMIUM
def test_filters(tab: Browser) -> None:
    def filtered(text: str, matching: int) -> list[str]:
        tab.run(f"""(() => {{
            const box = document.getElementById("filter");
            box.value = {text!r};
            box.dispatchEvent(new Event("input"));
        }})()""")
        tab.wait(f"document.getElementById('status').textContent === '{matching} of 5 rows match'")
        # Figures below show the same rows, a frame later.
        tab.wait(f"document.querySelector('#maps table').tBodies[0].rows.length === {matching}")
        return tab.run(ROWS)

    assert filtered("FINETUNE", 2) == ["finetune_ssl", "finetune"]
    assert tab.run("document.querySelectorAll('#legend button').length") == 2
    assert filtered("author", 5) == NAMES
    assert filtered("nobody", 0) == []
    assert "No row matches" in tab.run("document.getElementById('pager').innerText")


@NO_CHROMIUM
def test_a_card_opens_by_keyboard_and_closes_by_escape(tab: Browser) -> None:
    tab.run("document.querySelector('#maps button').focus()")
    tab.press("Enter")
    tab.wait("document.getElementById('dialog').open")
    assert tab.run("location.hash") == "#/demo/card/cleanclip/badnet/mmcl/11"
    text = tab.run("document.getElementById('sheet').innerText")
    for part in ("cleanclip against badnet on mmcl", "undefended", "oracle 5 %", "seed of poison",
                 "demo/submissions/cleanclip.json", "torch"):
        assert part in text
    whole = tab.run("document.getElementById('sheet').textContent")
    for part in ("model.safetensors", "pretrain.epochs", "samples"):
        assert part in whole
    assert re.search(r"[0-9a-f]{64}", whole)
    assert tab.run("document.querySelectorAll('#sheet figure svg').length") == 1
    tab.press("Escape")
    tab.wait("!document.getElementById('dialog').open")
    tab.wait("location.hash === '#/demo/defense'")
    tab.run("history.back()")
    tab.wait("document.getElementById('dialog').open")


@NO_CHROMIUM
def test_addresses_lead_to_cards_and_wrong_ones_nowhere(tab: Browser, index: Path) -> None:
    tab.open(index, "#/demo/card/finetune/blended/mmcl/33")
    text = tab.run("document.getElementById('sheet').innerText")
    assert "Attack failed, shown and not ranked" in text
    tab.run("[...document.querySelectorAll('#sheet .seeds button')][0].click()")
    tab.wait("location.hash.endsWith('/11')")
    tab.open(index, "#/demo/attack/badnet")
    assert "built-in attack" in tab.run("document.getElementById('sheet').innerText")
    for wrong in ("#/demo/card/no/such/cell/1", "#/gone", "#/%", "#/demo/constructor", "#x",
                  "#/<img src=x onerror=window.__pwned=1>"):
        tab.open(index, wrong)
        assert tab.run("document.getElementById('dialog').open") is False
        assert tab.run("window.__pwned") is None
        assert tab.complaints() == []


@NO_CHROMIUM
def test_light_and_dark(tab: Browser) -> None:
    def ground() -> int:
        colour = tab.run("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    def press() -> None:
        tab.run("document.getElementById('theme').click()")

    assert ground() > 700
    tab.prefers("dark")
    assert ground() < 100
    press()
    assert ground() > 700
    press()
    tab.prefers("light")
    assert ground() < 100
    press()
    assert ground() > 700


@NO_CHROMIUM
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(tab: Browser, scheme: str) -> None:
    tab.prefers(scheme)
    # Twenty steps of the scale, not just the figures that happen to be here.
    tab.run("""document.querySelectorAll('.maps .heat').forEach((node, i) => {
        node.style.setProperty("--t", (i % 21) / 20);
        node.toggleAttribute("data-high", (i % 21) / 20 > 0.69);
    })""")
    for selector in (".heat", ".note", ".range", ".badge", "thead th", ".sub", ".link", "dd"):
        assert tab.contrast(selector) >= 4.5, selector


@NO_CHROMIUM
def test_a_phone_needs_no_sideways_scrolling(tab: Browser, index: Path) -> None:
    tab.size(375, 812, phone=True)
    for fragment in ("", "#/demo/attack", "#/demo/card/cleanclip/badnet/mmcl_ssl/11",
                     "#/demo/defense/cleanclip"):
        tab.open(index, fragment)
        tab.wait("document.querySelectorAll('#figures svg').length === 2")
        assert tab.run("document.documentElement.scrollWidth") <= 375
        assert tab.run("document.getElementById('dialog').scrollWidth") <= 375
    # What is pressed is large enough for a finger's tip, or stands in running text.
    small = tab.run("[...document.querySelectorAll('.switch button, select, input, .plain')]"
                    ".filter((node) => node.offsetParent && node.offsetHeight < 28).length")
    assert small == 0


@NO_CHROMIUM
def test_everything_is_reached_by_tab(tab: Browser) -> None:
    tab.run("document.activeElement.blur()")
    seen = set()
    for _ in range(90):
        tab.press("Tab")
        seen.add(tab.run("""(() => {
            const at = document.activeElement;
            return at.id || at.dataset.column || at.dataset.axis || at.dataset.series
                || at.closest("section, nav")?.id || at.tagName;
        })()"""))
        outline = tab.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or tab.run("document.activeElement === document.body")
    assert seen >= {"theme", "attack", "filter", "level", "rank", "mmcl-asr", "table",
                    "plot-attack", "cleanclip", "heat", "tracks"}


@NO_CHROMIUM
def test_names_for_those_who_do_not_see_it(tab: Browser) -> None:
    tree = tab.send("Accessibility.getFullAXTree")["nodes"]
    wanted = {"button", "textbox", "searchbox", "combobox", "link", "image", "img", "dialog"}
    nameless = [
        node for node in tree
        if not node["ignored"] and node.get("role", {}).get("value") in wanted
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    levels = tab.run("[...document.querySelectorAll('h1,h2,h3')].map((h) => h.tagName)")
    assert levels[:3] == ["H1", "H2", "H3"]
    assert levels.count("H1") == 1


@pytest.fixture
def wide(chromium: Browser, tmp_path: Path) -> Browser:
    """The page of a track with methods, a metric and failures of others, and with evidence."""
    write_wide(tmp_path)
    build(tmp_path)
    chromium.size(1280)
    chromium.open(tmp_path / "index.html")
    chromium.wait("document.querySelectorAll('#figures svg').length === 3")
    return chromium


@NO_CHROMIUM
def test_submitted_attacks_and_objectives_are_on_the_maps(wide: Browser) -> None:
    captions = wide.run("[...document.querySelectorAll('#maps caption')].map((c) => c.innerText)")
    assert captions[-1] == "hidden"
    heads = ("[...document.querySelectorAll('#maps table')].map((map) =>"
             " [...map.tHead.rows[0].cells].slice(1).map((th) => th.innerText).join(' '))")
    # Each submission meets the track's own methods alone.
    assert wide.run(heads) == [*["mmcl mmcl_ssl siglip"] * 4, "mmcl mmcl_ssl"]
    assert wide.run("document.querySelector('[data-column=\"siglip-asr\"]') !== null")
    wide.run("""(() => {
        const pick = document.getElementById("plot-attack");
        pick.value = "hidden";
        pick.dispatchEvent(new Event("change"));
    })()""")
    assert wide.run("document.querySelectorAll('#figures svg').length") == 2
    wide.run("location.hash = '#/demo/defense/cleanclip'")
    wide.wait("document.getElementById('dialog').open")
    assert "beyond the track, not ranked" in wide.run("document.getElementById('sheet').innerText")
    assert wide.complaints() == []


@NO_CHROMIUM
def test_cells_that_lack_seeds_say_so_and_failed_ones_open(wide: Browser) -> None:
    label = "bn_only against blended on mmcl: ASR"
    cell = wide.run(f"""document.querySelector('#maps [aria-label^="{label}"]').innerText""")
    assert re.fullmatch(r"\d+\.\d \(2/3\)", cell)
    full = wide.run("document.querySelector('#maps [aria-label*=\"badnet on mmcl:\"]').innerText")
    assert re.fullmatch(r"\d+\.\d", full)
    label = "none against badnet_fixed on mmcl_ssl: attack failed"
    wide.run(f"""document.querySelector('#maps button[aria-label="{label}"]').focus()""")
    wide.press("Enter")
    wide.wait("document.getElementById('dialog').open")
    assert wide.run("location.hash") == "#/demo/card/none/badnet_fixed/mmcl_ssl/11"
    assert "Attack failed" in wide.run("document.getElementById('sheet').innerText")


@NO_CHROMIUM
def test_the_statistic_leads_to_its_cards(wide: Browser) -> None:
    assert "cleanclip" in wide.run("document.getElementById('claim').innerText")
    assert wide.run("document.querySelectorAll('#statistic svg').length") == 1
    links = "document.querySelectorAll('#statistic details a')"
    assert wide.run(f"{links}.length") == 20
    wide.run("document.querySelector('#statistic summary').click()")
    wide.run(f"{links}[1].focus()")
    wide.press("Enter")
    wide.wait("document.getElementById('dialog').open")
    assert wide.run("location.hash") == "#/demo/card/cleanclip/badnet/mmcl/1"
    assert "demo/evidence/cleanclip.json" in wide.run("document.getElementById('sheet').innerText")
    seeds = "[...document.querySelectorAll('#sheet .seeds button')].map((b) => b.innerText)"
    assert wide.run(seeds) == list("12345")
    wide.size(375, 812, phone=True)
    assert wide.run("document.documentElement.scrollWidth") <= 375
    for scheme in ("light", "dark"):
        wide.prefers(scheme)
        for selector in (".claim", ".maps .none", "figcaption"):
            assert wide.contrast(selector) >= 4.5, (scheme, selector)


@NO_CHROMIUM
def test_a_card_as_text(wide: Browser) -> None:
    wide.run("location.hash = '#/demo/card/cleanclip/badnet/mmcl/11'")
    wide.wait("document.getElementById('dialog').open")
    text = wide.run("document.getElementById('sheet').innerText")
    assert re.search(r"[\d,]+ / 1,984", text)
    assert "grade, mine:Grade, version 1, q 3" in text
    row = "[...document.querySelectorAll('#sheet th')].find((th) => th.innerText === 'grade')"
    assert wide.run(f"{row}.nextSibling.innerText").startswith("33.3")
    # Every model of the trajectory in a row, with what picked it.
    rows = wide.run("[...document.querySelector('#sheet details table').tBodies[0].rows]"
                    ".map((row) => [...row.cells].map((cell) => cell.textContent))")
    assert len(rows) == 25
    assert rows[0][0] == "starting model"
    assert "undefended" in rows[0][-1]
    assert rows[1][:2] == ["lr 0.001", "1"]
    assert sum("blind" in row[-1] for row in rows) == 1


@NO_CHROMIUM
def test_the_keyboard_goes_on_where_it_was(chromium: Browser, tmp_path: Path) -> None:
    names = [f"method{i:02}" for i in range(60)]
    write(tmp_path, [
        submission_of(name, cells=TRACK.cells("defense", name)[6:9]) for name in names
    ])
    build(tmp_path)
    chromium.open(tmp_path / "index.html")
    focus = "document.activeElement.textContent"
    chromium.run("[...document.querySelectorAll('#pager button')].at(-1).focus()")
    for told in ("Next", "Previous"):
        # At the last page there is no next one, and the focus goes to the button that is left.
        chromium.press("Enter")
        assert chromium.run(focus) == told
    chromium.run("location.hash = '#/demo/card/method00/badnet/mmcl/11'")
    chromium.wait("document.getElementById('dialog').open")
    chromium.run("document.querySelectorAll('#sheet .seeds button')[1].focus()")
    chromium.press("Enter")
    chromium.wait("location.hash.endsWith('/22')")
    chromium.wait(f"{focus} === '22'")


def test_the_page_is_one_small_file(root: Path) -> None:
    text = page(standings(root=root))
    assert len(text.encode()) < PAGE_LIMIT
    # Nothing is loaded: no address in an attribute but links, and no import.
    head = text.split("<script>")[0]
    assert re.findall(r'\ssrc="', head) == []
    assert set(re.findall(r'<link rel="(\w+)" href="(\w+):', head)) == {("icon", "data")}
    assert "sourceMappingURL" not in text


def test_what_is_vendored_is_what_the_table_says() -> None:
    import hashlib
    from importlib.resources import files

    folder = files("bdbench") / "templates" / "vendor"
    table = (folder / "README.md").read_text(encoding="utf-8")
    for name in VENDORED:
        data = (folder / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() in table
        # Neither can end the element that it stands in, nor open a comment in it.
        assert b"</script" not in data.lower()
        assert b"<!--" not in data
        assert b"\r" not in data
        assert (folder / f"{name.split('.')[0]}.LICENSE").is_file()


def test_no_string_ends_the_block_of_data() -> None:
    text = block({"a": "</script><!-- \u2028 \u2029 <b>"})
    assert "<" not in text
    assert "\u2028" not in text
    with pytest.raises(ValueError, match="JSON compliant"):
        block(float("nan"))
