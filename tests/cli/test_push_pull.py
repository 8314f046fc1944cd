"""`bdbench store push` and `pull`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bdbench.leaderboard.folder import load_track
from bdbench.plan import cells, plan
from bdbench.registry import Registry, share_dir
from bdbench.schema import Card
from bdbench.store import Store
from tests.cli.conftest import Cli


def test_by_key(
    smoke_card: Card, shared_store: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((stage, key),) = [
        (one.stage, one.key) for one in smoke_card.provenance.stages if one.stage == "poison"
    ]
    url = str(tmp_path / "remote")
    first = cli("store", "push", url, key)
    assert (first.status, first.out) == (0, "1 artifact pushed, 0 there already, 0 not found\n")
    assert first.err.splitlines()[0].startswith(f"poison {key} badnet 0.")
    monkeypatch.setenv("BDBENCH_HOME", str(tmp_path / "home"))
    done = cli("store", "pull", url, key, "--json")
    (found,) = json.loads(done.out)
    assert (found["stage"], found["key"], found["outcome"]) == (stage, key, "moved")
    assert done.err.endswith("1 artifact pulled, 0 there already, 0 not found\n")
    lost = cli("store", "pull", url, "0" * 16)
    assert (lost.status, lost.err.splitlines()[0]) == (2, f"error: `{'0' * 16}` is not in `{url}`")
    lost = cli("store", "push", url, "0" * 16)
    assert lost.err.splitlines()[-1] == "hint: `bdbench store ls` lists them"
    nothing = cli("store", "pull", url)
    assert (nothing.status, nothing.err.splitlines()[0]) == (
        2, "error: neither keys nor a track are named")


def test_by_default_all_but_the_data(smoke_card: Card, tmp_path: Path, cli: Cli) -> None:
    assert cli("store", "push", str(tmp_path)).status == 0
    stages = {path.name for path in (tmp_path / "objects").iterdir()}
    assert {"poison", "pretrain", "defend", "evaluate", "card"} <= stages
    assert "data" not in stages


def test_the_models_of_a_track(
    smoke_card: Card, shared_store: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A track like `tiny` on `smoke`, of one model; its defended cells are not moved."""
    boards = tmp_path / "boards"
    text = (share_dir("leaderboards") / "tiny" / "track.toml").read_text()
    (boards / "small").mkdir(parents=True)
    text = text.replace('recipe = "tiny"', 'recipe = "smoke"')
    text = text.replace("seeds = [46043, 32686, 17774]", "seeds = [0, 1, 2]")
    (boards / "small" / "track.toml").write_text(text)
    monkeypatch.setattr("bdbench.leaderboard.folder.share_dir", lambda name: boards)
    url = str(tmp_path / "remote")
    pushed = cli("store", "push", url, "--track", "small", "--json")
    assert pushed.status == 0, pushed.err
    track, registry = load_track("small"), Registry()
    todo = plan(registry, cells(
        registry, recipe="smoke", attacks=track.attacks, objectives=track.objectives,
        defenses=["none"], seeds=track.seeds))
    models = {one.key for one in todo.nodes.values() if one.stage in ("poison", "pretrain")}
    models |= {one.key for one in todo.nodes.values() if one.label.endswith(" / start")}
    found = {one["key"] for one in json.loads(pushed.out)}
    assert found == models & {a.manifest.key for a in Store(shared_store).artifacts()}
    assert {one["stage"] for one in json.loads(pushed.out)} == {"poison", "pretrain", "evaluate"}
    monkeypatch.setenv("BDBENCH_HOME", str(tmp_path / "home"))
    done = cli("store", "pull", url, "--track", "small")
    assert done.out == (
        f"{len(found)} artifacts pulled, 0 there already, {len(models) - len(found)} not found\n")
    assert {a.manifest.key for a in Store(tmp_path / "home").artifacts()} == found
