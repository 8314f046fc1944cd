"""`bdbench show`: components, recipes and cards, and strings of others that stay text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from bdbench.registry import Registry
from bdbench.schema import Card
from tests.cli.conftest import Cli
from tests.conftest import Command
from tests.mounts import in_namespace

HOSTILE = "[red]x[bold] \x1b[35my :smile:"
SHOWN = "[red]x[bold] \N{REPLACEMENT CHARACTER}[35my :smile:"
PLUGIN = """
from bdbench import register
from bdbench.attacks.badnet import BadNet

NAME = {name!r}

@register(NAME, summary=NAME, paper=NAME)
class Theirs(BadNet):
    word: str = NAME
    \"\"\"A [red]word[/red].\"\"\"
"""


def key_of(smoke_card: Card, shared_store: Path) -> str:
    for path in shared_store.glob("objects/card/*/card.json"):
        if Card.model_validate_json(path.read_bytes()) == smoke_card:
            return path.parent.name
    raise AssertionError("the card is not in the store")


@pytest.mark.parametrize("name", [f"{e.kind}/{e.name}" for e in Registry().entries()])
def test_a_component_shows_every_parameter_with_its_meaning(name: str, cli: Cli) -> None:
    kind, _, short = name.partition("/")
    registry = Registry()
    entry = registry.entry(kind, short)  # type: ignore[arg-type]
    fields = registry.load(entry).model_fields
    done = cli("show", name)
    assert (done.status, done.err) == (0, "")
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert entry.summary in done.out
    assert entry.use in done.out
    for field, about in fields.items():
        assert about.description
        assert " ".join(about.description.split()) in rows[field]
    params = json.loads(cli("show", name, "--json").out)["params"]
    hidden = getattr(registry.load(entry), "local", frozenset())
    unset = {field for field, about in fields.items() if about.default is None}
    assert set(params) | unset == set(fields) - hidden
    for field, value in params.items():
        # Of a table within the component, what differs from its defaults is shown.
        table = isinstance(value, dict)
        parts = value if table and "files" not in value else [value["files"] if table else value]
        assert all(json.dumps(part) in rows[field] for part in parts)


def test_a_recipe_shows_every_setting(cli: Cli) -> None:
    done = cli("show", "smoke")
    recipe = json.loads(cli("show", "recipe/smoke", "--json").out)
    assert done.out == cli("show", "recipe/smoke").out
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    assert set(recipe["pretrain"]) == {
        name.removeprefix("pretrain.") for name in rows if name.startswith("pretrain.")}
    assert str(recipe["budget"]["pairs"]) in rows["budget.pairs"]


def test_a_name_of_two_kinds_shows_both_and_as_json_asks_which(cli: Cli) -> None:
    done = cli("show", "none")
    assert "attack none:" in done.out
    assert "defense none:" in done.out
    asked = cli("show", "none", "--json")
    assert (asked.status, asked.out) == (2, "")
    assert asked.commands() == [["bdbench", "show", f"{kind}/none", "--json"]
                                for kind in ("attack", "defense")]


def test_a_card_by_key_and_by_file_is_the_same(
    smoke_card: Card, shared_store: Path, bdbench: Command, cli: Cli, tmp_path: Path
) -> None:
    key = key_of(smoke_card, shared_store)
    copy = shutil.copy(shared_store / "objects" / "card" / key / "card.json", tmp_path / "c.json")
    by_key, by_file = bdbench("show", key, home=shared_store), bdbench("show", str(copy))
    assert (by_key.returncode, by_key.stderr) == (0, "")
    assert by_key.stdout == by_file.stdout
    assert "undefended" in by_key.stdout
    assert not (tmp_path / "home").exists()
    for what in (key, str(copy)):
        assert Card.model_validate_json(cli("show", what, "--json").out) == smoke_card


def test_run_and_show_print_the_same_summary(
    smoke_card: Card, shared_store: Path, cli: Cli
) -> None:
    shown = cli("show", key_of(smoke_card, shared_store)).out
    assert cli("run", "--recipe", "smoke").out.startswith(shown)
    assert "shape-blind oracle" in shown


def test_what_a_plugin_says_stays_text(tmp_path: Path, cli: Cli) -> None:
    plugin = tmp_path / "theirs.py"
    plugin.write_text(PLUGIN.format(name=HOSTILE))
    words = ["--plugin", str(plugin)]
    for done in (cli("list", *words), cli("show", f"attack/{HOSTILE}", *words)):
        assert done.status == 0, done.err
        assert SHOWN in done.out
        assert "\x1b" not in done.out
    assert "A [red]word[/red]." in done.out
    wrong = cli("run", "--recipe", "smoke", *words, "--attack", HOSTILE, "--set", "attack.rate=2")
    assert (wrong.status, wrong.out) == (2, "")
    assert SHOWN in wrong.err
    assert "\x1b" not in wrong.err


def test_the_hint_about_a_plugins_parameter_loads_its_file(tmp_path: Path, cli: Cli) -> None:
    plugin = tmp_path / "my attack.py"
    plugin.write_text(PLUGIN.format(name="theirs"))
    done = cli("run", "--plugin", str(plugin), "--attack", "theirs", "--set", "attack.rate=2")
    assert done.status == 2
    (command,) = done.commands()
    assert command == ["bdbench", "show", "attack/theirs", "--plugin", str(plugin)]
    assert "A [red]word[/red]." in cli(*command[1:]).out


def test_a_read_only_store_can_be_read(smoke_card: Card, shared_store: Path) -> None:
    key = key_of(smoke_card, shared_store)
    script = """
        mount --bind "$HOMEDIR" "$HOMEDIR" && mount -o remount,bind,ro "$HOMEDIR" || exit 99
        run="run --recipe smoke"
        for words in "show $KEY" "list" "store ls" "$run --plan" "$run" "$run --seed 9"
        do bdbench $words; echo "status $?"; done
    """
    done = in_namespace(script, home=shared_store, HOMEDIR=str(shared_store), KEY=key)
    assert re.findall(r"^status (\d+)$", done.stdout, re.MULTILINE) == ["0"] * 5 + ["2"]
    assert "undefended" in done.stdout
    assert re.search(rf"^card +{key} ", done.stdout, re.MULTILINE)
    assert done.stderr.endswith(
        f"error: the store `{shared_store}` is read-only\n\n"
        "hint: set BDBENCH_HOME to a writable folder\n")
