"""Collect the cards of a method on a track from the store into one file; computes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bdbench.errors import BdbenchError
from bdbench.execute import read_card
from bdbench.leaderboard.folder import load_track
from bdbench.plan import plan
from bdbench.registry import Registry, describe, near, share_dir
from bdbench.registry.entry import Entry
from bdbench.schema import SUBMITTABLE, Card, Cell, Submission, Track
from bdbench.store import Store, disk_errors
from bdbench.verify import Report, verify
from bdbench.verify.case import evidence_cells


@dataclass(frozen=True)
class Written:
    """A submission file, and what `bdbench verify` says of it."""

    path: Path
    submission: Submission
    place: str
    """Where it belongs, below a checkout."""
    report: Report


@dataclass(frozen=True)
class Collected:
    """A method's cards on a track, in the order of the track's cells."""

    entry: Entry
    track: Track
    cards: tuple[Card, ...]


def collect(
    name: str, track_name: str, *, plugins: Sequence[Path] = (), evidence: bool = False,
    store: Store | None = None, root: Path | None = None,
) -> Collected:
    """The cards of all cells of a track with the method `name`, or `kind/name`, from the store.

    `evidence`: those of the track's declared statistic instead. BdbenchError when a cell has not
    run yet.
    """
    track = load_track(track_name, root)
    registry, place = Registry(plugins), store or Store()
    entry = _entry(registry, name)
    wanted = _cells(track, entry, track_name, evidence)
    todo = plan(registry, wanted)
    with disk_errors(place.root):
        missing = [c for c, key in todo.cards.items() if place.find("card", key) is None]
    if missing:
        cell = missing[0]
        raise BdbenchError(
            f"`{len(missing)}` of the `{len(wanted)}` cells of `{entry.name}` on the track"
            f" `{track_name}` are not in the store `{place.root}`; the first is"
            f" `{cell.attack} / {cell.objective} / {cell.defense} / seed {cell.seed}`",
            _command(entry, track_name, wanted, plugins, evidence),
        )
    return Collected(entry, track, tuple(read_card(place, key) for key in todo.cards.values()))


def submit(
    name: str, track_name: str, *, authors: Sequence[str], summary: str | None = None,
    url: str = "", plugins: Sequence[Path] = (), evidence: bool = False, out: Path | None = None,
    store: Store | None = None, root: Path | None = None,
) -> Written:
    """Write what `collect` finds into one file, and verify the file."""
    # The name is looked at first: what is wrong with it is cheaper to say than what is missing.
    entry = _entry(Registry(plugins), name)
    path = out or Path(f"{entry.name}.json")
    if path.name != f"{entry.name}.json":
        raise BdbenchError(
            f"`{path}` must be named `{entry.name}.json`, like the method",
            f"--out {shlex.quote(str(path.with_name(f'{entry.name}.json')))}",
        )
    found = collect(
        name, track_name, plugins=plugins, evidence=evidence, store=store, root=root
    )
    try:
        submission = Submission(
            track=track_name, edition=found.track.edition,
            kind=entry.kind,  # type: ignore[arg-type]
            name=entry.name, summary=entry.summary if summary is None else summary,
            authors=tuple(authors), url=url, cards=found.cards,
        )
    except ValidationError as error:
        raise BdbenchError(
            describe(error, "submission"), "bdbench submit --help says what each flag takes"
        ) from error
    try:
        # Fields in the order of the schema: sorted ones would lose the order of a sweep.
        path.write_text(submission.model_dump_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise BdbenchError(
            f"`{path}` cannot be written: {error.strerror}", "name another file with `--out`"
        ) from error
    folder = "evidence" if evidence else "submissions"
    return Written(
        path=path, submission=submission,
        place=f"leaderboards/{track_name}/{folder}/{entry.name}.json",
        report=verify(path, root=root),
    )


def in_checkout() -> bool:
    """Whether bdbench runs from a checkout, whose folder `leaderboards` a submission is put in."""
    return (share_dir("leaderboards").parent / ".git").exists()


def _entry(registry: Registry, name: str) -> Entry:
    kind, _, stem = name.rpartition("/")
    found = [
        entry for entry in registry.entries()
        if entry.name == stem and kind in ("", entry.kind)
    ]
    fit = [entry for entry in found if entry.kind in SUBMITTABLE]
    if len(fit) > 1:
        raise BdbenchError(
            f"`{stem}` names {' and '.join(f'the {e.kind}' for e in fit)}",
            f"say which: {' or '.join(f'`{e.kind}/{stem}`' for e in fit)}",
        )
    if fit:
        return fit[0]
    if found:
        raise BdbenchError(
            f"`{stem}` is a {found[0].kind}, and a board has rows for {', '.join(SUBMITTABLE)}:"
            f" a new {found[0].kind} changes what the rows mean, so that it comes with a recipe or"
            " an edition of its own",
            f"propose `{stem}` as CONTRIBUTING.md says; `bdbench list defense` lists what has rows",
        )
    names = {e.name for e in registry.entries() if e.kind in SUBMITTABLE}
    raise BdbenchError(
        f"there is no attack, objective or defense `{name}`",
        f"a method in a file needs `--plugin FILE`; otherwise {near(stem, names)}",
    )


def _cells(track: Track, entry: Entry, name: str, evidence: bool) -> tuple[Cell, ...]:
    if not evidence:
        found = track.cells(entry.kind, entry.name)
        if not found:
            raise BdbenchError(
                f"the track `{name}` has no seeds yet", "bdbench leaderboard show lists the tracks"
            )
        return found
    if track.statistic is None:
        raise BdbenchError(f"the track `{name}` declares no statistic", "leave `--evidence` out")
    found = evidence_cells(track, entry.name) if entry.kind == "defense" else ()
    if not found:
        asked = (track.statistic.baseline, track.statistic.defense)
        raise BdbenchError(
            f"the statistic of the track `{name}` compares `{asked[0]}` and `{asked[1]}`, not"
            f" `{entry.name}`",
            f"bdbench submit {asked[1]} --track {name} --evidence --author 'A. Name'",
        )
    return found


def _command(
    entry: Entry, track: str, cells: Sequence[Cell], plugins: Iterable[Path], evidence: bool
) -> str:
    """The command that runs the cells; what is there is reused."""
    words = ["bdbench", "run", "--track", track, f"--{entry.kind}", entry.name]
    if evidence:
        first = cells[0]
        words += ["--attack", first.attack]
        for objective in dict.fromkeys(cell.objective for cell in cells):
            words += ["--objective", objective]
        for seed in dict.fromkeys(cell.seed for cell in cells):
            words += ["--seed", str(seed)]
    for path in plugins:
        words += ["--plugin", str(path)]
    return shlex.join(words)
