"""Slots: the places of this machine in which a run can train, a GPU each or a share of the cores."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field

from lmscale.core.config import check
from lmscale.core.host import CORES_VARIABLE, MEMORY_VARIABLE, available_memory_bytes, memory_share_bytes, usable_cores

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
MEMORY_SHARE = 0.9
"""Share of the memory available now that all runs together may plan with."""


@dataclass(frozen=True)
class Slot:
    """Room for one run at a time: environment variables that confine it."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def joined(cls, slots: "list[Slot]") -> "Slot":
        """Several GPUs as one slot, for a run whose mesh needs them."""
        if len(slots) == 1:
            return slots[0]
        gpus = ",".join(slot.environment[GPUS_VARIABLE] for slot in slots)
        return cls(f"gpu {gpus}", {**slots[0].environment, GPUS_VARIABLE: gpus})

    @property
    def has_gpu(self) -> bool:
        """Whether a mesh of several devices takes several such slots."""
        return GPUS_VARIABLE in self.environment


def slots(workers: int | None = None) -> list[Slot]:
    """One slot per GPU where there are GPUs, else one per core; `workers` sets another number of them.

    On a CPU, runs side by side on a core each are faster than one run on all cores: the matrix products of small models
    are too small to be split. Each may plan with an even share of the memory.
    """
    check(workers is None or workers > 0, f"--workers {workers}: must be at least 1")
    if gpus := _gpus():
        return [Slot(f"gpu {gpu}", {GPUS_VARIABLE: gpu}) for gpu in gpus][:workers]
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
    """Everything that this process may use as one slot: what a job was given."""
    return Slot("this job", {} if _gpus() else slots(1)[0].environment)


def _memory_share(workers: int) -> dict[str, str]:
    """The variable that limits the memory of one of `workers` runs; a limit of this process is divided further."""
    if limit := memory_share_bytes():
        return {MEMORY_VARIABLE: str(limit // workers)}
    available = available_memory_bytes()
    if available is None:
        return {}
    return {MEMORY_VARIABLE: str(int(MEMORY_SHARE * available) // workers)}


def _gpus() -> list[str]:
    """Numbers of the GPUs that runs may use."""
    visible = os.environ.get(GPUS_VARIABLE)
    if visible is not None:
        return [item for item in visible.split(",") if item.strip() and item.strip() != "-1"]
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu") or not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split() if listed.returncode == 0 else []
