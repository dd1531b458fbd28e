"""Which launcher has started this process as one of several, read from its environment.

JAX detects launchers too, but takes a variable that is merely there for a job of several processes: a shell inside an
allocation would wait for the others. Here the number of processes decides; finding the coordinator is left to JAX.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Place:
    """Where a launcher has put this process."""

    launcher: str
    method: str | None
    """JAX's name for the way to the coordinator's address (`cluster_detection_method`); None where it has none."""
    processes: int | None = None
    """None where only JAX can find it out, from a service of the cluster."""
    process: int | None = None
    devices: list[int] | None = None
    """The GPUs that are this process's own, where it shares those it sees with others; None: those that JAX takes."""


def find(environment: Mapping[str, str]) -> Place | None:
    """The place of this process among several; None where it is alone. Open MPI first: it runs inside of Slurm too."""
    return _open_mpi(environment) or _slurm(environment) or _tpu(environment) or _kubernetes(environment)


def _open_mpi(environment: Mapping[str, str]) -> Place | None:
    """mpirun and mpiexec; the address of the first is known up to version 4 only."""
    processes = _number(environment, "OMPI_COMM_WORLD_SIZE")
    if processes <= 1:
        return None
    return Place(
        "Open MPI",
        "ompi" if "OMPI_MCA_orte_hnp_uri" in environment else None,
        processes,
        _number(environment, "OMPI_COMM_WORLD_RANK"),
        _devices(environment, "OMPI_COMM_WORLD_LOCAL_RANK", _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")),
    )


def _slurm(environment: Mapping[str, str]) -> Place | None:
    """srun. SLURM_NTASKS is that of the job, also in the shells of salloc and sbatch; that of the step counts."""
    processes = _number(environment, "SLURM_STEP_NUM_TASKS")
    if processes <= 1 or "SLURM_PROCID" not in environment:
        return None
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    here = int(tasks.split("(")[0]) if tasks.split("(")[0].isdigit() else 0
    return Place(
        "Slurm", "slurm", processes, _number(environment, "SLURM_PROCID"), _devices(environment, "SLURM_LOCALID", here)
    )


def _tpu(environment: Mapping[str, str]) -> Place | None:
    """Cloud TPU: on GKE (also as a JobSet) the hosts of a slice are named, elsewhere the metadata server knows them."""
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    slices = max(1, _number(environment, "MEGASCALE_NUM_SLICES"))
    if hosts:
        in_slice = len(hosts.split(","))
        process = _number(environment, "MEGASCALE_SLICE_ID") * in_slice + _number(environment, "TPU_WORKER_ID")
        return Place("GKE", "gketpu", in_slice * slices, process) if in_slice * slices > 1 else None
    # JAX leaves this mark when it finds TPU chips, and TPU_SKIP_MDS_QUERY where there is no server to ask.
    if environment.get("TPU_ML_PLATFORM") == "JAX" and "TPU_SKIP_MDS_QUERY" not in environment:
        return Place("Cloud TPU", "gcetpu")
    return None


def _kubernetes(environment: Mapping[str, str]) -> Place | None:
    """An indexed Job or JobSet, where the package `kubernetes`, through which JAX asks for its size, is installed."""
    inside = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    return Place("Kubernetes", "k8s") if inside and find_spec("kubernetes") else None


def _number(environment: Mapping[str, str], name: str) -> int:
    """The whole number in a variable, 0 where there is none."""
    text = environment.get(name, "")
    return int(text) if text.isdigit() else 0


def _devices(environment: Mapping[str, str], local: str, here: int) -> list[int] | None:
    """An even share of the visible GPUs among the processes `here`; all of them where each was given its own."""
    visible = [item for item in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if item.strip()]
    if not visible or here < 1:
        return None
    own = "SLURM_GPUS_PER_TASK" in environment or len(visible) % here > 0
    share = len(visible) if own else len(visible) // here
    first = 0 if own else _number(environment, local) * share
    return list(range(first, first + share))
