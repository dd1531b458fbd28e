"""How arrays are sharded: one mesh, and the rules that map logical axis names onto it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from lmscale.core.accelerators import by_jax_kind
from lmscale.core.config import MeshConfig, check
from lmscale.core.errors import UserError

MESH_AXES = ("data", "fsdp", "expert", "tensor", "sequence")
"""In the order in which they divide the devices. A mesh that does not divide experts has no axis of that name, so that
programs of models without experts stay what they are."""

BATCH_AXES = ("data", "fsdp", "expert")

RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": BATCH_AXES,
    "expert_batch": ("data", "fsdp"),
    "time": "sequence",
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "heads_in_kernel": ("tensor", "sequence"),
    "hidden": "tensor",
    "experts": "expert",
    "layers": None,
}
"""Logical axis -> mesh axis (None: on every device). Parameters are sharded over fsdp, tensor and expert, activations
over all but tensor and, between the two matrix products of attention or MLP, over tensor."""

Axes = tuple[str | None, ...]
"""One logical name per axis of an array; None is an axis that is never cut."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of the first `config.devices` devices of all processes, or of `devices`, which need not be here.

    Raises `UserError` when there are fewer.
    """
    have = jax.device_count() if devices is None else len(devices)
    names = [axis for axis in MESH_AXES if axis != "expert" or config.expert > 1]
    inner = config.devices // config.data
    axes = " x ".join(f"{axis}={getattr(config, axis)}" for axis in names)
    check(
        config.devices <= have,
        f"the mesh {axes} takes {config.devices} devices, but there are {have}; "
        + (f"take data={have // inner}" if inner <= have else f"take {' x '.join(names[1:])} of at most {have}"),
    )
    processes = jax.process_count()
    check(
        processes == 1 or config.devices == have,
        f"the mesh {axes} takes {config.devices} of the {have} devices of {processes} processes; "
        f"every device must be part of the mesh: take data={max(1, have // inner)}",
    )
    chosen = list(jax.devices() if devices is None else devices)[: config.devices]
    grid = _grid(tuple(getattr(config, axis) for axis in names), chosen)
    # Explicit axes are JAX's default; the model leaves the placement of activations to the compiler.
    return Mesh(grid, tuple(names), axis_types=(AxisType.Auto,) * len(names))


def _grid(shape: tuple[int, ...], devices: list[jax.Device]) -> NDArray[Any]:
    """The devices in the order in which neighbours on an axis of the mesh are neighbours in the machine.

    As `jax.make_mesh`, which refuses GPUs of several hosts, and meshes whose axes are parts of the axes of a TPU slice
    (JAX 0.10.2). Raises `UserError` for TPUs that are no rectangle of their slice.
    """
    if devices[0].platform in ("gpu", "cuda"):
        return np.array(sorted(devices, key=lambda device: device.id)).reshape(shape)
    if devices[0].platform != "tpu":
        return np.array(devices).reshape(shape)
    from jax.experimental import mesh_utils

    try:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    except (AssertionError, NotImplementedError, ValueError) as error:
        raise UserError(
            f"a mesh of {' x '.join(map(str, shape))} does not lie in a TPU slice, of which it takes {len(devices)} "
            f"devices ({str(error).splitlines()[0][:160] if str(error) else 'no rectangle'}); take all devices of the "
            f"slice, or axes that are powers of two"
        ) from None


PLATFORMS = {"cuda": "gpu", "rocm": "gpu"}
"""What JAX calls a device whose compiler has a name of its own."""


def platform() -> str:
    """The kind of device that the program is for which is now traced: "cpu", "gpu" or "tpu".

    That of the mesh of `jax.set_mesh`, whose devices need not be in this machine; without one that of this process.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend()
    name = getattr(device, "platform", None)
    if name is None:  # JAX 0.10.0 tells the kind alone
        accelerator = by_jax_kind(device.device_kind)
        return jax.default_backend() if accelerator is None else accelerator.platform
    return PLATFORMS.get(name, name)


def spec(axes: Axes, mesh: Mesh | None = None) -> PartitionSpec:
    """The partition of an array with these logical axes on `mesh`, or on that of `jax.set_mesh`."""
    return PartitionSpec(*(None if axis is None else _mesh_axes(axis, mesh) for axis in axes))


def _mesh_axes(axis: str, mesh: Mesh | None) -> str | tuple[str, ...] | None:
    """Mesh axes of a logical axis: its rule, without the expert axis where the mesh has none."""
    over = RULES[axis]
    if mesh_axis_size("expert", mesh) > 1 or over is None:
        return over
    if isinstance(over, str):
        return None if over == "expert" else over
    return tuple(name for name in over if name != "expert")


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x`, constrained to these logical axes on the mesh of `jax.set_mesh`; untouched where none is set."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes))


def mesh_axis_size(axis: str, mesh: Mesh | None = None) -> int:
    """Devices along `axis` of `mesh`, or of that of `jax.set_mesh`; 1 where there is none."""
    return (jax.sharding.get_abstract_mesh() if mesh is None else mesh).shape.get(axis, 1)


def batch_devices(mesh: Mesh | None = None) -> int:
    """Devices that the rows of a batch are divided over, on `mesh` or on that of `jax.set_mesh`."""
    return math.prod(mesh_axis_size(axis, mesh) for axis in BATCH_AXES)


def shardings(arrays: dict[str, tuple[tuple[int, ...], Axes]], mesh: Mesh) -> dict[str, NamedSharding]:
    """Name -> sharding of arrays given as (shape, logical axes).

    Raises `UserError` where a dimension does not divide over its mesh axis.
    """
    for name, (shape, axes) in arrays.items():
        for size, axis in zip(shape, axes):
            over = _mesh_axes(axis, mesh) if axis else None
            devices = mesh.shape[over] if isinstance(over, str) else 1
            check(
                size % devices == 0,
                f"parameter {name}: {axis} = {size} does not divide over {over} = {devices} devices; "
                f"take {over} = {_largest_divisor(size, devices)}",
            )
    return {name: NamedSharding(mesh, spec(axes, mesh)) for name, (_, axes) in arrays.items()}


def _largest_divisor(size: int, at_most: int) -> int:
    return max(d for d in range(1, at_most + 1) if size % d == 0)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch [B, ...] over the axes of data."""
    return NamedSharding(mesh, spec(("batch",), mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
