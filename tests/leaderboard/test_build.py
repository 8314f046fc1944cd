"""The tables in the terminal and as Markdown, the files that are written, and their check."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from bdbench.cards.fit import fit, lines, split
from bdbench.errors import CheckFailed
from bdbench.leaderboard.build import build, check, generated
from bdbench.leaderboard.folder import LARGEST
from bdbench.leaderboard.standing import standings
from bdbench.leaderboard.tables import NOTHING, facts, tables
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


def table(text: str, title: str) -> list[list[str]]:
    """The words of a table that the terminal shows, a line each: its heads, then its rows."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.rstrip() == title)
    return [line.split() for line in lines[at + 1:at + 7]]


def test_the_terminal_says_who_leads_and_where_it_fails(root):
    text = shown(standings(root=root), width=150)
    _, *rows = table(text, "Defenses")
    rows = [[word for word in row if word != "≈"] for row in rows]
    assert [row[:3] for row in rows] == [
        ["1", "cleanclip", "claimed"], ["2", "finetune_ssl", "claimed"],
        ["3", "finetune", "claimed"], ["4", "bn_only", "claimed"], ["5", "none", "claimed"],
    ]
    assert "badnet_fixed / mmcl_ssl" in " ".join(rows[0])
    assert rows[0][-1] == "2/30"
    # Cleaned on mmcl, not on mmcl_ssl: ASR, loss, loss of the oracle with cells cleaned.
    head, first, *_ = table(text, "Defenses by objective")
    assert head == [
        "defense", "mmcl:", "ASR", "mmcl:", "loss", "mmcl:", "oracle", "mmcl_ssl:", "ASR",
        "mmcl_ssl:", "loss", "mmcl_ssl:", "oracle",
    ]
    assert float(first[1]) < 5 < 20 < float(first[5])
    assert first[4] == "(11/11)"
    assert first[7:] == ["-", "(0/11)"]
    assert "not distinguishable" in text
    assert NOTHING not in text


def test_what_survives_is_shown_by_attack_and_objective(root):
    (found,) = standings(root=root)
    first = next(line for line in markdown(found).split("## What survives each defense")[1]
                 .splitlines() if line.startswith("| cleanclip"))
    group = {g.where: g for g in found.rows["defense"][0].groups}
    attacks = [name for name in TRACK.attacks if name != "none"]
    assert [cell.split() for cell in first.split("|")[2:-1]] == [
        [f"{100 * group[attack, objective].asr.value:.1f}",
         *(["(2/3)"] if attack == "blended" else [])]
        for objective in TRACK.objectives for attack in attacks
    ]


def test_a_group_with_fewer_seeds_says_so_in_the_ranking(root):
    """The undefended model is worst on blended, whose attack failed on a seed."""
    row = next(line for line in markdown(standings(root=root)[0]).splitlines()
               if line.startswith("| 5") and "| none |" in line)
    assert "(2/3) | blended / mmcl_ssl |" in row


@pytest.mark.parametrize("width", [60, 80, 100, 150])
def test_no_name_and_no_interval_is_cut(root, width):
    (found,) = standings(root=root)
    text = shown([found], width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    words = text.split()
    for shown_table in tables(found):
        for cell in [cell for row in shown_table.rows for cell in row if cell]:
            for word in re.findall(r"\[.*?\]", cell) or cell.split():
                assert word in text if " " in word else word in words


def test_a_table_that_is_too_wide_is_split_and_each_part_names_its_rows():
    rows = [["name", *(f"figure{i}" for i in range(6))], ["mine", *["12.5 [10.0, 15.0]"] * 6]]
    assert list(split(rows, 1, 200)) == [[0, 1, 2, 3, 4, 5, 6]]
    assert list(split(rows, 1, 70)) == [[0, 1, 2, 3], [0, 4, 5, 6]]
    # Too narrow for a single figure: that is the terminal's matter.
    assert list(split(rows, 1, 9)) == [[0, i] for i in range(1, 7)]


def test_cells_break_between_words_the_widest_first():
    assert lines("65.1 [20.6, 100.0]", 13) == ["65.1", "[20.6, 100.0]"]
    assert lines("badnet_fixed / mmcl_ssl", 16) == ["badnet_fixed /", "mmcl_ssl"]
    assert lines("2 ≈", 1) == ["2 ≈"]
    assert lines("", 5) == [""]
    rows = [["a", "accuracy loss"], ["one / two", "1.0"]]
    assert fit(rows, 80) == [9, 13]
    assert fit(rows, 20) == [9, 8]
    assert fit(rows, 18) == [5, 8]


def test_markdown_heads_are_as_we_write_them(root):
    text = markdown(standings(root=root)[0])
    assert "| # | defense | level | ASR [95 %] | attack / objective | accuracy loss [95 %]" in text
    assert "&#35;" not in text
    assert "&#91;" not in text


def test_each_head_says_what_is_below_it(root):
    by = {found.title: found for found in tables(standings(root=root)[0])}
    assert by["Defenses"].head[4] == "attack / objective"
    assert by["Objectives"].head[4] == "attack / defense"
    assert by["Attacks"].head[4] == "objective / defense"
    known = {"attack": TRACK.attacks, "objective": TRACK.objectives, "defense": TRACK.defenses}
    for title in ("Defenses", "Objectives", "Attacks"):
        first, second = by[title].head[4].split(" / ")
        for row in by[title].rows:
            one, two = row[4].split(" / ")
            assert one in known[first]
            assert two in known[second]


def test_the_control_is_counted_apart_and_is_no_row_among_the_attacks(root):
    (found,) = standings(root=root)
    assert "recipe tiny: 4 attacks and the control, 2 objectives, 5 defenses, 3 seeds." in facts(
        found)
    attacks = next(one for one in tables(found) if one.title == "Attacks")
    assert {row[1] for row in attacks.rows} == set(TRACK.attacks) - {"none"}


def test_the_overview_names_its_tables(root):
    text = overview(standings(root=root))
    assert "### Defenses\n" in text
    assert "### What survives each defense\n" in text
    assert "- **accuracy loss**: " in text


def test_a_mark_for_what_cannot_be_told_apart(root):
    rows = table(shown(standings(root=root), width=150), "Attacks")
    assert any(row[1:2] == ["≈"] for row in rows)


def test_an_empty_track_says_so(folder):
    root = folder(track=TRACK.model_copy(update={"statistic": DECLARED}))
    (found,) = standings(root=root)
    for text in (shown([found]), markdown(found), overview([found])):
        assert NOTHING in text
        assert "[95 %]" not in text
        # Nor how a ranking is read, where there is none.
        assert "blind selection" not in text
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
    # Without the undefended cards nobody can say that an attack failed.
    assert "attack failed in 2 cells, and no undefended card confirms it" in text
    with_reference = folder(submission_of("none"))
    text = markdown(standings(root=with_reference)[0])
    assert "| 1 | finetune | claimed |" in text


def test_markdown_tables_render(root):
    page = MarkdownIt("commonmark", {"html": True}).enable("table")
    html = page.render(markdown(standings(root=root)[0]))
    # Three rankings, two of them by objective, and what survives each defense.
    assert html.count("<table>") == 6
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
