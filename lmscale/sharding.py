"""Where arrays live: one mesh, and the rules that map logical axis names onto it."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lmscale.config import MeshConfig, ModelConfig, check
from lmscale.model import parameter_table

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "hidden": "tensor",
    "layers": None,
}
"""Logical axis -> mesh axis (None: on every device)."""


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of the first `config.devices` devices. Raises `UserError` when there are fewer."""
    have = jax.device_count()
    data = have // (config.fsdp * config.tensor)
    check(
        config.devices <= have,
        f"the mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} takes {config.devices} devices, "
        f"but there are {have}; " + (f"take data={data}" if data else f"take fsdp x tensor of at most {have}"),
    )
    # Explicit axes are JAX's default; the model leaves the placement of activations to the compiler.
    return jax.make_mesh(
        (config.data, config.fsdp, config.tensor),
        MESH_AXES,
        axis_types=(AxisType.Auto,) * len(MESH_AXES),
        devices=jax.devices()[: config.devices],
    )


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """The partition of an array with these logical axes."""
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def parameter_shardings(config: ModelConfig, mesh: Mesh) -> dict[str, NamedSharding]:
    """One sharding per parameter. Raises `UserError` where a dimension does not divide over its mesh axis."""
    table = parameter_table(config)
    for name, row in table.items():
        for size, axis in zip(row.shape, row.axes):
            over = RULES[axis] if axis else None
            devices = mesh.shape[over] if isinstance(over, str) else 1
            check(
                size % devices == 0,
                f"parameter {name}: {axis} = {size} does not divide over {over} = {devices} devices; "
                f"take {over} = {_largest_divisor(size, devices)}",
            )
    return {name: NamedSharding(mesh, spec(row.axes)) for name, row in table.items()}


def _largest_divisor(size: int, at_most: int) -> int:
    return max(d for d in range(1, at_most + 1) if size % d == 0)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch [B, ...] over the data and fsdp axes."""
    return NamedSharding(mesh, spec(("batch",)))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same values on every device."""
    return NamedSharding(mesh, PartitionSpec())
