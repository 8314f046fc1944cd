"""Checks of what was run: the track's cells, its recipe, its components, and every key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bdbench.errors import BdbenchError
from bdbench.leaderboard.folder import read_submission
from bdbench.schema import Card, Ref
from bdbench.verify.case import (
    AXES,
    ROLES,
    Case,
    Said,
    doubt,
    no,
    note,
    product,
    runs_of,
    several,
    stages,
    where,
)

FILES = {
    "data": {"data.json", "index.parquet", "pixels.bin"},
    "poison": {"poison.json", "rows.parquet", "state.safetensors"},
    "pretrain": {"model.safetensors"},
    "defend": {"model.json"},
    "evaluate": {"predictions.parquet"},
}
"""Files that a stage has at least."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[a-z0-9][\w.-]{0,80}")
_COMMIT = re.compile(r"[0-9a-f]{40}(\+dirty)?")
_STEP = re.compile(r"step-(\d{4,})\.safetensors")


def track(case: Case) -> Iterator[Said]:
    """The edition."""
    found, current = case.submission.edition, case.track.edition
    if found != current:
        yield no(f"it is for edition `{found}`, and the track is at edition `{current}`")


def asked(case: Case) -> Iterator[Said]:
    """The set of cells."""
    found = [card.cell for card in case.submission.cards]
    missing = [cell for cell in case.wanted if cell not in found]
    if missing:
        yield no(f"{len(missing)} of {len(case.wanted)} cells are missing, {where(missing[0])}")
    for cell in found:
        if cell not in case.wanted:
            yield no(f"the track does not ask for {where(cell)}, recipe `{cell.recipe}`")
    kind = "the declared statistic" if case.evidence else "the ranking"
    yield note(f"{several(len(found), 'cell')} of {kind}")


def name(case: Case) -> Iterator[Said]:
    """Whose name it is."""
    sub = case.submission
    if case.path.stem != sub.name:
        yield no(f"the file is `{case.path.name}`, and the submission `{sub.name}`")
    if case.built_in:
        entry = case.registry.entry(sub.kind, sub.name)
        for card in case.cards:
            ref = card.components.get(sub.kind)
            if ref is not None and (ref.use, ref.source) != (entry.use, None):
                yield no(
                    f"`{sub.name}` is a {sub.kind} of bdbench, and the cards are of `{ref.use}`"
                )
                break
    other = case.root / sub.track / "submissions" / f"{sub.name}.json"
    if case.evidence or not other.is_file():
        return
    if other.resolve() == case.path.resolve():
        yield note(f"it is in place already: `git log -p {other}` tells whose it was before")
        return
    try:
        committed = read_submission(other)
    except BdbenchError as error:
        yield doubt(f"the track has a submission `{sub.name}` that cannot be read: {error.message}")
        return
    if (committed.kind, committed.authors) != (sub.kind, sub.authors):
        yield no(
            f"the track has a {committed.kind} `{sub.name}` by"
            f" `{', '.join(committed.authors)}`"
        )
    else:
        yield note(f"it replaces the submission `{sub.name}` of the same authors")


def method(case: Case) -> Iterator[Said]:
    """One setting for all cells."""
    kind, first, steps = case.submission.kind, None, None
    for card in case.cards:
        ref = card.components.get(kind)
        if ref is None:
            continue
        sweep = runs_of(card) if kind == "defense" else []
        if first is None:
            first = (ref, sweep)
        if ref != first[0]:
            yield no(f"{where(card.cell)}: `{kind}` {_differs(ref, first[0])}")
        if sweep != first[1]:
            yield no(f"{where(card.cell)}: its sweep is `{sweep}`, elsewhere `{first[1]}`")
        if kind == "defense":
            own = [(point.order, point.step) for point in card.trajectory[1:]]
            steps = steps or own
            if own != steps:
                yield doubt(
                    f"{where(card.cell)}: its runs end after other epochs than in other cells; what"
                    " decides that must not see the attack"
                )
    if first and not case.built_in and not _SHA256.fullmatch(first[0].source or ""):
        yield doubt(f"`{first[0].use}` has the source `{first[0].source}`: no hash pins its code")


def recipe(case: Case) -> Iterator[Said]:
    """Nothing set by hand."""
    expected = case.recipe.model_dump()
    for card in case.cards:
        at = where(card.cell)
        if card.recipe != case.recipe:
            yield no(f"{at}: {_first(card.recipe.model_dump(), expected, 'recipe')}")
        if card.overridden:
            yield no(f"{at}: `--set` changed the recipe: `{', '.join(card.overridden)}`")
        if card.provenance.threads != case.recipe.threads.model_dump():
            yield no(f"{at}: it ran with the threads `{card.provenance.threads}`")
        ref = card.components.get(case.submission.kind)
        if ref is not None and case.submitted(case.submission.kind):
            defaults = getattr(case.recipe, f"{case.submission.kind}s").get(case.submission.name)
            allowed = dict(defaults.params) if defaults else {}
            for field in sorted(set(ref.overridden) ^ set(allowed)):
                yield no(f"{at}: `{case.submission.kind}.{field}` was changed by `--set`")


def components(case: Case) -> Iterator[Said]:
    """Everything but the submitted method."""
    for card in case.cards:
        at = where(card.cell)
        if set(card.components) != set(ROLES):
            yield no(f"{at}: its components are `{', '.join(sorted(card.components))}`")
            continue
        names = {kind: getattr(card.cell, kind) for kind in AXES}
        names["dataset"] = case.recipe.dataset
        for kind in ROLES:
            ref = card.components[kind]
            if (ref.kind, ref.name) != (kind, names[kind]):
                yield no(f"{at}: its {kind} is the {ref.kind} `{ref.name}`")
            elif not case.submitted(kind) and ref != (own := case.shipped(kind, ref.name)[0]):
                yield no(f"{at}: `{kind}` {_differs(ref, own)}")
        for metric in card.metrics:
            if metric.kind != "metric" or metric != case.shipped("metric", metric.name)[0]:
                yield no(f"{at}: the metric `{metric.name}` is not bdbench's")


def keys(case: Case) -> Iterator[Said]:
    """Every stage key and seed, computed again."""
    count = 0
    for card in case.cards:
        at = where(card.cell)
        if set(card.components) != set(ROLES):
            continue
        plan, key = case.rebuild(card)
        node = plan.nodes[key]
        expected = [(plan.stages[own], own) for own in node.inputs.values()]
        found = [(stage.stage, stage.key) for stage in card.provenance.stages]
        count += len(found)
        if len(found) != len(expected):
            yield no(f"{at}: it rests on {len(found)} stages, not on {len(expected)}")
        for (stage, mine), (_, own) in zip(found, expected, strict=False):
            if mine != own:
                yield no(f"{at}: the key of `{stage}` is `{mine}`, and computed here `{own}`")
                break
        if card.provenance.seeds != node.spec["seeds"]:
            yield no(f"{at}: its seeds are not those of seed `{card.cell.seed}`")
    yield note(several(count, "key"))


def files(case: Case) -> Iterator[Said]:
    """The sha256 of every file."""
    seen: dict[str, dict[str, str]] = {}
    for card in case.cards:
        at = where(card.cell)
        for stage in card.provenance.stages:
            for file, sha256 in stage.files.items():
                if not _FILE.fullmatch(file) or not _SHA256.fullmatch(sha256):
                    yield no(f"{at}: `{stage.stage}` has the file `{file}` with sha256 `{sha256}`")
            lacking = FILES.get(stage.stage, set()) - set(stage.files)
            if lacking:
                yield no(f"{at}: `{stage.stage}` lacks `{', '.join(sorted(lacking))}`")
            if seen.setdefault(stage.key, stage.files) != stage.files:
                yield no(f"{at}: `{stage.stage}/{stage.key}` has other bytes than in another cell")


def runs(case: Case) -> Iterator[Said]:
    """The declared sweep, every run from its first to its last epoch."""
    for card in case.cards:
        at, start = where(card.cell), card.trajectory[0]
        if (start.sweep, start.order, start.step) != ({}, 0, 0):
            yield no(f"{at}: the trajectory does not begin with the starting model")
        expected = product(case.sweep(card))
        if runs_of(card) != expected:
            yield no(f"{at}: the runs are `{runs_of(card)}`, and declared are `{expected}`")
            continue
        yield from (no(f"{at}: {text}") for text in _epochs(case, card, expected))


def _epochs(case: Case, card: Card, expected: list[dict[str, float]]) -> Iterator[str]:
    defended = stages(card, "defend")
    found = [(point.order, point.step) for point in card.trajectory[1:]]
    if found != sorted(set(found)):
        yield "the models are not in the order of runs and epochs"
    for i, sweep in enumerate(expected):
        points = [point for point in card.trajectory[1:] if point.order == i]
        steps = [point.step for point in points]
        if any(point.sweep != sweep for point in points):
            yield f"run {i} mixes parameters"
        if i < len(defended):
            kept = [int(m[1]) for file in sorted(defended[i].files) if (m := _STEP.fullmatch(file))]
            if steps != kept:
                yield f"run {i} has the epochs `{steps}`, and models of `{kept}`"
        epochs = card.components["defense"].params.get("epochs")
        if not case.submitted("defense") and epochs is not None and len(steps) != epochs:
            yield f"run {i} has {len(steps)} of `{epochs}` epochs"


def code(case: Case) -> Iterator[Said]:
    """The state of the checkout that made the cards."""
    unknown = [card for card in case.cards if not _COMMIT.fullmatch(card.provenance.git or "")]
    if unknown:
        yield doubt(
            f"{several(len(unknown), 'card')} of the commit `{unknown[0].provenance.git}`: only a"
            " checkout tells which code ran"
        )
    dirty = [card for card in case.cards if "+dirty" in (card.provenance.git or "")]
    if dirty:
        yield doubt(f"{several(len(dirty), 'card')} of a checkout with uncommitted changes")


def _differs(ref: Ref, other: Ref) -> str:
    return _first(ref.model_dump(), other.model_dump(), "")


def _first(found: Any, expected: Any, path: str) -> str:
    """The first place where two trees differ, in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*expected, *found]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in found or key not in expected:
                return f"`{inner}` is {'missing' if key not in found else 'not a field here'}"
            if found[key] != expected[key]:
                return _first(found[key], expected[key], inner)
    return f"`{path}` is `{found}`, and here `{expected}`"
