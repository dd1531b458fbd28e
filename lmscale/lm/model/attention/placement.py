"""What attention asks of the mesh: a fused kernel for each device's own part of batch and heads."""

from collections.abc import Callable

import jax

from lmscale.lm.devices.sharding import mesh_axis_size, spec


def divides(batch: int, kv_heads: int) -> bool:
    """Whether batch and heads divide evenly over the mesh that is set, so that each device can do its own."""
    return batch % (mesh_axis_size("data") * mesh_axis_size("fsdp")) == 0 and kv_heads % mesh_axis_size("tensor") == 0


def on_each_device(attend: Callable[..., jax.Array], *arrays: jax.Array | None) -> jax.Array:
    """`attend` of each device's own part of arrays [B, T, H, K] and [B, T]; the result is like the first.

    The compiler does not cut a hand-written kernel by itself. See `divides`; the time axis must be whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attend(*arrays)
    four, two = spec(("batch", None, "heads", None)), spec(("batch", None))
    specs = tuple(four if x is not None and x.ndim == 4 else two for x in arrays)
    # A Pallas call does not say what varies over the mesh, so the check would refuse it.
    return jax.shard_map(attend, in_specs=specs, out_specs=four, check_vma=False)(*arrays)
