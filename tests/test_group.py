"""Several processes that train one model: as one process would, and gone when their parent is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bdbench.errors import BdbenchError, DiskError
from bdbench.execute import execute, read_card
from bdbench.group import Group, launch
from bdbench.plan import Plan, cells, plan
from bdbench.registry import Registry
from bdbench.schema import Cell
from bdbench.store import RESUME, Store

STEP = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
import torch.distributed as dist
from bdbench import train
from bdbench.clip import Clip
from bdbench.data import Pairs
from bdbench.objectives.mmcl_ssl import MmclSsl
from bdbench.schema import Augment, Hardware, Model, Training

folder, processes, norms, policy = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
if processes > 1:
    dist.init_process_group("gloo")
first = processes == 1 or dist.get_rank() == 0


class Heads(MmclSsl):
    def heads(self, width):
        return torch.nn.Linear(width, 3)

    def loss(self, features, heads, scale):
        head = heads(features.images[1]).square().mean()
        return super().loss(features, None, scale) | {"head": head}


class Recorded(torch.optim.SGD):
    def step(self):
        named = [*enumerate(p for group in self.param_groups for p in group["params"])]
        if first:
            gradients = {str(i): p.grad.contiguous() for i, p in named}
            save_file(gradients, folder / f"{processes}.grads")


def optimizer(modules, training):
    return Recorded([p for module in modules for p in module.parameters()], lr=0.0)


train._optimizer = optimizer
captions = [f"a {colour} {thing}" for colour in ("red", "blue", "green", "grey")
            for thing in ("kite", "drum")]
pixels = torch.randint(0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(1),
                       dtype=torch.uint8)
clip = Clip.build(Model(name="bdbench-tiny", tokenizer="words"), captions, 0)
log = train.fit(
    clip, Heads(), Pairs(torch.arange(8), pixels, captions), Training(epochs=1, batch=8, lr=0.1),
    Augment(policy=policy or None), seed=3, state=folder / f"{processes}.state",
    hardware=Hardware(processes=processes, batch_norm=norms),
)
if first:
    (folder / f"{processes}.json").write_text(json.dumps(log))
    clip.save(folder / str(processes))
"""


def one_step(folder: Path, processes: int, norms: str = "global", policy: str = "") -> None:
    """A step of the loop in so many processes; leaves gradients, log and model in `folder`."""
    script = folder / "step.py"
    script.write_text(STEP)
    (folder / str(processes)).mkdir()
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), str(script), str(folder),
         str(processes), norms, policy],
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )


@pytest.mark.parametrize("policy", ["", pytest.param("autoaugment", marks=pytest.mark.heavy)])
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, policy: str) -> None:
    one_step(tmp_path, 1, policy=policy)
    one_step(tmp_path, 2, policy=policy)
    one, two = (load_file(tmp_path / f"{n}.grads") for n in (1, 2))
    assert one.keys() == two.keys()
    assert len(one) > 30
    for name, gradient in one.items():
        assert gradient.norm() > 0 or torch.equal(two[name], gradient)
        assert torch.linalg.norm(two[name] - gradient) <= 1e-5 * max(1e-3, float(gradient.norm()))
    first, second = (json.loads((tmp_path / f"{n}.json").read_text())[0] for n in (1, 2))
    assert first == pytest.approx(second, rel=1e-5)
    models = [load_file(tmp_path / f"{n}" / "model.safetensors") for n in (1, 2)]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.heavy
def test_local_batch_norm_is_another_model(tmp_path: Path) -> None:
    one_step(tmp_path, 1)
    one_step(tmp_path, 2, norms="local")
    one, two = (load_file(tmp_path / f"{n}.grads") for n in (1, 2))
    odd = [
        name for name, gradient in one.items()
        if torch.linalg.norm(two[name] - gradient) > 1e-3 * gradient.norm()
    ]
    assert len(odd) > 10


def test_shares_make_the_batch() -> None:
    batch = torch.arange(12).view(2, 6)
    shares = [Group(rank, 3).share(batch, 1) for rank in range(3)]
    assert torch.equal(torch.cat(shares, 1), batch)


def launched(folder: Path) -> BdbenchError:
    """What becomes of a training whose data are not there."""
    (folder / "work" / RESUME).mkdir(parents=True)
    job = {"spec": {"hardware": {"device": "cpu"}}, "work": str(folder / "work"),
           "store": str(folder), "inputs": {"data": ["data", "0" * 16]}, "plugins": []}
    with pytest.raises(BdbenchError) as error:
        launch(job, 1, [], print)
    return error.value


def test_what_a_process_cannot_begin_with_is_told(tmp_path: Path) -> None:
    error = launched(tmp_path)
    assert error.message == f"`data/{'0' * 16}` is not in the store `{tmp_path}`"
    assert error.exit_code == 2


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'bdbench.rank' in sys.orig_argv and 'torch.distributed.run' not in sys.orig_argv:\n"
        "    import bdbench.stages.pretrain\n"
        "    def full(*given):\n"
        "        raise RuntimeError('I/O error: No space left on device (os error 28)')\n"
        "    bdbench.stages.pretrain.train = full\n"
        "    from bdbench.store import Store\n"
        "    Store.open = lambda *given: None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    error = launched(tmp_path)
    assert isinstance(error, DiskError)
    assert error.message == f"the store `{tmp_path}` is full"


def test_what_a_process_said_before_it_died_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'bdbench.rank' in sys.orig_argv and 'torch.distributed.run' not in sys.orig_argv:\n"
        "    print('the end', file=sys.stderr, flush=True)\n"
        "    os._exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    work = tmp_path / "work" / RESUME / "processes.txt"
    error = launched(tmp_path)
    assert error.message == "one of `1` training processes died with status `1`"
    assert error.hint == (f"run the same command again: it continues; `{work}` has what they said,"
                          " and often it is too little memory")
    assert "the end" in work.read_text()


def planned(**hardware: Any) -> tuple[Plan, Cell]:
    registry = Registry()
    (cell,) = cells(registry, recipe="smoke", attacks=["badnet"], objectives=["mmcl_ssl"],
                    defenses=["none"], seeds=[0])
    return plan(registry, [cell], {"recipe": {"hardware": hardware}}), cell


@pytest.mark.heavy
def test_a_cell_in_two_processes(tmp_path: Path) -> None:
    todo, cell = planned(processes=2)
    store, events = Store(tmp_path), []
    execute(todo, store, listen=lambda event: events.append((event.kind, event.node.stage)))
    card = read_card(store, todo.cards[cell])
    assert card.recipe.hardware is not None
    assert card.recipe.hardware.processes == 2
    alone, cell = planned()
    execute(alone, store)
    logs = []
    for which in (todo, alone):
        (key,) = [key for key, stage in which.stages.items() if stage == "pretrain"]
        lines = store.open("pretrain", key).file("train.jsonl").read_text().splitlines()
        logs.append([json.loads(line) for line in lines])
    assert logs[0][0] == pytest.approx(logs[1][0], rel=0.02)


@pytest.mark.heavy
def test_processes_end_with_the_one_that_launched_them(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bdbench.execute import run\n"
        "if __name__ == '__main__':\n"
        "    recipe = {'hardware': {'processes': 2}, 'pretrain': {'epochs': 500}}\n"
        "    run('badnet', 'mmcl', 'none', recipe='smoke', store=sys.argv[1],\n"
        "        overrides={'recipe': recipe})\n"
    )
    script = tmp_path / "long.py"
    script.write_text(code)
    running = subprocess.Popen([sys.executable, str(script), str(tmp_path / "store")])
    try:
        deadline = time.monotonic() + 120
        while not (ranks := _ranks(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(ranks) == 2
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    deadline = time.monotonic() + 30
    while _ranks(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _ranks(tmp_path) == []


def _ranks(folder: Path) -> list[int]:
    """Processes of `bdbench.rank` that hold a file below `folder` open, or work for its store."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"bdbench.rank" in words and b"torch.distributed.run" not in words:
            try:
                job = json.loads(Path(words[-2].decode()).read_text())
            except (OSError, ValueError):
                continue
            if job["store"].startswith(str(folder)):
                found.append(int(path.name))
    return found


def test_a_batch_must_be_shared_equally() -> None:
    with pytest.raises(BdbenchError, match="cannot be shared equally by `3` processes") as error:
        planned(processes=3)
    assert error.value.hint == "--set recipe.pretrain.batch=30"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_before_anything_is_run(tmp_path: Path) -> None:
    todo, _ = planned(device="cuda")
    store = Store(tmp_path)
    with pytest.raises(BdbenchError, match="asks for `1` GPUs, and torch finds `0`") as error:
        execute(todo, store)
    assert "recipe.hardware.device=cpu" in error.value.hint
    assert not list((tmp_path / "objects").glob("*/*"))
