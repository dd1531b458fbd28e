"""A real Slurm of one machine, for tests: `python tests/slurm_cluster.py FOLDER` starts it until a line comes on stdin.

Needs root and Debian's `slurm-wlm munge`. Two nodes, both this machine: one under its own name, which the processes of
a run find each other by, and one under another; 4 CPUs each, as Slurm counts. Partitions `low` and `high`, whose jobs
preempt those of `low`. Everything it writes is in FOLDER.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NODES = (socket.gethostname(), "another")
REQUEUE_SECONDS = 15
"""How long a job that was requeued waits before it begins again: as long as its credentials live, else two minutes."""

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_seconds}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmctldDebug=debug
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
SchedulerParameters=sched_interval=5,batch_sched_delay=1
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF State=UP
"""


def usable() -> str:
    """Why no cluster can be started here, nothing where one can."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    return f"needs {', '.join(lacking)}: apt install slurm-wlm munge" if lacking else ""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run one with its state in `folder`; gives the environment in which sbatch and the others find it."""
    host = socket.gethostname()
    port, *others = _free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={own} CPUs=4 RealMemory=16000"
        for name, own in zip(NODES, others)
    )
    (folder / "state").mkdir(parents=True)
    text = CONFIG.format(host=host, port=port, folder=folder, nodes=nodes, requeue_seconds=REQUEUE_SECONDS)
    (folder / "slurm.conf").write_text(text)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{name}={folder}/munge.{name}" for name in ("socket",)]
    munge += [f"--key-file={folder}/munge.key", f"--log-file={folder}/munge.log", f"--pid-file={folder}/munge.pid"]
    munge += [f"--seed-file={folder}/munge.seed", "--force", "--foreground"]
    started = [subprocess.Popen(["munged", *munge], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
    try:
        _wait((folder / "munge.socket").exists, folder)
        for command in (["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in NODES)):
            started.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        _wait(lambda: _idle(environment) == len(NODES), folder)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _idle(environment: dict[str, str]) -> int:
    listed = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--partition=low", "--format=%T"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    return listed.stdout.split().count("idle")


def _wait(true: object, folder: Path) -> None:
    assert callable(true)
    end = time.monotonic() + 60
    while not true():
        if time.monotonic() > end:
            logs = "".join(path.read_text(errors="replace")[-1500:] for path in folder.glob("*.log"))
            raise RuntimeError(f"no Slurm came up:\n{logs}")
        time.sleep(0.2)


if __name__ == "__main__":
    with cluster(Path(sys.argv[1]).absolute()) as variables:
        print(f"export SLURM_CONF={variables['SLURM_CONF']}", flush=True)
        sys.stdin.readline()
