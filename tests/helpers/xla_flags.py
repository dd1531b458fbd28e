"""How XLA compiles what tests run, in this process and in those that it starts."""

import os
from importlib.metadata import version

from packaging.version import Version

HASTE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
"""For the CPU, in a tenth of the time: tests compile for longer than they compute. Results differ by rounding alone."""
if Version(version("jaxlib")) < Version("0.11"):  # later ones have no such flag, and XLA aborts on one it does not know
    HASTE += " --xla_cpu_use_fusion_emitters=false"


def set_in_environment() -> None:
    """`HASTE` in XLA_FLAGS, unless that is set: with `XLA_FLAGS= pytest ...` tests see what users see."""
    os.environ.setdefault("XLA_FLAGS", HASTE)


def simulated_devices(devices: int, flags: str | None = None) -> dict[str, str]:
    """The environment of a process with so many devices, and with the `flags` of this process or others."""
    others = os.environ.get("XLA_FLAGS", "") if flags is None else flags
    count = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{others} {count}".strip()}
