"""Names of machines, and what XLA calls each: v5e-16, v5p-128, v6e-8, h100x8, a100-80x4, gb200x72.

The number behind a TPU is that of Google Cloud: chips of a v5e and a v6e, TensorCores, two to a chip, of a v4 and a
v5p. The number behind a GPU counts GPUs. A machine is one slice of TPUs, or hosts of GPUs of one kind.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from lmscale.core.accelerators import ACCELERATORS, Accelerator
from lmscale.core.config import check
from lmscale.core.errors import UserError, nearest
from lmscale.core.machines.gpu_targets import described, target_text

TPU_NAME = re.compile(r"(v4|v5e|v5litepod|v5p|v6e)-(\d+)")
GPU_NAME = re.compile(r"([a-z]+\d+(?:-\d+)?)(?:x(\d+))?")
FILE_NAME = re.compile(r"(.+\.(?:txtpb|pbtxt|textproto))(?::(\d+))?", re.IGNORECASE)
ALIASES = {"v5litepod": "v5e", "a100-80": "a100"}
EXAMPLES = "v5e-16, v5p-128, v6e-8, h100x8, a100-80x4, h200x8, b200x8 or gb200x72"

FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBES = {
    8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8", 512: "4x8x8", 1024: "8x8x8",
    2048: "8x8x16", 4096: "8x16x16",
}  # fmt: skip
"""Slices that Google Cloud rents, by the number in their name (Google Cloud, "TPU configurations")."""
SLICES = {"v4": CUBES, "v5p": {**CUBES, 8192: "16x16x16"}, "v5e": FLAT, "v6e": FLAT}
CORES_PER_CHIP = {"v4": 2, "v5p": 2}
"""TensorCores per chip of the kinds whose names count them; to JAX both cores of a chip are one device."""
HOST_CHIPS = {"v4": 4, "v5p": 4, "v5e": 8, "v6e": 8}
"""Chips that one host has at most; slices of more than that have hosts of four."""
SMALL_HOST_CHIPS = 4

GPUS = tuple(name for name, one in ACCELERATORS.items() if one.platform == "gpu")
GPUS_PER_HOST = {"gb200": 4}
USUAL_GPUS_PER_HOST = 8
LINKED_HOSTS = {"gb200": 18}
"""Hosts that NVLink joins: an NVL72 rack. Elsewhere it ends at the host."""
MOST_GPUS = 2**14
"""As many as Llama 3 was trained on (Grattafiori 2024, arXiv 2407.21783): a larger number is a typing error."""


@dataclass(frozen=True)
class Machine:
    """Accelerators of one kind that a run can take together."""

    name: str
    device: str
    """The accelerator's name in `accelerators`; of a GPU that a file describes, its own name."""
    devices: int
    hosts: int
    topology: str
    """The grid of TPUs, "4x4"; for GPUs what NVLink joins x hosts of that x GPUs of a host, "1x1x8"."""
    linked: int
    """Devices that fast links join; between such groups there is the network."""
    target: str = field(default="", repr=False)
    """XLA's description of the GPU as text; empty for a TPU."""

    @property
    def platform(self) -> Literal["gpu", "tpu"]:
        """JAX's name for the kind of device: "tpu" or "gpu"."""
        return "gpu" if self.target else "tpu"

    @cached_property
    def accelerator(self) -> Accelerator | None:
        """The peaks of one device; None for a GPU that only a file describes."""
        return ACCELERATORS.get(self.device)

    @property
    def device_slug(self) -> str:
        """A part of a file name: "h100x8"."""
        return re.sub(r"[^A-Za-z0-9]+", "-", f"{self.device}x{self.devices}").strip("-").lower()

    @property
    def extra(self) -> str:
        """The extra of this package that brings its compiler."""
        return "cuda" if self.platform == "gpu" else "tpu"

    def check_mesh(self, devices: int, axes: str) -> None:
        """Raise `UserError` where a run that takes `devices` devices does not fit."""
        check(
            devices <= self.devices,
            f"the mesh {axes} takes {devices} devices, but {self.name} has {self.devices}; take a smaller mesh, or "
            f"compile for {self.at_least(devices)}",
        )

    def at_least(self, devices: int) -> str:
        """The name of the smallest machine of this kind with so many devices, or of the largest there is."""
        if self.platform == "tpu":
            cores = CORES_PER_CHIP.get(self.device, 1)
            sizes = [number for number in SLICES[self.device] if number // cores >= devices]
            return f"{self.device}-{min(sizes)}" if sizes else f"{self.device}-{max(SLICES[self.device])}"
        per_host = GPUS_PER_HOST.get(self.device, USUAL_GPUS_PER_HOST)
        count = devices if devices <= per_host else -(-devices // per_host) * per_host
        return f"{self.device}x{count}"


def machine(name: str) -> Machine:
    """The machine called `name`, or GPUs that a file describes: FILE.txtpb, FILE.txtpb:8.

    Raises `UserError` that names the nearest for a name that is none, for a size that is not rented, and for a file
    that cannot be read or describes no NVIDIA GPU.
    """
    if file := FILE_NAME.fullmatch(name):
        device, text = described(Path(file[1]))
        return _gpus(name, device, int(file[2] or 1), text)
    lower = name.strip().lower()
    if tpu := TPU_NAME.fullmatch(lower):
        return _slice(name, ALIASES.get(tpu[1], tpu[1]), int(tpu[2]))
    if (gpu := GPU_NAME.fullmatch(lower)) and (kind := ALIASES.get(gpu[1], gpu[1])) in GPUS:
        return _gpus(lower, kind, int(gpu[2] or 1), target_text(kind))
    raise UserError(f"no machine is called {name!r}{_suggestion(lower)}; names are like {EXAMPLES}")


def _slice(name: str, device: str, number: int) -> Machine:
    """A slice of TPUs. Raises `UserError` for a size that is not rented."""
    grids = SLICES[device]
    if number not in grids:
        near = sorted(grids, key=lambda size: (abs(size - number), size))[:2]
        nearby = " and ".join(f"{device}-{size}" for size in sorted(near))
        counted = "TensorCores, two to a chip" if device in CORES_PER_CHIP else "chips"
        raise UserError(
            f"there is no machine {name!r}: {device} is rented in {', '.join(map(str, grids))} {counted}; the "
            f"nearest are {nearby}"
        )
    chips = number // CORES_PER_CHIP.get(device, 1)
    hosts = 1 if chips <= HOST_CHIPS[device] else chips // SMALL_HOST_CHIPS
    return Machine(f"{device}-{number}", device, chips, hosts, grids[number], chips)


def _gpus(name: str, device: str, count: int, target: str) -> Machine:
    """GPUs of one kind: some of one host, or whole hosts. Raises `UserError` for a number that is neither."""
    per_host = GPUS_PER_HOST.get(device, USUAL_GPUS_PER_HOST)
    group = per_host * LINKED_HOSTS.get(device, 1)
    stem = re.sub(r"(:|x)\d+$", "", name)
    sign = ":" if FILE_NAME.fullmatch(name) else "x"
    whole = count <= per_host or (count <= group and count % per_host == 0) or count % group == 0
    if not (1 <= count <= MOST_GPUS and whole):
        step = group if count > group else per_host
        near = min(MOST_GPUS, max(1, round(count / step) * step))
        raise UserError(
            f"there is no machine {name!r}: GPUs of the kind {device} stand {per_host} to a host"
            + (f" and {group} to an NVLink rack" if group > per_host else "")
            + f", and a run takes 1 to {per_host} or whole ones, at most {MOST_GPUS:,}; the nearest is "
            f"{stem}{sign}{near}"
        )
    hosts = -(-count // per_host)
    joined = min(count, group)
    topology = f"{count // joined}x{-(-joined // per_host)}x{min(count, per_host)}"
    return Machine(f"{stem}{sign}{count}", device, count, hosts, topology, joined, target)


def _suggestion(name: str) -> str:
    """The nearest machine: of that kind where the kind is known, whatever stands before or behind it."""
    for kind in sorted([*ACCELERATORS, *ALIASES], key=len, reverse=True):
        if kind in name:
            rest = [int(number) for number in re.findall(r"\d+", name.replace(kind, "", 1)) if int(number)]
            device = ALIASES.get(kind, kind)
            if device in GPUS:
                return f"; did you mean '{device}x{rest[-1] if rest else USUAL_GPUS_PER_HOST}'?"
            sizes = SLICES[device]
            size = min(sizes, key=lambda size: abs(size - rest[-1])) if rest else min(sizes)
            return f"; did you mean '{device}-{size}'?"
    known = [f"{device}-{size}" for device, sizes in SLICES.items() for size in sizes] + [f"{kind}x8" for kind in GPUS]
    close = nearest(name, known)
    return close if "did you mean" in close else ""
