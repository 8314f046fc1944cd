"""A real Slurm on this machine, as a cluster of one node: started for a test, and stopped.

Needs Debian's packages slurm-wlm and munge, and root.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CORES = 2
CONFIG = """
ClusterName=bdbench
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SlurmUser=root
ReturnToService=2
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here; None where there can."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            return f"there is no `{program}`: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "only root can start it"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Start the three daemons, wait until the node is idle, and stop them at the end."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, folder=folder, cores=CORES))
    os.environ["SLURM_CONF"] = str(config)
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    munge = Path("/run/munge/munged.pid")
    own = not _alive(munge)
    try:
        if own:
            _start("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged")
        _start("slurmctld", "-f", str(config))
        _start("slurmd", "-f", str(config))
        deadline = time.monotonic() + 60
        while "idle" not in _says("sinfo", "--noheader", "--format=%t"):
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)
        yield
    finally:
        _says("scancel", "--full", f"--user={os.getuid()}")
        for pid in (folder / "slurmd.pid", folder / "slurmctld.pid", *[munge] * own):
            with suppress(OSError, ValueError):
                os.kill(int(pid.read_text()), signal.SIGTERM)
        os.environ.pop("SLURM_CONF", None)


def jobs() -> list[str]:
    """The numbers of the jobs that are queued or running."""
    return _says("squeue", "--noheader", "--format=%A").split()


def _alive(pid: Path) -> bool:
    """Whether the process of a pid file runs."""
    with suppress(OSError, ValueError):
        return Path(f"/proc/{int(pid.read_text())}").exists()
    return False


def _start(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"


def _says(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
