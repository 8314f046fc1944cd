"""Several processes that train one model: each has a share of every batch, and all the features."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bdbench.errors import BdbenchError, CellFailed, told
from bdbench.schema import Hardware
from bdbench.store import RESUME


@dataclass(frozen=True)
class Group:
    """The processes of a run, of which this is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Group:
        """The group of this process; one of its own unless torchrun started it."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else ALONE

    def share(self, batch: Tensor, dim: int = 0) -> Tensor:
        """The part of a batch, along its dimension `dim`, that this process works on."""
        return batch.chunk(self.size, dim)[self.rank]

    def gather(self, features: Tensor) -> Tensor:
        """float [views, n, d] of all processes, from [views, n / size, d] of each.

        Gradients flow back to the process that a feature comes from, the sum of what all processes
        want. All take the same loss of all features and then average the gradients of the
        parameters: that average is the gradient of the loss.
        """
        if self.size == 1:
            return features
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(features), dim=1)  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with the gradients of its parameters averaged over the processes."""
        if self.size == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        # What is not seen in every process (batch statistics) is the same in all by construction.
        return DistributedDataParallel(module, broadcast_buffers=False)


def device_of(hardware: Hardware, gpus: Sequence[int]) -> torch.device:
    """Where this process computes; sets the precision of what it computes there.

    `gpus`: those given to this process, of which it takes the first; in a group the launcher has
    hidden all others.
    """
    if hardware.device == "cpu":
        return torch.device("cpu")
    exact = hardware.precision == "fp32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not exact
    return torch.device("cuda", torch.cuda.current_device() if dist.is_initialized() else gpus[0])


ALONE = Group()
"""The group of a process that trains by itself."""


class _GlobalNorm(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes; torch has it for GPUs alone."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce

        size = dist.get_world_size()
        # The shares are equally large, so means of means are means.
        mean: Tensor = all_reduce(x.mean((0, 2, 3))) / size  # type: ignore[no-untyped-call]
        centred = x - mean[:, None, None]
        squares = centred.square().mean((0, 2, 3))
        variance: Tensor = all_reduce(squares) / size  # type: ignore[no-untyped-call]
        count = size * x.numel() // x.shape[1]
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def global_norms(model: nn.Module, device: torch.device) -> None:
    """Make the batch normalisation of a model, in place, see the images of all processes."""
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d) and device.type == "cuda":
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
        elif isinstance(child, nn.BatchNorm2d):
            child.__class__ = _GlobalNorm
        else:
            global_norms(child, device)


def visible(gpus: Sequence[int], allowed: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for some of the GPUs that this process sees, `allowed` being its own."""
    names = allowed.split(",") if allowed else [str(i) for i in range(max(gpus) + 1)]
    return ",".join(names[i].strip() for i in gpus)


def launch(
    job: Mapping[str, Any], processes: int, gpus: Sequence[int],
    report: Callable[[Mapping[str, Any]], None],
) -> None:
    """Run `bdbench.rank` on a job in a group of processes; CellFailed when one of them dies.

    `gpus`: one for each process, or none; `report` gets the progress of the first process.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    log = Path(job["work"]) / RESUME / "processes.txt"
    with (
        tempfile.TemporaryDirectory(prefix="bdbench-") as folder,
        log.open("w", encoding="utf-8") as said,
    ):
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        # The processes end when their standard input does: this process holds its other end.
        running = subprocess.Popen(
            [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--no-python",
             f"--nproc-per-node={processes}", "--", sys.executable, "-P", "-m", "bdbench.rank",
             str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
            env=environment,
        )
        assert running.stdout is not None
        failed: BdbenchError | None = None
        for line in running.stdout:
            event = json.loads(line)
            if event.pop("event") == "progress":
                report(event)
            elif failed is None:
                failed = told(event)
        status = running.wait()
    if failed is not None:
        raise failed
    if status:
        raise CellFailed(
            f"one of `{processes}` training processes died with status `{status}`",
            f"run the same command again: it continues; `{log}` has what they said, and often it is"
            " too little memory",
        )
