"""What a layer is made of: linear maps, norms, rotary positions, projections, the MLP, dropout.

Letters as in `transformer`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config import ModelConfig
from lmscale.lm.devices.sharding import mesh_axis_size
from lmscale.lm.model.lora import A, B
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import NO_TAP, BoundTap

Rope = tuple[jax.Array, jax.Array]
"""Cosine and sine of rotary positions, [1 or B, T, 1, half of the features that turn]."""


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "swiglu": jax.nn.silu,
    "geglu": jax.nn.gelu,
    "gelu": jax.nn.gelu,
    "gelu-erf": lambda x: jax.nn.gelu(x, approximate=False),
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}


def linear(x: jax.Array, weight: jax.Array, bias: jax.Array | None) -> jax.Array:
    """x [B, T, inputs...] times a matrix [inputs..., outputs...], plus a bias [outputs...].

    Batch and time are laid flat where neither time nor a matrix is cut over devices: with two leading axes XLA's CPU
    backend leaves its fast product in the gradient of the weight.
    """
    inputs = x.ndim - 2
    outputs = weight.shape[inputs:]
    if mesh_axis_size("tensor") == mesh_axis_size("sequence") == 1:
        size = math.prod(weight.shape[:inputs])
        y = (x.reshape(-1, size) @ weight.reshape(size, -1)).reshape(*x.shape[:2], *outputs)
    else:
        y = jnp.tensordot(x, weight, inputs)
    return y if bias is None else y + bias[None, None]


def adapted(layer_params: Params, name: str, x: jax.Array, config: ModelConfig) -> jax.Array:
    """`linear` with the matrix and bias of a name, and with its adapter where it has one: x W + alpha / R (x A) B."""
    y = linear(x, layer_params[name], layer_params.get(f"{name}_bias"))
    if config.lora is None or name not in config.lora.matrices:
        return y
    low = linear(x, layer_params[name + A], None)
    return y + config.lora.scale * linear(low, layer_params[name + B], None)


def norm(x: jax.Array, name: str, params: Params, config: ModelConfig) -> jax.Array:
    """x / rms(x) * gain (Zhang and Sennrich 2019), or LayerNorm (Ba 2016), over the last axis and in float32."""
    x32 = x.astype(jnp.float32)
    if config.norm == "layernorm":
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + config.norm_epsilon)
    gain, bias = params[name], params.get(f"{name}_bias")
    if config.norm == "rmsnorm-offset":
        gain = 1 + gain
    y = x32.astype(x.dtype) * gain.reshape((1,) * (x.ndim - 1) + gain.shape)
    return y if bias is None else y + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def rope_cos_sin(positions: "np.ndarray | jax.Array", config: ModelConfig) -> Rope:
    """Cosine and sine of the angle of each position [1 or B, T] and pair of features (Su 2021)."""
    frequency = rope_frequencies(config)
    angle = positions[:, :, None, None] * frequency[None, None, None, :]
    dtype = jnp.dtype(config.compute_dtype)
    cos, sin = (np.cos(angle), np.sin(angle)) if isinstance(angle, np.ndarray) else (jnp.cos(angle), jnp.sin(angle))
    return jnp.asarray(cos, dtype), jnp.asarray(sin, dtype)


def rope_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position of each pair of features that turns (Su 2021; `RopeScaling`)."""
    frequencies: np.ndarray = config.rope_base ** (-np.arange(0, config.rotary_features, 2) / config.rotary_features)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_context * frequencies / (2 * np.pi)  # within the first context
    unscaled = np.clip((turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency), 0, 1)
    return unscaled * frequencies + (1 - unscaled) * frequencies / scaling.factor


def apply_rope(x_BTHK: jax.Array, rope: Rope) -> jax.Array:
    """Rotate the pairs of features (i, i + R / 2) of every head by the angle of their position.

    The first R features turn; those behind them stay as they are.
    """
    cos, sin = rope
    turning = 2 * cos.shape[-1]
    first, second = jnp.split(x_BTHK[..., :turning], 2, axis=-1)
    rotated = [first * cos - second * sin, first * sin + second * cos]
    still = [] if turning == x_BTHK.shape[-1] else [x_BTHK[..., turning:]]
    return jnp.concatenate(rotated + still, axis=-1)


def queries_keys_values(
    layer_params: Params, x_BTD: jax.Array, rope: Rope | None, config: ModelConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, T, H, K], [B, T, G, K] twice, with rotary positions applied.

    One product gives each key head's queries, key and value; query head h uses the key head h // (H / G).
    """
    batch, time, _ = x_BTD.shape
    qkv_BTGPK = adapted(layer_params, "attention_qkv", x_BTD, config)
    queries = config.heads // config.num_kv_heads
    q_BTHK = qkv_BTGPK[:, :, :, :queries].reshape(batch, time, config.heads, config.head_width)
    k_BTGK, v_BTGK = qkv_BTGPK[:, :, :, queries], qkv_BTGPK[:, :, :, queries + 1]
    if config.qk_norm:
        q_BTHK = norm(q_BTHK, "query_norm", layer_params, config)
        k_BTGK = norm(k_BTGK, "key_norm", layer_params, config)
    if rope is not None:
        q_BTHK, k_BTGK = apply_rope(q_BTHK, rope), apply_rope(k_BTGK, rope)
    return q_BTHK, k_BTGK, v_BTGK


def mlp(
    layer_params: Params, x_BTD: jax.Array, config: ModelConfig, tap: BoundTap = NO_TAP, name: str = "mlp"
) -> jax.Array:
    """act(x W) W', or gated, (act(x W) * x U) W' (Shazeer 2020), with the matrices `name`_in and `name`_out."""
    hidden_BTCF = adapted(layer_params, f"{name}_in", x_BTD, config)
    hidden_BTF = tap(f"{name}_hidden", activate(hidden_BTCF, config))
    return adapted(layer_params, f"{name}_out", hidden_BTF, config)


def activate(hidden: jax.Array, config: ModelConfig) -> jax.Array:
    """[..., C, F] -> [..., F]: the activation of the first branch, times the second where the MLP is gated."""
    leading = (slice(None),) * (hidden.ndim - 2)
    first = ACTIVATIONS[config.mlp](hidden[*leading, 0])
    return first * hidden[*leading, 1] if config.gated else first


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """`x` with a share `rate` of its numbers at zero and the others scaled up to keep the mean (Srivastava 2014)."""
    if not rate or key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)
