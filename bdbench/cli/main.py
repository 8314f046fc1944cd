"""The `bdbench` command."""

from __future__ import annotations

import sys

import typer

from bdbench.cards.text import clean
from bdbench.cli.check import check_file
from bdbench.cli.list import list_entries
from bdbench.cli.new import new
from bdbench.cli.run import run
from bdbench.cli.show import show
from bdbench.cli.store import app as store
from bdbench.errors import BdbenchError

INTERRUPTED = 130

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Benchmark backdoors and their removal in CLIP-style image-text models.",
)
app.command("run")(run)
app.command("list")(list_entries)
app.command("show")(show)
app.command("new")(new)
app.command("check")(check_file)
app.add_typer(store, name="store")


def main() -> None:
    """Run the command; a user's mistake ends in one message and a hint, not a traceback."""
    try:
        app()
    except BdbenchError as error:
        lines = map(clean, str(error).split("\n"))
        print("error: " + "\n".join(lines), file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except SystemExit as done:
        if done.code == INTERRUPTED:  # typer turns Ctrl-C into this status and says nothing
            print("interrupted\n\nhint: the same command continues", file=sys.stderr)  # noqa: T201
        raise
