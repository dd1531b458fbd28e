"""The arguments of `lmscale doctor`. Importing this loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DoctorArgs:
    """Check this machine for training: devices, memory, disk, speed, extras, Slurm, the other hosts of a job.

    Says what is missing and how to get it, and ends with status 1 where training would fail. Under srun, mpirun or on
    the hosts of a TPU slice every process runs it, and the first one says which of them have come.
    """

    json: Path | None = None
    """Write every finding here (- or no file: to standard output, alone)."""
    runs: Path = Path("runs")
    """Folder that is to hold the sweeps: its disk is checked."""
    coordinator: str | None = None
    """HOST:PORT of process 0, which the other processes of a run must reach; by default Slurm says."""
    processes: int | None = None
    """Processes that are expected; by default what the launcher says."""
    process: int | None = None
    """Number of this process, from 0."""
    wait_seconds: int = 60
    """How long the devices, and the other processes, may take to answer."""
    peak: bool = True
    """Measure the matrix products of a device, some seconds."""
