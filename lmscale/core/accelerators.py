"""Accelerators by name, as their makers describe them. A run reaches a share of these peaks (`utilisation`).

Peaks are dense matrix products, without structured sparsity. "float32" is what JAX computes float32 products in by
default: TF32 on NVIDIA's, bfloat16 passes on Google's.
"""

from dataclasses import dataclass

from lmscale.core.errors import UserError, nearest

_GB = 10**9


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
    """Its names in JAX: `jax.devices()[0].device_kind`."""

    def flops_per_second(self, dtype: str) -> float:
        """The peak in `dtype`."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


def _nvidia(name: str, title: str, bfloat16: float, tf32: float, gigabytes: float, *kinds: str) -> Accelerator:
    return Accelerator(name, title, bfloat16, tf32, gigabytes * _GB, f"NVIDIA, {title} data sheet, SXM module", kinds)


def _tpu(name: str, bfloat16: float, gigabytes: float, *kinds: str) -> Accelerator:
    title = f"TPU {name}"
    return Accelerator(
        name, title, bfloat16, bfloat16, gigabytes * _GB, f"Google Cloud, {title} system architecture, one chip", kinds
    )


ACCELERATORS: dict[str, Accelerator] = {
    one.name: one
    for one in (
        _nvidia("a100", "A100 80GB", 312e12, 156e12, 80, "NVIDIA A100-SXM4-80GB"),
        _nvidia("h100", "H100", 989e12, 494.5e12, 80, "NVIDIA H100 80GB HBM3"),
        _nvidia("h200", "H200", 989e12, 494.5e12, 141, "NVIDIA H200"),
        _nvidia("b200", "B200", 2250e12, 1125e12, 180, "NVIDIA B200"),
        _tpu("v4", 275e12, 32, "TPU v4"),
        _tpu("v5e", 197e12, 16, "TPU v5 lite", "TPU v5e"),
        _tpu("v5p", 459e12, 95, "TPU v5", "TPU v5p"),
        _tpu("v6e", 918e12, 32, "TPU v6 lite", "TPU v6e"),
    )
}


def by_name(name: str) -> Accelerator:
    """The accelerator called `name`. Raises `UserError` that names the nearest."""
    if name.lower() not in ACCELERATORS:
        raise UserError(f"no device is called {name!r}{nearest(name, ACCELERATORS)}")
    return ACCELERATORS[name.lower()]
