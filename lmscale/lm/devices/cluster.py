"""Which launcher has started this process as one of several, read from its environment.

JAX detects launchers too, but takes a variable that is merely there for a job of several processes: a shell inside an
allocation would wait for the others. Here the number of processes decides; finding the coordinator is left to JAX.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class ClusterProcess:
    """One of several processes, as its launcher numbered it."""

    launcher: str
    method: str | None
    """JAX's name for how to find the coordinator's address (`cluster_detection_method`); None where it has none."""
    processes: int | None = None
    """None where only JAX can tell, from a service of the cluster."""
    process: int | None = None
    devices: list[int] | None = None
    """The GPUs for this process alone, where it shares those it sees with others; None: those that JAX takes."""


def detect(environment: Mapping[str, str]) -> ClusterProcess | None:
    """Which process of how many this is; None where it is alone. Open MPI first: it runs inside of Slurm too."""
    return _open_mpi(environment) or _slurm(environment) or _tpu(environment) or _kubernetes(environment)


def _open_mpi(environment: Mapping[str, str]) -> ClusterProcess | None:
    """mpirun and mpiexec; the address of the first is known up to version 4 only."""
    processes = _number(environment, "OMPI_COMM_WORLD_SIZE")
    if processes <= 1:
        return None
    return ClusterProcess(
        "Open MPI",
        "ompi" if "OMPI_MCA_orte_hnp_uri" in environment else None,
        processes,
        _number(environment, "OMPI_COMM_WORLD_RANK"),
        _devices(environment, "OMPI_COMM_WORLD_LOCAL_RANK", _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")),
    )


def _slurm(environment: Mapping[str, str]) -> ClusterProcess | None:
    """srun. SLURM_NTASKS is that of the job, also in the shells of salloc and sbatch; that of the step counts."""
    processes = _number(environment, "SLURM_STEP_NUM_TASKS")
    if processes <= 1 or "SLURM_PROCID" not in environment:
        return None
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    on_node = int(tasks.split("(")[0]) if tasks.split("(")[0].isdigit() else 0
    return ClusterProcess(
        "Slurm",
        "slurm",
        processes,
        _number(environment, "SLURM_PROCID"),
        _devices(environment, "SLURM_LOCALID", on_node),
    )


def _tpu(environment: Mapping[str, str]) -> ClusterProcess | None:
    """Cloud TPU: on GKE (also as a JobSet) a variable lists the hosts of a slice, else the metadata server does."""
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    slices = max(1, _number(environment, "MEGASCALE_NUM_SLICES"))
    if hosts:
        in_slice = len(hosts.split(","))
        process = _number(environment, "MEGASCALE_SLICE_ID") * in_slice + _number(environment, "TPU_WORKER_ID")
        return ClusterProcess("GKE", "gketpu", in_slice * slices, process) if in_slice * slices > 1 else None
    # JAX leaves this mark when it finds TPU chips, and TPU_SKIP_MDS_QUERY where there is no server to ask.
    if environment.get("TPU_ML_PLATFORM") == "JAX" and "TPU_SKIP_MDS_QUERY" not in environment:
        return ClusterProcess("Cloud TPU", "gcetpu")
    return None


def _kubernetes(environment: Mapping[str, str]) -> ClusterProcess | None:
    """An indexed Job or JobSet, where the package `kubernetes`, through which JAX asks for its size, is installed."""
    inside = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    return ClusterProcess("Kubernetes", "k8s") if inside and find_spec("kubernetes") else None


def _number(environment: Mapping[str, str], name: str) -> int:
    """The whole number in a variable, 0 where there is none."""
    text = environment.get(name, "")
    return int(text) if text.isdigit() else 0


def _devices(environment: Mapping[str, str], local_rank: str, processes_on_node: int) -> list[int] | None:
    """A process's even share of the GPUs that its node's processes see; all of them where each sees only its own."""
    visible = [item for item in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if item.strip()]
    if not visible or processes_on_node < 1:
        return None
    exclusive = "SLURM_GPUS_PER_TASK" in environment or len(visible) % processes_on_node > 0
    share = len(visible) if exclusive else len(visible) // processes_on_node
    first = 0 if exclusive else _number(environment, local_rank) * share
    return list(range(first, first + share))
