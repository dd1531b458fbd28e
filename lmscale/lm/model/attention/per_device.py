"""A fused attention kernel on a mesh: each device computes its own share of batch and heads.

Where the mesh divides time too, a kernel still sees all of it: heads are divided over the axes tensor and sequence
together, and the devices exchange time for heads before and after (DeepSpeed-Ulysses, Jacobs 2023, section 3). Fewer
heads of keys and values than that are repeated.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lmscale.lm.devices.sharding import batch_devices, constrain, mesh_axis_size, spec


def divides(batch: int, heads: int, kv_heads: int) -> bool:
    """Whether batch and heads divide evenly over the current mesh, as `on_each_device` needs."""
    parts = _parts()
    repeatable = mesh_axis_size("sequence") > 1 and parts % kv_heads == 0 and heads % parts == 0
    return batch % batch_devices() == 0 and (kv_heads % parts == 0 or repeatable)


def _parts() -> int:
    """Devices that heads are divided over while a kernel runs."""
    return mesh_axis_size("tensor") * mesh_axis_size("sequence")


def on_each_device(attend: Callable[..., jax.Array], *arrays: jax.Array | None) -> jax.Array:
    """`attend` on each device's share of arrays [B, T, H, K] and [B, T]; the result is shaped like the first.

    The compiler does not divide a hand-written kernel by itself. Needs `divides`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attend(*arrays)
    four, two = spec(("batch", None, "heads_in_kernel", None)), spec(("batch", None))
    specs = tuple(four if x is not None and x.ndim == 4 else two for x in arrays)
    # A Pallas call does not say what varies over the mesh, so the check would refuse it.
    output_BTHK = jax.shard_map(attend, in_specs=specs, out_specs=four, check_vma=False)(*map(_enough_heads, arrays))
    return constrain(output_BTHK, "batch", "time", "heads", None)


def _enough_heads(x: jax.Array | None) -> jax.Array | None:
    """`x`, [B, T, H, K] with each head repeated where there are fewer than devices to divide them over."""
    if x is None or x.ndim != 4 or x.shape[2] % _parts() == 0:
        return x
    return jnp.repeat(x, _parts() // x.shape[2], axis=2)
