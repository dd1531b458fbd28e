"""Devices of a machine that is not here, which programs can be compiled for and not run on.

XLA describes a TPU slice from its name and a GPU from the text of its facts; neither needs a driver
(`jax.experimental.topologies`, JAX 0.10 to 0.12).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from lmscale.core.errors import UserError
from lmscale.core.extras import installed
from lmscale.core.machines import Machine
from lmscale.core.machines.gpu_targets import capability
from lmscale.lm.devices.sharding import platform
from lmscale.lm.model.attention.cudnn import DESCRIBED

ONE_CHIP = (1, 1, 1)
CHIPS_PER_HOST = (2, 2, 1)
"""Chips per host of every slice that has more than one chip."""
MEGACORE = {"chip_config_name": "megacore"}
"""Makes one device of the two cores of a chip, as on Google Cloud's hosts, where libtpu does not do so by itself."""


def compile_only_devices(machine: Machine) -> list[Any]:
    """The devices of `machine`, in JAX's order. Raises `UserError` where XLA does not know it or its description."""
    if machine.platform == "gpu":
        devices = _described(
            machine, platform="cuda", topology_name="", topology=machine.topology, target_config=machine.target
        )
    else:
        bounds = ONE_CHIP if machine.devices == 1 else CHIPS_PER_HOST
        name = f"{machine.device}:{machine.topology}"
        devices = _described(machine, platform="tpu", topology_name=name, chips_per_host_bounds=bounds)
        if len(devices) == 2 * machine.devices:
            devices = _described(machine, platform="tpu", topology_name=name, chips_per_host_bounds=bounds, **MEGACORE)
    if len(devices) != machine.devices:
        raise UserError(
            f"this version of XLA sees {len(devices)} devices in {machine.name}, which has {machine.devices}; install "
            f"the versions that belong together with pip install --upgrade 'lmscale[{machine.extra}]'"
        )
    return devices


def _described(machine: Machine, **options: Any) -> list[Any]:
    """The devices of a topology. Raises `UserError` where XLA refuses it."""
    from jax.experimental import topologies

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of plugins for other devices
        try:
            return list(topologies.get_topology_desc(**options).devices)
        except (RuntimeError, ValueError, NotImplementedError, KeyError) as error:
            raise _refused(machine, error) from error


def _refused(machine: Machine, error: Exception) -> UserError:
    """The sentence for a machine that XLA does not describe."""
    reason = str(error).strip().splitlines()[0][:240] if str(error).strip() else type(error).__name__
    if machine.platform == "gpu" and ("pars" in reason.lower() or "target_config" in reason or "proto" in reason):
        return UserError(
            f"the description of {machine.device} is not one that this XLA reads (jaxlib {installed('jaxlib')}: "
            f"{reason}): it is of another version; write it again with this one, or name a machine, h100x8 say"
        )
    return UserError(
        f"JAX {jax.__version__} cannot compile for {machine.name} ({reason}); install the versions that belong "
        f"together with pip install --upgrade 'lmscale[{machine.extra}]'"
    )


def check_traced_for(machine: Machine, mesh: Mesh) -> None:
    """Raise `UserError` where a program under `jax.set_mesh(mesh)` would not be told the devices that it is for."""
    with jax.set_mesh(mesh):
        traced_for = platform()
    if traced_for != machine.platform:
        raise UserError(
            f"JAX {jax.__version__} does not tell a program that it is compiled for {machine.name}, so that it would "
            f"take the kernels of this machine; install jax 0.10.2 or later"
        )


@contextmanager
def cudnn_of(machine: Machine) -> Iterator[None]:
    """Within the block JAX asks the machine that is compiled for, not this one, what its cuDNN can do.

    `check_is_flash_attention` in jax/_src/cudnn/fused_attention_stablehlo.py (JAX 0.10.2) asks the GPU that is here;
    without one it refuses heads of more than 128 features, which a Hopper GPU has kernels for.
    """
    if machine.platform != "gpu" or (target := capability(machine.target)) is None:
        yield
        return
    DESCRIBED[machine.device] = target
    try:
        from jax._src.cudnn import fused_attention_stablehlo as cudnn
    except ImportError:  # another JAX, whose own answer then stands
        yield
        return

    def number(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split("."))

    answers = {
        "check_compute_capability": lambda least: target >= number(least),
        "is_cuda_compute_capability_equal": lambda exact: target == number(exact),
    }
    before = {name: getattr(cudnn, name) for name in answers if hasattr(cudnn, name)}
    try:
        for name in before:
            setattr(cudnn, name, answers[name])
        yield
    finally:
        for name, function in before.items():
            setattr(cudnn, name, function)
