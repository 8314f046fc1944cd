"""Two thousand submissions: the time to build the pages, and how the page behaves in a browser."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.conftest import Measured
from tests.leaderboard.browser import CHROMIUM, Browser
from tests.leaderboard.conftest import TRACK, card_of, submission_of, toml, trajectory

SUBMISSIONS, VARIANTS = 2000, 20
BUILD, OPEN, SORT = 20.0, 3.0, 0.1
CODE = """
import sys, time
from pathlib import Path
from bdbench.leaderboard.build import build
build(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 defenses, each on one attack, two objectives and three seeds; 25 models per cell."""
    root = tmp_path_factory.mktemp("many") / "leaderboards"
    track = TRACK.model_copy(update={"attacks": ("badnet",), "defenses": ("none",)})
    (root / "demo" / "submissions").mkdir(parents=True)
    (root / "demo" / "track.toml").write_text(toml(track))
    texts = []
    for variant in range(VARIANTS):
        name, draw = f"variant{variant:02}xxxx", random.Random(variant)
        cells = track.cells("defense", name)
        cards = tuple(
            card_of(cell, track, trajectory(cell, strength=draw.uniform(0, 9))) for cell in cells
        )
        texts.append((name, submission_of(name, track, cards=cards).model_dump_json()))
    for i in range(SUBMISSIONS):
        old, text = texts[i % VARIANTS]
        new = f"method{i:08}"
        # Other keys and checksums, so that nothing is shared that would not be.
        text = text.replace(old, new).replace('"key":"', f'"key":"{i:04}')
        (root / "demo" / "submissions" / f"{new}.json").write_text(text)
    return root


@pytest.mark.benchmark
@pytest.mark.timeout(600)
def test_build_of_two_thousand_submissions(many: Path, measured: Measured) -> None:
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", CODE, str(many)], check=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    # One thread's work: its CPU time is what it takes where nothing else runs.
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = sum(path.stat().st_size for path in many.rglob("submissions/*.json"))
    page = (many / "index.html").stat().st_size
    print(f"\n{SUBMISSIONS} submissions, {size / 1e6:.0f} MB: built in {seconds:.1f} s of CPU time,"
          f" {wall:.1f} s of wall time; page {page / 1e6:.1f} MB")
    what = f"`leaderboard build`, {SUBMISSIONS:,} submissions"
    measured(what, f"{seconds:.0f} s", f"{BUILD:.0f} s")
    assert seconds < BUILD


@pytest.mark.benchmark
@pytest.mark.timeout(600)
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
def test_the_page_of_two_thousand_submissions(many: Path, tmp_path: Path) -> None:
    if not (many / "index.html").exists():
        subprocess.run([sys.executable, "-c", CODE, str(many)], check=True)
    browser = Browser(tmp_path)
    try:
        opened = browser.open(many / "index.html")
        assert browser.run("document.querySelectorAll('#table tbody tr').length") == 25
        sorts = [
            browser.run(f"""(() => {{
                const begun = performance.now();
                document.querySelector('[data-column="{column}"]').click();
                document.body.getBoundingClientRect();
                return performance.now() - begun;
            }})()""") / 1000
            for column in ("worst", "loss", "name", "name", "mmcl_ssl-asr")
        ]
        figures = browser.run("""new Promise((done) => {
            const begun = performance.now();
            document.querySelector('[data-column="worst"]').click();
            requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun), 0));
        })""") / 1000
        print(f"\nopened in {opened:.2f} s; sorted in"
              f" {', '.join(f'{1000 * one:.0f}' for one in sorts)} ms,"
              f" with figures drawn again in {1000 * figures:.0f} ms")
        assert not browser.complaints()
    finally:
        browser.close()
    assert opened < OPEN
    assert max(sorts) < SORT
