"""The launcher that started a process is read from its environment; being merely inside of one is not enough."""

from importlib import util

import pytest

from lmscale.core.errors import UserError
from lmscale.lm.devices import distributed
from lmscale.lm.devices.cluster import ClusterProcess, detect

OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
SLURM = {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
GPUS = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "1"}
SLICES = {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}
INDEXED_JOB = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    ("environment", "process"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "5"}, None),  # a shell of salloc or sbatch
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),
        (SLURM, ClusterProcess("Slurm", "slurm", 4, 2)),
        ({**SLURM, **GPUS, "SLURM_LOCALID": "1"}, ClusterProcess("Slurm", "slurm", 4, 2, [2, 3])),
        ({**SLURM, **GPUS, "SLURM_GPUS_PER_TASK": "4"}, ClusterProcess("Slurm", "slurm", 4, 2, [0, 1, 2, 3])),
        ({**OPEN_MPI, **SLURM}, ClusterProcess("Open MPI", None, 4, 3)),  # mpirun inside of Slurm
        ({**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": "1;tcp://10.0.0.1:4"}, ClusterProcess("Open MPI", "ompi", 4, 3)),
        (
            {**OPEN_MPI, **GPUS, "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "3"},
            ClusterProcess("Open MPI", None, 4, 3, [3]),
        ),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
        (TPU, ClusterProcess("GKE", "gketpu", 4, 1)),
        ({**TPU, **SLICES}, ClusterProcess("GKE", "gketpu", 8, 5)),
        ({"TPU_WORKER_HOSTNAMES": "a", "TPU_WORKER_ID": "0"}, None),
        ({"TPU_ML_PLATFORM": "JAX"}, ClusterProcess("Cloud TPU", "gcetpu")),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, None),
    ],
)  # fmt: skip
def test_the_launcher_and_the_rank_are_read_from_the_environment(
    environment: dict[str, str], process: ClusterProcess | None
) -> None:
    assert detect(environment) == process


@pytest.mark.parametrize("installed", [True, False])
def test_an_indexed_job_needs_the_package_through_which_jax_asks(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lmscale.lm.devices.cluster.find_spec", lambda name: util.find_spec("os") if installed else None
    )
    assert detect(INDEXED_JOB) == (ClusterProcess("Kubernetes", "k8s") if installed else None)


def test_a_launcher_that_does_not_say_where_the_first_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OPEN_MPI.items():
        monkeypatch.setenv(name, value)
    sentence = (
        r"Open MPI has started 4 processes but does not say where the first is; add --coordinator HOST:PORT, or --proc"
    )
    with pytest.raises(UserError, match=sentence):
        distributed.start()


def test_what_is_not_given_is_taken_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OPEN_MPI.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"no process 0 answered at localhost:1 within 0 s"):
        distributed.start("localhost:1", wait_seconds=0)
