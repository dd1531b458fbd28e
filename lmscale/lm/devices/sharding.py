"""How arrays are sharded: one mesh, and the rules that map logical axis names onto it."""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lmscale.core.config import MeshConfig, check

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
    "hidden": "tensor",
    "experts": "expert",
    "layers": None,
}
"""Logical axis -> mesh axis (None: on every device). Parameters are sharded over fsdp, tensor and expert, activations
over all but tensor and, between the two matrix products of attention or MLP, over tensor."""

Axes = tuple[str | None, ...]
"""One logical name per axis of an array; None is an axis that is never cut."""


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of the first `config.devices` devices of all processes. Raises `UserError` when there are fewer."""
    have, names = jax.device_count(), [axis for axis in MESH_AXES if axis != "expert" or config.expert > 1]
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
    # Explicit axes are JAX's default; the model leaves the placement of activations to the compiler.
    return jax.make_mesh(
        tuple(getattr(config, axis) for axis in names),
        tuple(names),
        axis_types=(AxisType.Auto,) * len(names),
        devices=jax.devices()[: config.devices],
    )


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
