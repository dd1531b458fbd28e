"""A fused attention kernel on a mesh: each device computes its own share of batch and heads."""

from collections.abc import Callable

import jax

from lmscale.lm.devices.sharding import batch_devices, mesh_axis_size, spec


def divides(batch: int, kv_heads: int) -> bool:
    """Whether batch and heads divide evenly over the current mesh, as `on_each_device` needs."""
    return batch % batch_devices() == 0 and kv_heads % mesh_axis_size("tensor") == 0


def on_each_device(attend: Callable[..., jax.Array], *arrays: jax.Array | None) -> jax.Array:
    """`attend` on each device's share of arrays [B, T, H, K] and [B, T]; the result is shaped like the first.

    The compiler does not divide a hand-written kernel by itself. Needs `divides`; time must not be divided.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attend(*arrays)
    four, two = spec(("batch", None, "heads", None)), spec(("batch", None))
    specs = tuple(four if x is not None and x.ndim == 4 else two for x in arrays)
    # A Pallas call does not say what varies over the mesh, so the check would refuse it.
    return jax.shard_map(attend, in_specs=specs, out_specs=four, check_vma=False)(*arrays)
