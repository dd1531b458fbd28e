"""How arrays are sharded: one mesh, and the rules that map logical axis names onto it."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lmscale.core.config import MeshConfig, check

MESH_AXES = ("data", "fsdp", "tensor", "sequence")

RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "time": "sequence",
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "hidden": "tensor",
    "layers": None,
}
"""Logical axis -> mesh axis (None: on every device). Parameters are sharded over fsdp and tensor, activations over
the rest and, between the two matrix products of attention or MLP, over tensor."""

Axes = tuple[str | None, ...]
"""One logical name per axis of an array; None is an axis that is never cut."""


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of the first `config.devices` devices of all processes. Raises `UserError` when there are fewer."""
    have = jax.device_count()
    inner = config.fsdp * config.tensor * config.sequence
    axes = " x ".join(f"{axis}={getattr(config, axis)}" for axis in MESH_AXES)
    check(
        config.devices <= have,
        f"the mesh {axes} takes {config.devices} devices, but there are {have}; "
        + (f"take data={have // inner}" if inner <= have else f"take fsdp x tensor x sequence of at most {have}"),
    )
    processes = jax.process_count()
    check(
        processes == 1 or config.devices == have,
        f"the mesh {axes} takes {config.devices} of the {have} devices of {processes} processes; "
        f"every device must be part of the mesh: take data={max(1, have // inner)}",
    )
    # Explicit axes are JAX's default; the model leaves the placement of activations to the compiler.
    return jax.make_mesh(
        tuple(getattr(config, axis) for axis in MESH_AXES),
        MESH_AXES,
        axis_types=(AxisType.Auto,) * len(MESH_AXES),
        devices=jax.devices()[: config.devices],
    )


def spec(axes: Axes) -> PartitionSpec:
    """The partition of an array with these logical axes."""
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x`, constrained to these logical axes on the mesh of `jax.set_mesh`; untouched where none is set."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes))


def mesh_axis_size(axis: str) -> int:
    """Devices along `axis` of the mesh of `jax.set_mesh`; 1 where none is set."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1)


def shardings(arrays: dict[str, tuple[tuple[int, ...], Axes]], mesh: Mesh) -> dict[str, NamedSharding]:
    """Name -> sharding of arrays given as (shape, logical axes).

    Raises `UserError` where a dimension does not divide over its mesh axis.
    """
    for name, (shape, axes) in arrays.items():
        for size, axis in zip(shape, axes):
            over = RULES[axis] if axis else None
            devices = mesh.shape[over] if isinstance(over, str) else 1
            check(
                size % devices == 0,
                f"parameter {name}: {axis} = {size} does not divide over {over} = {devices} devices; "
                f"take {over} = {_largest_divisor(size, devices)}",
            )
    return {name: NamedSharding(mesh, spec(axes)) for name, (_, axes) in arrays.items()}


def _largest_divisor(size: int, at_most: int) -> int:
    return max(d for d in range(1, at_most + 1) if size % d == 0)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch [B, ...] over the data and fsdp axes."""
    return NamedSharding(mesh, spec(("batch",)))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
