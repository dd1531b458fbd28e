"""Attention by cuDNN's fused kernel on NVIDIA GPUs, and the kernel's requirements."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lmscale.core.accelerators import by_jax_kind
from lmscale.core.counting.activations import document_features
from lmscale.lm.model.attention import alibi, documents
from lmscale.lm.model.attention.per_device import on_each_device

DESCRIBED: dict[str, tuple[int, int]] = {}
"""Compute capability of GPUs that are compiled for and not listed among the accelerators, by their name in JAX."""


def restriction(
    capability: tuple[int, int] | None, dtype: jnp.dtype, time: int, features: int, segmented: bool
) -> str | None:
    """Why cuDNN cannot compute this, or None. `capability` is that of the GPU, None where it is not NVIDIA's.

    After `check_layout` and `check_is_flash_attention` in jax/_src/cudnn/fused_attention_stablehlo.py (JAX 0.10.2), and
    cuDNN's own requirement of an Ampere GPU.
    """
    if capability is None or capability < (8, 0):
        return "cuDNN's fused attention needs an NVIDIA GPU of compute capability 8.0 or more"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN's fused attention takes bfloat16 or float16, not {dtype}"
    widest = widest_head(capability)
    if features % 8 != 0 or features > widest:
        return f"cuDNN's fused attention takes heads of a multiple of 8 up to {widest} features, not {features}"
    if segmented and features + document_features(time) > widest and time % 2 != 0:
        return f"cuDNN's fused attention takes a mask for even lengths only, not {time}"
    return None


def widest_head(capability: tuple[int, int] | None) -> int:
    """Features of a head that cuDNN takes at most; of no GPU as of the newest."""
    return 256 if capability is None or capability >= (9, 0) else 128


def capability() -> tuple[int, int] | None:
    """Compute capability of the GPU of the mesh that is set, which need not be here, else of this process; None where
    it is not NVIDIA's."""
    if jax.default_backend() != "gpu" and (absent := jax.sharding.get_abstract_mesh().abstract_device) is not None:
        accelerator = by_jax_kind(absent.device_kind)
        return DESCRIBED.get(absent.device_kind) if accelerator is None else accelerator.compute_capability
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:
        return None
    major, minor = str(device.compute_capability).split(".")
    return int(major), int(minor)


def attend(
    q_BTHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    scale: float,
    slopes: tuple[float, ...] | None = None,
    segments_BT: jax.Array | None = None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """`jax.nn.dot_product_attention` on each device's share of batch and heads.

    Documents that do not see each other become features (`documents`), or a mask where heads are too wide for more of
    them. The packed layout of cuDNN itself, offsets of every document in a row, is no way: JAX (0.10.2, `q_offsets` in
    jax/_src/cudnn/fused_attention_stablehlo.py) keeps statistics [B M, H, T] of it in float32 for the most documents M
    of a row, which may be T, and counts the offsets of keys with the heads of queries. `implementation` lets tests run
    it without a GPU.
    """
    features = q_BTHK.shape[-1]
    if slopes is not None:
        q_BTHK, k_BSGK, v_BSGK = alibi.as_features(q_BTHK, k_BSGK, v_BSGK, slopes, scale)
    wide = q_BTHK.shape[-1] + document_features(q_BTHK.shape[1]) > widest_head(capability())

    kernel = partial(jax.nn.dot_product_attention, scale=scale, is_causal=True, implementation=implementation)

    def local(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None) -> jax.Array:
        if segments is None:
            return kernel(q, k, v)
        if wide:
            return kernel(q, k, v, mask=(segments[:, :, None] == segments[:, None, :])[:, None])
        return apart(q, k, v, segments)

    @partial(jax.checkpoint, policy=_is_result_of_the_kernel)
    def apart(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return kernel(*documents.as_features(q, k, v, segments))[..., : v.shape[-1]]

    return on_each_device(local, q_BTHK, k_BSGK, v_BSGK, segments_BT)[..., :features]


def _is_result_of_the_kernel(primitive: Any, *_: Any, **__: Any) -> bool:
    """What is kept for the backward pass beside the arguments: their wider copies are made again."""
    return str(primitive.name).startswith("dot_product_attention_fwd")
