"""The `bdbench` command."""

from __future__ import annotations

import re
import signal
import sys
from typing import Annotated, NoReturn

import typer

import bdbench
from bdbench.cards.text import clean
from bdbench.cli.check import check_file
from bdbench.cli.compare import compare_method
from bdbench.cli.leaderboard import app as leaderboard
from bdbench.cli.list import list_entries
from bdbench.cli.new import new
from bdbench.cli.run import run
from bdbench.cli.show import show
from bdbench.cli.store import app as store
from bdbench.cli.submit import submit
from bdbench.cli.verify import verify
from bdbench.errors import BdbenchError

INTERRUPTED = 130
# Newer releases of typer carry a click of their own, so the class has no stable address.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

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
app.command("compare")(compare_method)
app.command("submit")(submit)
app.command("verify")(verify)
app.add_typer(leaderboard, name="leaderboard")
app.add_typer(store, name="store")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bdbench {bdbench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True,
                           help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; a user's mistake ends in one message and a hint, not a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, signal.default_int_handler)
    try:
        status = app(prog_name="bdbench", standalone_mode=False)
    except BdbenchError as error:
        _fail("error: " + "\n".join(map(clean, str(error).split("\n"))), error.exit_code)
    except UsageError as error:
        _fail(_usage(error), 2)
    except typer.Abort:
        status = INTERRUPTED
    if status == INTERRUPTED:
        _fail("interrupted\n\nhint: the same command continues", INTERRUPTED)
    sys.exit(status)


def _fail(text: str, status: int) -> NoReturn:
    print(text, file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _code(match: re.Match[str]) -> str:
    return f"`{next(filter(None, match.groups()), '')}`"


def _usage(error: Exception) -> str:
    """A message of the option parser in the form of our own."""
    text = error.format_message()  # type: ignore[attr-defined]
    if text.startswith("Usage:"):  # nothing was asked for: the text is the help
        return str(text)
    text = re.sub(r"'([^']*)'|\(([^()]*)\)$|(?<=option: )(\S+)", _code, clean(text).rstrip("."))
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "bdbench"
    return f"error: {text[:1].lower()}{text[1:]}\n\nhint: `{path} --help` lists what it takes"
