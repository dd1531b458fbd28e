"""Accelerators by name, as their makers describe them. A run reaches a share of these peaks (`utilisation`).

Peaks are dense matrix products, without structured sparsity. "float32" is what JAX computes float32 products in by
default: TF32 on NVIDIA's, bfloat16 passes on Google's. A link is counted in one direction, half of what data sheets
call bidirectional.
"""

from dataclasses import dataclass
from typing import Literal

from lmscale.core.errors import UserError, nearest

_GB = 10**9
GPU_POOL = 0.75
"""Share of a GPU's memory that JAX takes for its arrays unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise (JAX's
documentation, "GPU memory allocation")."""
OVERLAP_FLAG = "--xla_gpu_enable_latency_hiding_scheduler"
"""Has XLA hide the communication between GPUs behind computation. XLA leaves it off by default; on TPUs the compiler
hides it unasked. Worth a try between many GPUs: `--xla_gpu_all_gather_combine_threshold_bytes` and its siblings for
all-reduce and reduce-scatter, which make fewer and larger messages. Flags stand in XLA_FLAGS, those of TPUs in
LIBTPU_INIT_ARGS, before the process starts."""


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator."""

    name: str
    title: str
    bfloat16: float
    """FLOP/s."""
    float32: float
    memory_bytes: float
    source: str
    jax_kinds: tuple[str, ...] = ()
    """Names of the accelerator in JAX: `jax.devices()[0].device_kind`."""
    memory_bytes_per_second: float = 0.0
    """Between a device and its own memory."""
    link_bytes_per_second: float = 0.0
    """What a device sends over NVLink or ICI, all links together."""
    network_bytes_per_second: float = 0.0
    """What a device sends to hosts that no such link reaches."""
    usable_bytes: int = 0
    """What a program may take of the memory."""
    compute_capability: tuple[int, int] | None = None
    """Which kernels a GPU of NVIDIA has; None for others."""

    @property
    def platform(self) -> Literal["gpu", "tpu"]:
        """JAX's name for the kind of device."""
        return "tpu" if self.compute_capability is None else "gpu"

    def flops_per_second(self, dtype: str) -> float:
        """The peak in `dtype`."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


def _nvidia(
    name: str,
    title: str,
    bfloat16: float,
    tf32: float,
    gigabytes: float,
    *kinds: str,
    memory: float,
    nvlink: float,
    network_gigabits: float,
    capability: tuple[int, int],
) -> Accelerator:
    """Bandwidths in GB/s, NVLink's both directions together as data sheets state it; the network is one adapter for
    each GPU, as in NVIDIA's DGX of that generation."""
    return Accelerator(
        name,
        title,
        bfloat16,
        tf32,
        gigabytes * _GB,
        f"NVIDIA, {title} data sheet, SXM module",
        kinds,
        memory * _GB,
        nvlink / 2 * _GB,
        network_gigabits / 8 * _GB,
        int(GPU_POOL * gigabytes * _GB),
        capability,
    )


def _tpu(
    name: str, bfloat16: float, gigabytes: float, *kinds: str, memory: float, ici: float, usable_gib: float
) -> Accelerator:
    """Bandwidths in GB/s, ICI's both directions together; usable memory as XLA states it when a program is too large
    ("exceeds available HBM (15.75G)")."""
    title = f"TPU {name}"
    return Accelerator(
        name,
        title,
        bfloat16,
        bfloat16,
        gigabytes * _GB,
        f"Google Cloud, {title} system architecture, one chip",
        kinds,
        memory * _GB,
        ici / 2 * _GB,
        usable_bytes=int(usable_gib * 2**30),
    )


ACCELERATORS: dict[str, Accelerator] = {
    one.name: one
    for one in (
        _nvidia(
            "a100", "A100 80GB", 312e12, 156e12, 80, "NVIDIA A100-SXM4-80GB",
            memory=2039, nvlink=600, network_gigabits=200, capability=(8, 0),
        ),
        _nvidia(
            "a100-40", "A100 40GB", 312e12, 156e12, 40, "NVIDIA A100-SXM4-40GB",
            memory=1555, nvlink=600, network_gigabits=200, capability=(8, 0),
        ),
        _nvidia(
            "h100", "H100", 989e12, 494.5e12, 80, "NVIDIA H100 80GB HBM3",
            memory=3350, nvlink=900, network_gigabits=400, capability=(9, 0),
        ),
        _nvidia(
            "h200", "H200", 989e12, 494.5e12, 141, "NVIDIA H200", "NVIDIA H200 141GB HBM3e",
            memory=4800, nvlink=900, network_gigabits=400, capability=(9, 0),
        ),
        _nvidia(
            "b200", "B200", 2250e12, 1125e12, 180, "NVIDIA B200",
            memory=8000, nvlink=1800, network_gigabits=400, capability=(10, 0),
        ),
        _nvidia(
            "gb200", "GB200", 2500e12, 1250e12, 186, "NVIDIA GB200",
            memory=8000, nvlink=1800, network_gigabits=400, capability=(10, 0),
        ),
        _tpu("v4", 275e12, 32, "TPU v4", memory=1200, ici=600, usable_gib=30.75),
        _tpu("v5e", 197e12, 16, "TPU v5 lite", "TPU v5e", memory=819, ici=400, usable_gib=15.75),
        _tpu("v5p", 459e12, 95, "TPU v5", "TPU v5p", memory=2765, ici=1200, usable_gib=95.74),
        _tpu("v6e", 918e12, 32, "TPU v6 lite", "TPU v6e", memory=1638, ici=800, usable_gib=31.25),
    )
}  # fmt: skip


def by_name(name: str) -> Accelerator:
    """The accelerator called `name`. Raises `UserError` that names the nearest."""
    if name.lower() not in ACCELERATORS:
        raise UserError(f"no device is called {name!r}{nearest(name, ACCELERATORS)}")
    return ACCELERATORS[name.lower()]


def by_jax_kind(kind: str) -> Accelerator | None:
    """The accelerator that JAX calls `kind`; None for one that is not listed."""
    return next((one for one in ACCELERATORS.values() if kind in one.jax_kinds), None)
