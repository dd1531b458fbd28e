"""Where runs can live on this machine: a GPU each, or a share of the cores."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field

from lmscale.core.config import check
from lmscale.core.host import CORES_VARIABLE, MEMORY_VARIABLE, available_memory_bytes, usable_cores

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
MEMORY_SHARE = 0.9
"""Of the memory that is available now, what the runs may plan with together."""


@dataclass(frozen=True)
class Slot:
    """A place where one run at a time can live: environment variables that confine it."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: "list[Slot]") -> "Slot":
        """Several GPUs as one place, for a run whose mesh wants them."""
        if len(parts) == 1:
            return parts[0]
        gpus = ",".join(part.environment[GPUS_VARIABLE] for part in parts)
        return cls(f"gpu {gpus}", {**parts[0].environment, GPUS_VARIABLE: gpus})

    @property
    def has_gpu(self) -> bool:
        """Whether a mesh of several devices takes several such places."""
        return GPUS_VARIABLE in self.environment


def slots(workers: int | None = None) -> list[Slot]:
    """One slot per GPU where there are GPUs, else one per core; `workers` cuts or widens the list.

    On a CPU, runs side by side on a core each beat one run on all cores: the products of small models are too small to
    share out. Each may plan with an even share of the memory.
    """
    check(workers is None or workers > 0, f"--workers {workers}: must be at least 1")
    if gpus := _gpus():
        found = [Slot(f"gpu {gpu}", {GPUS_VARIABLE: gpu}) for gpu in gpus]
        return found[:workers]
    cores = usable_cores()
    workers = workers or len(cores)
    shares = [cores[i :: min(workers, len(cores))] for i in range(min(workers, len(cores)))]
    memory = _memory_share(workers)
    return [
        Slot(
            f"cpu {','.join(map(str, share))}",
            {CORES_VARIABLE: ",".join(map(str, share)), "JAX_PLATFORMS": "cpu", **memory},
        )
        for share in (shares[i % len(shares)] for i in range(workers))
    ]


def allocation() -> Slot:
    """All that this process may use, as one place: what a job was given."""
    return Slot("this job", {} if _gpus() else slots(1)[0].environment)


def _memory_share(workers: int) -> dict[str, str]:
    """The variable that gives one of `workers` runs its part; a share that this process was given is shared on."""
    if given := os.environ.get(MEMORY_VARIABLE):
        return {MEMORY_VARIABLE: str(int(given) // workers)}
    available = available_memory_bytes()
    if available is None:
        return {}
    return {MEMORY_VARIABLE: str(int(MEMORY_SHARE * available) // workers)}


def _gpus() -> list[str]:
    visible = os.environ.get(GPUS_VARIABLE)
    if visible is not None:
        return [item for item in visible.split(",") if item.strip() and item.strip() != "-1"]
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu") or not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split() if listed.returncode == 0 else []
