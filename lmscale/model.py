"""A decoder-only transformer as pure functions of (parameters, tokens).

Everything about a parameter stands in one table (`parameter_table`): shape, logical axes, initial scale, whether weight
decay touches it. Initialisation, sharding and the optimizer's mask follow from it.

Letters in array names: B batch, T time, N = B T tokens laid flat, D width, H heads, K features of a head, F hidden
units of the MLP, V vocabulary, L layers. Activations are kept as [N, D]: with two leading axes XLA's CPU backend leaves
its fast matrix product in the gradients of the weights.
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.attention import causal_attention
from lmscale.config import ModelConfig, check

Params = dict[str, jax.Array]
"""One array per row of `parameter_table`; the layers of a kind are stacked along a leading axis."""


@dataclass(frozen=True)
class Parameter:
    """One row of the parameter table."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    """Logical axis names; `sharding.RULES` maps them onto the mesh."""
    std: float | Literal["ones"]
    """Standard deviation of the normal initial values, or a gain that starts at one."""

    @property
    def is_matrix(self) -> bool:
        """Weight decay touches matrices only."""
        return self.std != "ones"


def parameter_table(config: ModelConfig) -> dict[str, Parameter]:
    """Name -> shape, logical axes and initial scale of every parameter.

    Initial values: matrices normal with variance 1 / fan-in (LeCun 1998), those that write to the residual stream also
    over 2 L (Radford 2019); token vectors with variance 1 / D, scaled by sqrt(D) on the way in, so that the stream
    starts with unit variance and so do the logits. Where the head is tied, the logit of the token just read is the
    exception: it starts near sqrt(D), since the stream still carries that token's own vector.
    """
    width, layers, heads, head_width = config.width, config.layers, config.heads, config.head_width
    hidden, vocab = config.hidden, config.vocab
    branches = 2 if config.mlp == "swiglu" else 1
    fan_in, into_stream = width**-0.5, (2 * layers) ** -0.5
    table = {
        "embedding": Parameter((vocab, width), ("vocab", "embed"), fan_in),
        "attention_norm": Parameter((layers, width), ("layers", None), "ones"),
        "attention_qkv": Parameter(
            (layers, width, 3, heads, head_width), ("layers", "embed", None, "heads", None), fan_in
        ),
        "attention_out": Parameter(
            (layers, heads, head_width, width), ("layers", "heads", None, "embed"), fan_in * into_stream
        ),
        "mlp_norm": Parameter((layers, width), ("layers", None), "ones"),
        "mlp_in": Parameter((layers, width, branches, hidden), ("layers", "embed", None, "hidden"), fan_in),
        "mlp_out": Parameter((layers, hidden, width), ("layers", "hidden", "embed"), hidden**-0.5 * into_stream),
        "final_norm": Parameter((width,), (None,), "ones"),
    }
    if not config.tied_embeddings:
        table["head"] = Parameter((width, vocab), ("embed", "vocab"), fan_in)
    return table


LAYER_PARAMETERS = ("attention_norm", "attention_qkv", "attention_out", "mlp_norm", "mlp_in", "mlp_out")


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Initial parameters. Call it under `jax.jit`: the values are then the same bits on every mesh."""
    table = parameter_table(config)
    dtype = jnp.dtype(config.param_dtype)
    return {
        name: jnp.ones(row.shape, dtype)
        if row.std == "ones"
        else row.std * jax.random.normal(jax.random.fold_in(key, number), row.shape, dtype)
        for number, (name, row) in enumerate(table.items())
    }


def logits(params: Params, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """Next-token logits [B, T, V] in float32 for integer tokens [B, T], T at most the context. Causal."""
    return _logits_NV(params, tokens_BT, config).reshape(*tokens_BT.shape, config.vocab)


def token_losses(params: Params, tokens_BS: jax.Array, config: ModelConfig) -> jax.Array:
    """Cross-entropy in nats [B, S - 1] of each token of [B, S] given those before it in its row."""
    inputs_BT, targets_N = tokens_BS[:, :-1], tokens_BS[:, 1:].reshape(-1)
    logits_NV = _logits_NV(params, inputs_BT, config)
    target_N = jnp.take_along_axis(logits_NV, targets_N[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(logits_NV, axis=-1) - target_N).reshape(inputs_BT.shape)


def _logits_NV(params: Params, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    time = tokens_BT.shape[1]
    check(time <= config.context, f"{time} tokens do not fit the context of {config.context}")
    dtype = jnp.dtype(config.compute_dtype)
    params = {name: value.astype(dtype) for name, value in params.items()}
    x_ND = params["embedding"][tokens_BT.reshape(-1)] * math.sqrt(config.width)
    turn = _rotation(time, config)
    for layer in _unstack(params, config.layers):
        x_ND = x_ND + _attention(layer, rms_norm(x_ND, layer["attention_norm"], config), turn, tokens_BT.shape, config)
        x_ND = x_ND + _mlp(layer, rms_norm(x_ND, layer["mlp_norm"], config), config)
    x_ND = rms_norm(x_ND, params["final_norm"], config)
    head_DV = params["embedding"].T if config.tied_embeddings else params["head"]
    return jnp.matmul(x_ND, head_DV, preferred_element_type=jnp.float32)


def _unstack(params: Params, layers: int) -> list[Params]:
    """One mapping per layer. A split, not an index: its gradient is one concatenation instead of a sum of pads."""
    split = {name: jax.lax.split(params[name], [1] * layers, axis=0) for name in LAYER_PARAMETERS}
    return [{name: jnp.squeeze(parts[number], axis=0) for name, parts in split.items()} for number in range(layers)]


def rms_norm(x_ND: jax.Array, gain_D: jax.Array, config: ModelConfig) -> jax.Array:
    """x / rms(x) * gain, the mean square taken in float32 (Zhang and Sennrich 2019)."""
    x32 = x_ND.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + config.norm_epsilon)
    return (x32 * scale).astype(x_ND.dtype) * gain_D[None, :]


def _attention(
    layer: Params, x_ND: jax.Array, turn: tuple[jax.Array, jax.Array], shape: tuple[int, ...], config: ModelConfig
) -> jax.Array:
    heads, head_width = config.heads, config.head_width
    qkv_ND = x_ND @ layer["attention_qkv"].reshape(config.width, -1)
    q, k, v = (part[:, :, 0] for part in jnp.split(qkv_ND.reshape(*shape, 3, heads, head_width), 3, axis=2))
    out_BTHK = causal_attention(_rotate(q, turn), _rotate(k, turn), v)
    return out_BTHK.reshape(-1, config.width) @ layer["attention_out"].reshape(-1, config.width)


def _mlp(layer: Params, x_ND: jax.Array, config: ModelConfig) -> jax.Array:
    """GELU(x W) W' or, as SwiGLU, (SiLU(x W) * x U) W' (Shazeer 2020)."""
    hidden = x_ND @ layer["mlp_in"].reshape(config.width, -1)
    if config.mlp == "swiglu":
        gate_NF, up_NF = jnp.split(hidden, 2, axis=1)
        hidden = jax.nn.silu(gate_NF) * up_NF
    else:
        hidden = jax.nn.gelu(hidden)
    return hidden @ layer["mlp_out"]


def _rotation(time: int, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine [T, 1, K / 2] of the angle of each position and pair of features (Su 2021)."""
    frequency = config.rope_base ** (-np.arange(0, config.head_width, 2) / config.head_width)
    angle = np.arange(time)[:, None, None] * frequency[None, None, :]
    dtype = jnp.dtype(config.compute_dtype)
    return jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype)


def _rotate(x_BTHK: jax.Array, turn: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn the pairs (i, i + K / 2) of every head by the angle of their position."""
    cos, sin = (part[None] for part in turn)
    first, second = jnp.split(x_BTHK, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
