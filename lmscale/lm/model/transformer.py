"""A decoder-only transformer as pure functions of (parameters, tokens).

Letters in array names: B batch, T time, N = B T tokens laid flat, D width, H heads, G heads of keys and values, P
projections of such a group, K features of a head, C branches of the MLP, F hidden units, V vocabulary, L layers.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config import ModelConfig, check
from lmscale.lm.devices.sharding import constrain, mesh_axis_size
from lmscale.lm.model.attention import alibi_slopes, causal_attention
from lmscale.lm.model.cross_entropy import cross_entropy, default_chunk
from lmscale.lm.model.parameters import (
    Params,
    attention_scale,
    embedding_multiplier,
    logit_multiplier,
    parameter_table,
    residual_multiplier,
)

Turn = tuple[jax.Array, jax.Array]
"""Cosine and sine of rotary positions, [1 or B, T, 1, K / 2]."""


class Shared(NamedTuple):
    """What all layers see alike."""

    turn: Turn | None
    """Of rotary positions."""
    segments_BT: jax.Array | None
    """Which document of its sequence a token belongs to."""


def logits(params: Params, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """Next-token logits [B, T, V] in float32 for integer tokens [B, T], T at most the context. Causal."""
    x_BTD, params = _stream(params, tokens_BT, config, None)
    return logits_of(x_BTD, params, config)


def logits_of(x_BTD: jax.Array, params: Params, config: ModelConfig) -> jax.Array:
    """Logits [B, T, V] of the stream after the last norm."""
    logits_BTV = jnp.matmul(x_BTD, head(params, config), preferred_element_type=jnp.float32)
    logits_BTV = logits_BTV * logit_multiplier(config)
    cap = config.logit_softcap
    return logits_BTV if cap is None else cap * jnp.tanh(logits_BTV / cap)


def token_losses(
    params: Params, tokens_BS: jax.Array, config: ModelConfig, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats of each token of [B, S] given those before it in its row, and the log-partition.

    Both are [B, S - 1]. A token below 0 is not scored: its cross-entropy is 0. Dropout is off without a key.
    """
    inputs_BT, targets_BT = jnp.maximum(tokens_BS[:, :-1], 0), tokens_BS[:, 1:]
    x_BTD, params = _stream(params, inputs_BT, config, dropout_key)
    return cross_entropy(
        x_BTD,
        head(params, config),
        targets_BT,
        scale=logit_multiplier(config),
        softcap=config.logit_softcap,
        chunk=config.loss_chunk or default_chunk(inputs_BT.shape[0], inputs_BT.shape[1], config.vocab),
    )


def head(params: Params, config: ModelConfig) -> jax.Array:
    """[D, V]: from the stream after the last norm to logits."""
    return params["embedding"].T if config.tied_embeddings else params["head"]


def _stream(
    params: Params, tokens_BT: jax.Array, config: ModelConfig, key: jax.Array | None
) -> tuple[jax.Array, Params]:
    """The stream [B, T, D] after the last norm, and the parameters in the compute dtype."""
    time = tokens_BT.shape[1]
    check(time <= config.context, f"{time} tokens do not fit the context of {config.context}; cut them to that many")
    dtype = jnp.dtype(config.compute_dtype)
    params = {name: value.astype(dtype) for name, value in params.items()}
    shared = Shared(
        rotation(np.arange(time)[None], config) if config.positions == "rotary" else None,
        None if config.document_end is None else segments(tokens_BT, config.document_end),
    )
    keys = None if key is None else jax.random.split(key, config.layers + 1)
    x_BTD = constrain(params["embedding"], "vocab", None)[tokens_BT]
    if config.positions == "learned":
        x_BTD = x_BTD + params["positions"][None, :time]
    x_BTD = constrain(x_BTD * embedding_multiplier(config), "batch", "time", None)
    x_BTD = dropped(x_BTD, config.residual_dropout, None if keys is None else keys[-1])
    x_BTD = _layers(params, x_BTD, shared, config, keys)
    return norm(x_BTD, "final_norm", params, config), params


def _layers(params: Params, x_BTD: jax.Array, shared: Shared, config: ModelConfig, keys: jax.Array | None) -> jax.Array:
    """All layers, one after the other: as a loop of one compiled layer, or written out."""
    stacked = {name: params[name] for name, row in parameter_table(config).items() if row.axes[0] == "layers"}

    def layer(x_BTD: jax.Array, own: tuple[Params, jax.Array | None]) -> tuple[jax.Array, None]:
        return _layer(own[0], x_BTD, shared, config, own[1]), None

    if config.remat != "none":
        policies = jax.checkpoint_policies
        saved = policies.nothing_saveable if config.remat == "full" else policies.dots_with_no_batch_dims_saveable
        layer = jax.checkpoint(layer, policy=saved, prevent_cse=not _scanned(config))
    if _scanned(config):
        return jax.lax.scan(layer, x_BTD, (stacked, None if keys is None else keys[:-1]))[0]
    for number, own in enumerate(unstack(stacked, config.layers)):
        x_BTD, _ = layer(x_BTD, (own, None if keys is None else keys[number]))
    return x_BTD


def _scanned(config: ModelConfig) -> bool:
    """Small models run up to 1.3 times as fast on a CPU when their layers are written out."""
    return jax.default_backend() != "cpu" if config.scan_layers is None else config.scan_layers


def unstack(stacked: Params, layers: int) -> list[Params]:
    """One mapping per layer. A split, not an index: its gradient is one concatenation instead of a sum of pads."""
    split = {name: jax.lax.split(value, [1] * layers, axis=0) for name, value in stacked.items()}
    return [{name: jnp.squeeze(part[number], axis=0) for name, part in split.items()} for number in range(layers)]


def _layer(own: Params, x_BTD: jax.Array, shared: Shared, config: ModelConfig, key: jax.Array | None) -> jax.Array:
    scale = residual_multiplier(config)
    keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
    added = attention(own, norm(x_BTD, "attention_norm", own, config), shared, config, keys[0])
    x_BTD = constrain(x_BTD + scale * dropped(added, config.residual_dropout, keys[1]), "batch", "time", None)
    added = mlp(own, norm(x_BTD, "mlp_norm", own, config), config)
    return constrain(x_BTD + scale * dropped(added, config.residual_dropout, keys[2]), "batch", "time", None)


def attention(own: Params, x_BTD: jax.Array, shared: Shared, config: ModelConfig, key: jax.Array | None) -> jax.Array:
    """What attention adds to the stream."""
    q_BTHK, k_BTGK, v_BTGK = queries_keys_values(own, x_BTD, shared.turn, config)
    out_BTHK = causal_attention(
        q_BTHK,
        k_BTGK,
        v_BTGK,
        scale=attention_scale(config),
        slopes=alibi_slopes(config.heads) if config.positions == "alibi" else None,
        segments_BT=shared.segments_BT,
        dropout=config.attention_dropout,
        key=key,
    )
    return product(out_BTHK, own["attention_out"], own.get("attention_out_bias"))


def queries_keys_values(
    own: Params, x_BTD: jax.Array, turn: Turn | None, config: ModelConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, T, H, K], [B, T, G, K] twice: turned to their positions.

    Every group's queries, key and value come of one product; query head h uses the group h // (H / G).
    """
    batch, time, _ = x_BTD.shape
    qkv_BTGPK = product(x_BTD, own["attention_qkv"], own.get("attention_qkv_bias"))
    queries = config.heads // config.num_kv_heads
    q_BTHK = qkv_BTGPK[:, :, :, :queries].reshape(batch, time, config.heads, config.head_width)
    k_BTGK, v_BTGK = qkv_BTGPK[:, :, :, queries], qkv_BTGPK[:, :, :, queries + 1]
    if config.qk_norm:
        q_BTHK, k_BTGK = norm(q_BTHK, "query_norm", own, config), norm(k_BTGK, "key_norm", own, config)
    if turn is not None:
        q_BTHK, k_BTGK = rotate(q_BTHK, turn), rotate(k_BTGK, turn)
    return q_BTHK, k_BTGK, v_BTGK


def mlp(own: Params, x_BTD: jax.Array, config: ModelConfig) -> jax.Array:
    """act(x W) W', or as SwiGLU (SiLU(x W) * x U) W' (Shazeer 2020)."""
    hidden_BTCF = product(x_BTD, own["mlp_in"], own.get("mlp_in_bias"))
    first_BTF = hidden_BTCF[:, :, 0]
    if config.mlp == "swiglu":
        hidden_BTF = jax.nn.silu(first_BTF) * hidden_BTCF[:, :, 1]
    elif config.mlp == "gelu":
        hidden_BTF = jax.nn.gelu(first_BTF)
    else:
        hidden_BTF = jnp.square(jax.nn.relu(first_BTF))
    return product(hidden_BTF, own["mlp_out"], own.get("mlp_out_bias"))


def product(x: jax.Array, weight: jax.Array, bias: jax.Array | None) -> jax.Array:
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


def norm(x: jax.Array, name: str, params: Params, config: ModelConfig) -> jax.Array:
    """x / rms(x) * gain (Zhang and Sennrich 2019), or LayerNorm (Ba 2016), over the last axis and in float32."""
    x32 = x.astype(jnp.float32)
    if config.norm == "layernorm":
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + config.norm_epsilon)
    gain, bias = params[name], params.get(f"{name}_bias")
    y = x32.astype(x.dtype) * gain.reshape((1,) * (x.ndim - 1) + gain.shape)
    return y if bias is None else y + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def dropped(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """`x` with a share `rate` of its numbers at zero and the others raised to keep the mean (Srivastava 2014)."""
    if not rate or key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def segments(tokens_BT: jax.Array, document_end: int) -> jax.Array:
    """The number of documents that ended before each token, int32 [B, T]: the end still belongs to its document."""
    ends_BT = (tokens_BT == document_end).astype(jnp.int32)
    return jnp.cumsum(ends_BT, axis=1) - ends_BT


def rotation(positions: "np.ndarray | jax.Array", config: ModelConfig) -> Turn:
    """Cosine and sine of the angle of each position [1 or B, T] and pair of features (Su 2021)."""
    frequency = config.rope_base ** (-np.arange(0, config.head_width, 2) / config.head_width)
    angle = positions[:, :, None, None] * frequency[None, None, None, :]
    dtype = jnp.dtype(config.compute_dtype)
    cos, sin = (np.cos(angle), np.sin(angle)) if isinstance(angle, np.ndarray) else (jnp.cos(angle), jnp.sin(angle))
    return jnp.asarray(cos, dtype), jnp.asarray(sin, dtype)


def rotate(x_BTHK: jax.Array, turn: Turn) -> jax.Array:
    """Turn the pairs (i, i + K / 2) of every head by the angle of their position."""
    cos, sin = turn
    first, second = jnp.split(x_BTHK, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
