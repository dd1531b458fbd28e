"""What XLA must know of a GPU to compile for it where there is none: its description as text.

The facts are those that XLA itself lists (openxla/xla, xla/backends/gpu/target_config/specs) and NVIDIA's CUDA
programming guide states as limits of each compute capability. Only fields that every supported XLA reads are written.
"""

import re
from pathlib import Path
from typing import NamedTuple

from lmscale.core.accelerators import ACCELERATORS, by_jax_kind
from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import read_bytes, refusal

CUDNN = (9, 10, 0)
"""The version of cuDNN that is assumed to run the program."""
LARGEST = 2**20
"""Bytes of a description, at most: one is some 5 kB."""


class _Gpu(NamedTuple):
    """Facts of a GPU as XLA names them."""

    core_count: int
    fpus_per_core: int
    shared_memory_per_core: int
    shared_memory_per_block_optin: int
    memory_bandwidth: int
    l2_cache_size: int
    clock_rate_ghz: float
    device_memory_size: int


_GPUS = {
    "a100": _Gpu(108, 64, 167_936, 166_912, 2_039_040_000_000, 41_943_040, 1.41, 85_100_068_864),
    "a100-40": _Gpu(108, 64, 167_936, 166_912, 1_555_200_000_000, 41_943_040, 1.41, 42_331_013_120),
    "h100": _Gpu(132, 128, 233_472, 232_448, 3_352_320_000_000, 52_428_800, 1.98, 84_942_979_072),
    "h200": _Gpu(132, 128, 233_472, 232_448, 4_800_000_000_000, 52_428_800, 1.98, 151_397_597_184),
    "b200": _Gpu(148, 128, 233_472, 232_448, 7_672_320_000_000, 132_644_864, 1.965, 191_514_411_008),
    "gb200": _Gpu(152, 128, 233_472, 232_448, 7_928_064_000_000, 135_528_448, 2.062, 197_897_748_480),
}
_LIMITS = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49_152,
    "threads_per_core_limit": 2048,
    "block_dim_limit_x": 2_147_483_647,
    "block_dim_limit_y": 65_535,
    "block_dim_limit_z": 65_535,
    "registers_per_core_limit": 65_536,
    "registers_per_block_limit": 65_536,
}
"""What XLA must know of a GPU that is alike for every compute capability from 8.0 on."""


def target_text(name: str) -> str:
    """XLA's description of the GPU called `name` in `accelerators`."""
    accelerator, gpu = ACCELERATORS[name], _GPUS[name]
    assert accelerator.compute_capability is not None
    major, minor = accelerator.compute_capability
    fields = {**_LIMITS, **gpu._asdict()}
    lines = [f"  {field}: {value}" for field, value in fields.items()]
    features = " feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    minor_text = f" minor: {minor}" if minor else ""
    lines.append(f"  cuda_compute_capability {{ major: {major}{minor_text}{features} }}")
    cudnn = "major: {} minor: {} patch: {}".format(*CUDNN)
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            "}",
            'platform_name: "CUDA"',
            f"dnn_version_info {{ {cudnn} }}",
            f'device_description_str: "{accelerator.jax_kinds[0]}"',
            "",
        ]
    )


def described(file: Path) -> tuple[str, str]:
    """The name of the GPU that a file describes, ours where we know it, and the description.

    Raises `UserError` for a file that is not there or is no description of an NVIDIA GPU; whether this version of XLA
    reads it shows when it does.
    """
    try:
        raw = read_bytes(file)
        text = raw.decode()
    except OSError as error:
        raise refusal(error) from None
    except UnicodeDecodeError:
        text = ""
    check(
        len(raw) <= LARGEST and "gpu_device_info" in text,
        f"{file} describes no GPU: give the text of XLA's GpuTargetConfigProto, which begins with gpu_device_info "
        f"(XLA_FLAGS=--xla_dump_to=FOLDER writes it beside the programs of a machine that has the GPU)",
    )
    platform = re.search(r'platform_name:\s*"([^"]*)"', text)
    if platform is None or platform[1] != "CUDA":
        raise UserError(
            f"{file} describes a device of platform {platform[1] if platform else 'unknown'!r}: only NVIDIA's, "
            f'platform_name: "CUDA", can be compiled for'
        )
    kind = re.search(r'device_description_str:\s*"([^"]*)"', text)
    known = by_jax_kind(kind[1]) if kind else None
    return (known.name if known else (kind[1] if kind else file.stem)), text


def capability(target: str) -> tuple[int, int] | None:
    """The compute capability in a description."""
    block = re.search(r"cuda_compute_capability\s*\{([^}]*)\}", target)
    if block is None:
        return None
    numbers = dict(re.findall(r"(major|minor):\s*(\d+)", block[1]))
    return int(numbers.get("major", 0)), int(numbers.get("minor", 0))


def memory_bytes(target: str) -> int | None:
    """Memory of the GPU in a description."""
    size = re.search(r"device_memory_size:\s*(\d+)", target)
    return int(size[1]) if size else None
