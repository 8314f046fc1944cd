"""The tables in the terminal and as Markdown, the files that are written, and their check."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from bdbench.errors import CheckFailed
from bdbench.leaderboard.build import build, check, generated
from bdbench.leaderboard.folder import LARGEST
from bdbench.leaderboard.standing import standings
from bdbench.leaderboard.tables import NOTHING
from bdbench.leaderboard.text import markdown, overview, plain, terminal
from bdbench.schema import Statistic
from tests.leaderboard.conftest import TRACK, submission_of, toml

DECLARED = Statistic(
    attack="badnet", defense="cleanclip", baseline="finetune", objectives=("mmcl", "mmcl_ssl"),
    losses=(0.02, 0.05), seeds=(1, 2, 3, 4, 5),
)


def shown(found, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(terminal(found))
    return console.file.getvalue()


def test_the_terminal_says_who_leads_and_where_it_fails(root):
    lines = [line.rstrip() for line in shown(standings(root=root)).splitlines()]
    at = lines.index("Defenses")
    ranking = {line.split()[1]: line.split() for line in lines[at + 2:at + 8] if line[:1].strip()}
    assert list(ranking) == ["cleanclip", "finetune_ssl", "finetune", "bn_only", "none"]
    assert [row[0] for row in ranking.values()] == ["1", "2", "3", "4", "5"]
    assert ranking["cleanclip"][2] == "claimed"
    assert "badnet_fixed / mmcl_ssl" in " ".join(ranking["cleanclip"])
    assert ranking["cleanclip"][-1] == "2/30"
    at = lines.index("Defenses by objective")
    head, first = lines[at + 1], lines[at + 2].split()
    assert head.split() == [
        "defense", "mmcl:", "ASR", "mmcl:", "loss", "mmcl:", "oracle", "mmcl_ssl:", "ASR",
        "mmcl_ssl:", "loss", "mmcl_ssl:", "oracle",
    ]
    # Cleaned on mmcl, not on mmcl_ssl: ASR, loss, loss of the oracle with cells cleaned.
    assert float(first[1]) < 5 < 20 < float(first[5])
    assert first[4] == "(11/11)"
    assert first[7:] == ["-", "(0/11)"]
    assert any("not distinguishable" in " ".join(lines[i:i + 3]) for i in range(len(lines)))
    assert NOTHING not in lines


def test_a_mark_for_what_cannot_be_told_apart(root):
    lines = [line.rstrip() for line in shown(standings(root=root)).splitlines()]
    attacks = lines.index("Attacks")
    assert any(line.split()[1:2] == ["≈"] for line in lines[attacks:attacks + 8])


def test_an_empty_track_says_so(folder):
    root = folder(track=TRACK.model_copy(update={"statistic": DECLARED}))
    (found,) = standings(root=root)
    for text in (shown([found]), markdown(found), overview([found])):
        assert NOTHING in text
        assert "[95 %]" not in text
    assert "Declared statistic, 0 of 20 cells measured" in shown([found], width=300)
    assert "0 of 20 cells measured" in markdown(found)


def test_an_empty_folder(tmp_path):
    assert NOTHING in overview([])
    assert build(tmp_path) == [tmp_path / "README.md", tmp_path / "index.html"]


def test_the_statistic_is_shown_once_it_is_measured(folder):
    track = TRACK.model_copy(update={"statistic": DECLARED})
    root = folder(track=track)
    place = root / "demo" / "evidence"
    place.mkdir()
    for name in ("cleanclip", "finetune"):
        cells = [cell for cell in DECLARED.cells("tiny") if cell.defense == name]
        made = submission_of(name, track, cells=cells)
        (place / f"{name}.json").write_text(made.model_dump_json())
    (found,) = standings(root=root)
    text = shown([found])
    assert "mmcl minus mmcl_ssl" in text
    assert f"{100 * found.finding.difference.value:.1f}" in text
    assert "| mmcl minus mmcl_ssl |" in markdown(found)
    # Evidence has no row in the ranking.
    assert NOTHING in text


def test_entries_without_rank_say_why(folder):
    cells = TRACK.cells("defense", "cleanclip")[:7]
    root = folder(submission_of("cleanclip", cells=cells), submission_of("finetune"))
    text = markdown(standings(root=root)[0])
    assert "| - | cleanclip | claimed |" in text
    assert "7 of 30 cells" in text
    assert "| 1 | finetune | claimed |" in text


def test_markdown_tables_render(root):
    page = MarkdownIt("commonmark", {"html": True}).enable("table")
    html = page.render(markdown(standings(root=root)[0]))
    # Three rankings, and two of them by objective.
    assert html.count("<table>") == 5
    assert "<td>cleanclip</td>" in html
    assert '<td style="text-align:right">1</td>' in html


def test_json_holds_what_the_tables_are_made_of(root):
    data = json.loads(json.dumps(plain(standings("demo", root)[0])))
    assert data["rows"]["defense"][0]["name"] == "cleanclip"
    assert 0 < data["rows"]["defense"][0]["worst"]["asr"]["value"] < 1
    assert data["submissions"][0]["level"] == "claimed"
    assert "cards" not in data["submissions"][0]
    assert data["statistic"] is None


def test_build_writes_and_check_finds_drift(root):
    written = build(root)
    assert [path.relative_to(root).as_posix() for path in written] == [
        "README.md", "demo/README.md", "index.html"
    ]
    first = {path: path.read_bytes() for path in written}
    check(root)
    assert build(root) == []
    for path in written:
        path.unlink()
    build(root)
    assert first == {path: path.read_bytes() for path in written}
    (root / "demo" / "README.md").write_text("edited")
    (root / "index.html").unlink()
    with pytest.raises(CheckFailed) as error:
        check(root)
    assert str(error.value) == (
        "not what the submissions make: `leaderboards/demo/README.md`, `leaderboards/index.html`"
        "\n\nhint: bdbench leaderboard build"
    )
    assert error.value.exit_code == 3
    assert not (root / "index.html").exists()


def test_the_files_name_no_folder_and_no_day(root, tmp_path):
    for text in generated(root).values():
        assert str(tmp_path) not in text
    other = tmp_path / "elsewhere" / "boards"
    (other / "demo" / "submissions").mkdir(parents=True)
    (other / "demo" / "track.toml").write_text(toml(TRACK), newline="\r\n")
    for path in sorted((root / "demo" / "submissions").iterdir(), reverse=True):
        (other / "demo" / "submissions" / path.name).write_bytes(path.read_bytes())
    assert list(generated(other).values()) == list(generated(root).values())


def test_what_is_checked_in_is_what_the_submissions_make():
    check()


def test_no_torch_is_imported(root):
    code = (
        "import sys; from pathlib import Path; from bdbench.leaderboard.build import build;"
        " import bdbench.cli.leaderboard; build(Path(sys.argv[1]));"
        " assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(root)], check=True)


def test_the_command(bdbench):
    done = bdbench("leaderboard", "show", "--track", "cc3m_rn50")
    assert done.returncode == 0
    assert "17.04 / 99.03" in done.stdout
    assert json.loads(bdbench("leaderboard", "show", "--json").stdout)[0]["name"] == "cc3m_rn50"
    wrong = bdbench("leaderboard", "show", "--track", "cc3m")
    assert wrong.returncode == 2
    assert "there is no track `cc3m`" in wrong.stderr
    assert bdbench("leaderboard", "build", "--check").returncode == 0


def test_the_largest_file_is_larger_than_any_real_one(full):
    assert max(len(one.model_dump_json()) for one in full) * 20 < LARGEST
