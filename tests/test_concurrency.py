"""One store and several engines and users; locks of the dead; disks and clocks that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bdbench.execute import NodeEvent, execute, read_card
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry
from bdbench.store import RESUME, Store

ENGINE = """
import json, os, sys
from pathlib import Path
from bdbench.errors import BdbenchError
from bdbench.execute import execute
from bdbench.store import Store
from tests.test_concurrency import wanted

os.umask(0o002)
store, defenses, epochs = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
def tell(event):
    print(json.dumps([event.kind, event.node.stage, event.node.key]), flush=True)
try:
    execute(wanted(defenses, epochs), Store(store), listen=tell)
except BdbenchError as error:
    sys.exit(str(error))
"""
ROOT = Path(__file__).parents[1]
PACKAGES = [str(ROOT), *site.getsitepackages()]
OTHERS = 65533, 65534
"""Two users without a name."""


def wanted(defenses: Sequence[str], epochs: int = 2) -> Plan:
    registry = Registry()
    found = cells(registry, recipe="smoke", attacks=["badnet"], objectives=["mmcl"],
                  defenses=defenses, seeds=[0])
    return plan(registry, found, {"recipe": {"pretrain": {"epochs": epochs}}})


BOTH = wanted(["none", "finetune"])


def engine(
    store: Path, *defenses: str, epochs: int = 2, prefix: Sequence[str] = (sys.executable,)
) -> subprocess.Popen[str]:
    """A run as a process; it prints its events."""
    words = [*prefix, "-c", ENGINE, str(store), ",".join(defenses), str(epochs)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(PACKAGES)})


def ended(process: subprocess.Popen[str], status: int = 0) -> tuple[list[list[str]], str]:
    """Its events, and what it says on stderr."""
    out, err = process.communicate(timeout=200)
    assert process.returncode == status, err
    return [json.loads(line) for line in out.splitlines()], err


def cards(store: Path, todo: Plan) -> list[object]:
    """Without what differs from run to run, and the commit, that git tells to owners alone."""
    found = [read_card(Store(store), key).without_times() for key in todo.cards.values()]
    return [card | {"provenance": card["provenance"] | {"git": None}} for card in found]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of two cells, made by one engine that nothing disturbs."""
    store = tmp_path_factory.mktemp("quiet")
    execute(BOTH, Store(store))
    return store


@pytest.fixture(scope="module")
def alone(quiet: Path) -> list[object]:
    """The cards of the two."""
    return cards(quiet, BOTH)


def saved(store: Path) -> bool:
    """Whether a training has saved an epoch."""
    return any((store / "work").glob(f"*/{RESUME}/*.safetensors"))


def until(process: subprocess.Popen[str], store: Path) -> None:
    """Wait until a training has saved an epoch."""
    deadline = time.monotonic() + 100
    while not saved(store):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_engines_share_what_their_matrices_have_in_common(
    alone: list[object], tmp_path: Path
) -> None:
    both = engine(tmp_path, "none", "finetune"), engine(tmp_path, "finetune", "none")
    events = [event for process in both for event in ended(process)[0]]
    computed = Counter(key for kind, _, key in events if kind == "done")
    assert computed == Counter(list(BOTH.nodes))
    assert cards(tmp_path, BOTH) == alone
    assert not (tmp_path / "corrupt").exists()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that two users may write to by their group."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can run as two users")
    place = Path(tempfile.mkdtemp(prefix="bdbench-shared-"))
    try:
        os.chown(place, 0, OTHERS[0])
        place.chmod(0o2775)
        yield place
    finally:
        shutil.rmtree(place)


def as_user(user: int, group: int) -> tuple[str, ...]:
    """A Python of this version as another user, who cannot always reach the one of root."""
    words = ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "env")
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        test = f"import sys; sys.path += {PACKAGES}; import subprocess, bdbench, numpy;" \
            "subprocess.run(sys.executable, input=b'', check=True)"
        if subprocess.run([*words, python, "-c", test], check=False, cwd=ROOT).returncode == 0:
            return *words, python
    pytest.skip("another user can reach no Python here that has the packages")


@pytest.mark.heavy
def test_two_users_of_a_group_share_a_store(alone: list[object], shared: Path) -> None:
    """The first is killed while it trains; the second goes on from what the first has saved."""
    one, two = (as_user(user, OTHERS[0]) for user in OTHERS)
    first = engine(shared, "none", "finetune", prefix=one)
    until(first, shared)
    first.kill()
    first.communicate()
    both = (engine(shared, "none", "finetune", prefix=two),
            engine(shared, "finetune", "none", prefix=one))
    for process in both:
        ended(process)
    assert cards(shared, BOTH) == alone
    owners = {a.path.stat().st_uid for a in Store(shared).artifacts()}
    assert owners <= set(OTHERS)
    assert not (shared / "corrupt").exists()


def test_a_store_of_another_user_is_read_and_not_written(quiet: Path, shared: Path) -> None:
    shutil.copytree(quiet, shared / "home")
    (shared / "home").chmod(0o755)
    before = sorted(shared.rglob("*"))
    stranger = as_user(OTHERS[1], OTHERS[1])
    events, _ = ended(engine(shared / "home", "none", "finetune", prefix=stranger))
    assert {kind for kind, *_ in events} == {"reused"}
    assert sorted(shared.rglob("*")) == before
    _, said = ended(engine(shared / "home", "none", "cleanclip", prefix=stranger), status=1)
    assert said == (f"the store `{shared / 'home'}` is not writable\n\n"
                    "hint: set BDBENCH_HOME to a writable folder\n")


def test_a_store_that_cannot_be_read(shared: Path) -> None:
    stranger = as_user(OTHERS[1], OTHERS[1])
    store = Store(shared / "home")
    store.prepare()
    (shared / "home" / "objects").chmod(0o700)
    _, said = ended(engine(shared / "home", "none", prefix=stranger), status=1)
    assert f"the store `{shared / 'home'}` is not" in said


@pytest.mark.heavy
def test_a_store_that_becomes_read_only_keeps_what_it_has(
    alone: list[object], tmp_path: Path
) -> None:
    """Nothing can be written any more while a model trains; later the same command ends it."""
    prefix: tuple[str, ...] = (sys.executable,)
    if os.geteuid() == 0:  # whom no permission stops
        if shutil.which("setpriv") is None:
            pytest.skip("there is no `setpriv` to make root obey permissions")
        prefix = ("setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override",
                  sys.executable)
    process = engine(tmp_path, "none", "finetune", prefix=prefix)
    until(process, tmp_path)
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        _, said = ended(process, status=1)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert said.endswith(f" failed: the store `{tmp_path}` is not writable\n\n"
                         "hint: set BDBENCH_HOME to a writable folder\n")
    assert saved(tmp_path)
    done = {a.manifest.key for a in Store(tmp_path).artifacts()}
    events, _ = ended(engine(tmp_path, "none", "finetune"))
    assert {key for kind, _, key in events if kind == "reused"} == done
    assert cards(tmp_path, BOTH) == alone


@pytest.mark.heavy
def test_locks_of_dead_processes_hold_nobody_up(alone: list[object], tmp_path: Path) -> None:
    """Killed in the middle, with a worker that dies too; locks of no process lie about as well."""
    process = engine(tmp_path, "none", "finetune")
    until(process, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = sorted(path.name for path in (tmp_path / "locks").iterdir())
    assert any(name.startswith("run-") for name in left)
    for key in BOTH.nodes:
        (tmp_path / "locks" / f"{key}.lock").touch()
    ended(engine(tmp_path, "none", "finetune"))
    assert cards(tmp_path, BOTH) == alone
    Store(tmp_path).gc()


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_that_jumps(hours: int, quiet: Path, tmp_path: Path) -> None:
    """To the store, a clock that jumped is files of the future or of long ago."""
    shutil.copytree(quiet, tmp_path, dirs_exist_ok=True)
    moment = time.time() + 3600 * hours
    for path in tmp_path.rglob("*"):
        os.utime(path, (moment, moment))
    events: list[NodeEvent] = []
    execute(BOTH, Store(tmp_path), listen=events.append)
    assert {event.kind for event in events} == {"reused"}
    (victim,) = (tmp_path / "objects" / "poison").glob("*/state.safetensors")
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    if hours > 0:  # changed on the tick of the clock that it was written on
        os.utime(victim, (moment, moment))
    events.clear()
    execute(BOTH, Store(tmp_path), listen=events.append)
    (note,) = (event.data["text"] for event in events if event.kind == "note")
    assert "`state.safetensors` does not match its sha256" in note
    assert [event.node.stage for event in events if event.kind == "done"] == ["poison"]
    assert cards(tmp_path, BOTH) == cards(quiet, BOTH)
