"""A decoder-only transformer as pure functions of (parameters, tokens).

Letters in array names: B batch, T time, S time of the keys, D width, H heads, G heads of keys and values, P projections
of such a head (those of its queries, the key, the value), K features of a head, C branches of the MLP, F hidden units,
V vocabulary, L layers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config import ModelConfig, check
from lmscale.lm.devices.sharding import Axes, constrain, mesh_axis_size, platform
from lmscale.lm.model.attention import alibi_slopes, causal_attention
from lmscale.lm.model.cross_entropy import cross_entropy, default_chunk
from lmscale.lm.model.experts import Occupancy, expert_mlp
from lmscale.lm.model.layers import Rope, adapted, dropout, mlp, norm, queries_keys_values, rope_cos_sin
from lmscale.lm.model.parameters import (
    Params,
    attention_scale,
    cast,
    embedding_multiplier,
    logit_multiplier,
    parameter_table,
    residual_multiplier,
)
from lmscale.lm.model.tap import NO_TAP, BoundTap, Tap

Reports = dict[str, jax.Array]
"""What a layer reports besides the residual stream, by name."""
Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], tuple[jax.Array, Reports]]
"""Queries [B, T, H, K], keys and values [B, T, G, K], dropout key -> output of every head [B, T, H, K], and reports."""


class LayerInputs(NamedTuple):
    """What every layer reads besides the residual stream."""

    rope: Rope | None
    """Cosine and sine of rotary positions."""
    segments_BT: jax.Array | None
    """Which document of its sequence a token belongs to."""
    read_BT: jax.Array | None = None
    """Where there is a token and no padding, of which no expert's load is counted; None has no padding."""


class LayerFunctions(NamedTuple):
    """The four functions that `block` wires to a layer."""

    attention_norm: Callable[[jax.Array], jax.Array]
    attention: Callable[[jax.Array, jax.Array | None], tuple[jax.Array, Reports]]
    """Normed residual stream and dropout key -> what attention adds, and reports."""
    mlp_norm: Callable[[jax.Array], jax.Array]
    mlp: Callable[[jax.Array], tuple[jax.Array, Reports]]
    """Normed residual stream -> what the MLP adds, and reports."""


def logits(params: Params, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """Next-token logits [B, T, V] in float32 for integer tokens [B, T], T at most the context. Causal."""
    return forward(params, tokens_BT, config)[0]


def forward(
    params: Params, tokens_BT: jax.Array, config: ModelConfig, tap: Tap | None = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`logits`, and what `tap` keeps: name -> [L, ...], or without an axis of layers for sites outside of them.

    `tap.TAPS` lists the sites. Raises `UserError` where the tap changes the shape or type of a value.
    """
    final_BTD, params, activations, _ = final_residual(params, tokens_BT, config, None, tap)
    outside = BoundTap(tap)
    logits_BTV = outside("logits", unembed(final_BTD, head(params, config), config))
    return logits_BTV, activations | outside.activations


def unembed(final_BTD: jax.Array, head_DV: jax.Array, config: ModelConfig) -> jax.Array:
    """Logits [B, T, V] in float32 of the residual stream after the last norm."""
    logits_BTV = jnp.matmul(final_BTD, head_DV, preferred_element_type=jnp.float32)
    logits_BTV = logits_BTV * logit_multiplier(config)
    cap = config.logit_softcap
    return logits_BTV if cap is None else cap * jnp.tanh(logits_BTV / cap)


def token_losses(
    params: Params,
    tokens_BS: jax.Array,
    config: ModelConfig,
    dropout_key: jax.Array | None = None,
    scored_BT: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats of each token of [B, S] given those before it in its row, and the log-partition.

    Both are [B, S - 1]. Where `scored_BT` [B, S - 1] is False the token that is predicted there is read by those after
    it and not scored: both are 0 there. A token below 0 is padding, read as 0 and not scored. Dropout is off without a
    key.
    """
    return token_losses_and_reports(params, tokens_BS, config, dropout_key, scored_BT)[:2]


def token_losses_and_reports(
    params: Params,
    tokens_BS: jax.Array,
    config: ModelConfig,
    dropout_key: jax.Array | None = None,
    scored_BT: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, Reports]:
    """`token_losses`, and what the layers report, [L, ...] each; a dense model reports nothing."""
    inputs_BT, targets_BT = jnp.maximum(tokens_BS[:, :-1], 0), tokens_BS[:, 1:]
    if scored_BT is not None:
        targets_BT = jnp.where(scored_BT, targets_BT, -1)
    read_BT = tokens_BS[:, :-1] >= 0 if config.sparse else None
    final_BTD, params, _, reports = final_residual(params, inputs_BT, config, dropout_key, read_BT=read_BT)
    nats_BT, log_z_BT = cross_entropy(
        final_BTD,
        head(params, config),
        targets_BT,
        scale=logit_multiplier(config),
        softcap=config.logit_softcap,
        chunk=config.loss_chunk or default_chunk(inputs_BT.shape[0], inputs_BT.shape[1], config.vocab),
    )
    return nats_BT, log_z_BT, reports


def head(params: Params, config: ModelConfig) -> jax.Array:
    """[D, V]: from the residual stream after the last norm to logits. Raises `UserError` for a model without them."""
    check(
        not config.scalar_head,
        "this is a reward model, which gives one number and no next token; take the run that it started from",
    )
    return params["embedding"].T if config.tied_embeddings else params["head"]


def final_residual(
    params: Params,
    tokens_BT: jax.Array,
    config: ModelConfig,
    key: jax.Array | None,
    tap: Tap | None = None,
    read_BT: jax.Array | None = None,
) -> tuple[jax.Array, Params, Reports, Reports]:
    """The residual stream [B, T, D] after the last norm, the parameters in the compute dtype, what the tap keeps, what
    the layers report."""
    if tap is not None:
        tap.check_sites(config)
    inputs, outside = layer_inputs(tokens_BT, config)._replace(read_BT=read_BT), BoundTap(tap)
    params = _gathered_ends(cast(params, config))
    keys = None if key is None else jax.random.split(key, config.layers + 1)
    residual_BTD = constrain(params["embedding"], "vocab", None)[tokens_BT]
    if config.positions == "learned":
        residual_BTD = residual_BTD + params["positions"][None, : tokens_BT.shape[1]]
    residual_BTD = constrain(residual_BTD * embedding_multiplier(config), "batch", "time", None)
    residual_BTD = dropout(residual_BTD, config.residual_dropout, None if keys is None else keys[-1])
    residual_BTD, activations, reports = _layers(params, outside("embedding", residual_BTD), inputs, config, keys, tap)
    final_BTD = outside("final_norm", norm(residual_BTD, "final_norm", params, config))
    return final_BTD, params, activations | outside.activations, reports


def _gathered_ends(params: Params) -> Params:
    """The parameters with embedding and head gathered over the axis fsdp: once, for the lookup of tokens and for every
    chunk of the loss, and in the compute dtype, up to which the first constraint keeps them divided."""
    if mesh_axis_size("fsdp") == 1:
        return params
    axes: dict[str, Axes] = {"embedding": ("vocab", "embed"), "head": ("embed", "vocab")}
    whole = {name: [axis if axis == "vocab" else None for axis in of] for name, of in axes.items()}
    ends = {name: constrain(constrain(params[name], *axes[name]), *whole[name]) for name in axes if name in params}
    return {**params, **ends}


def layer_inputs(tokens_BT: jax.Array, config: ModelConfig) -> LayerInputs:
    """What every layer reads besides the residual stream. Raises `UserError` for more tokens than the context holds."""
    time = tokens_BT.shape[1]
    check(time <= config.context, f"{time} tokens do not fit the context of {config.context}; cut them to that many")
    return LayerInputs(
        rope_cos_sin(np.arange(time)[None], config) if config.positions == "rotary" else None,
        None if config.document_end is None else segments(tokens_BT, config.document_end),
    )


def segments(tokens_BT: jax.Array, document_end: int) -> jax.Array:
    """The number of documents that ended before each token, int32 [B, T]: the end still belongs to its document."""
    ends_BT = (tokens_BT == document_end).astype(jnp.int32)
    return jnp.cumsum(ends_BT, axis=1) - ends_BT


def _layers(
    params: Params,
    residual_BTD: jax.Array,
    inputs: LayerInputs,
    config: ModelConfig,
    keys: jax.Array | None,
    tap: Tap | None,
) -> tuple[jax.Array, Reports, Reports]:
    """All layers in turn, as a loop of one compiled layer or written out.

    Returns the residual stream; what the tap keeps and what the layers report, each [L, ...].
    """
    Arrays = tuple[Params, jax.Array | None, jax.Array | None]

    def layer(residual_BTD: jax.Array, arrays: Arrays) -> tuple[jax.Array, tuple[Reports, Reports]]:
        layer_params, key, number = arrays
        inside = BoundTap(tap, number)
        attend = full_attention(inputs, config, inside)
        functions = layer_functions(layer_params, inputs.rope, attend, config, inside, Occupancy(inputs.read_BT))
        residual_BTD, reports = block(residual_BTD, functions, config, key, inside)
        return residual_BTD, (inside.activations, reports)

    if config.remat != "none":
        policies = jax.checkpoint_policies
        saved = policies.nothing_saveable if config.remat == "full" else policies.dots_with_no_batch_dims_saveable
        layer = jax.checkpoint(layer, policy=saved, prevent_cse=not scanned(config))
    stacked = {name: params[name] for name, row in parameter_table(config).items() if row.axes[0] == "layers"}
    if scanned(config):
        numbers = None if tap is None else jnp.arange(config.layers, dtype=jnp.int32)
        arrays = stacked, None if keys is None else keys[:-1], numbers
        residual_BTD, (activations, reports) = jax.lax.scan(layer, residual_BTD, arrays)
        return residual_BTD, activations, reports
    outputs = []
    for number, layer_params in enumerate(unstack(stacked, config.layers)):
        key = None if keys is None else keys[number]
        residual_BTD, output = layer(residual_BTD, (layer_params, key, None if tap is None else jnp.int32(number)))
        outputs.append(output)
    return residual_BTD, *jax.tree.map(lambda *values: jnp.stack(values), *outputs)


def scanned(config: ModelConfig) -> bool:
    """Small models run up to 1.3 times as fast on a CPU when their layers are written out."""
    return platform() != "cpu" if config.scan_layers is None else config.scan_layers


def unstack(stacked: Params, layers: int) -> list[Params]:
    """One mapping per layer. A split, not an index: its gradient is one concatenation instead of a sum of pads."""
    split = {name: jax.lax.split(value, [1] * layers, axis=0) for name, value in stacked.items()}
    return [{name: jnp.squeeze(values[number], axis=0) for name, values in split.items()} for number in range(layers)]


def block(
    residual_BTD: jax.Array,
    functions: LayerFunctions,
    config: ModelConfig,
    key: jax.Array | None = None,
    tap: BoundTap = NO_TAP,
    axes: Axes = ("batch", "time", None),
) -> tuple[jax.Array, Reports]:
    """One layer: attention, then the MLP, each after a norm of its own and added to the residual stream; in a parallel
    block the MLP reads the stream as it was before attention added to it.

    Returns the residual stream and what the layer reports. Dropout is off without a key; `axes` are the logical axes
    over which the stream is cut.
    """
    scale, rate = residual_multiplier(config), config.residual_dropout
    keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
    residual_BTD = tap("residual_pre", residual_BTD)
    added_BTD, attention_reports = functions.attention(
        tap("attention_input", functions.attention_norm(residual_BTD)), keys[0]
    )
    added_BTD = tap("attention_output", scale * dropout(added_BTD, rate, keys[1]))
    entry_BTD, residual_BTD = residual_BTD, tap("residual_mid", constrain(residual_BTD + added_BTD, *axes))
    mlp_input_BTD = functions.mlp_norm(entry_BTD if config.parallel_block else residual_BTD)
    added_BTD, mlp_reports = functions.mlp(tap("mlp_input", mlp_input_BTD))
    added_BTD = tap("mlp_output", scale * dropout(added_BTD, rate, keys[2]))
    residual_BTD = tap("residual_post", constrain(residual_BTD + added_BTD, *axes))
    return residual_BTD, attention_reports | mlp_reports


def layer_functions(
    layer_params: Params,
    rope: Rope | None,
    attend: Attend,
    config: ModelConfig,
    tap: BoundTap = NO_TAP,
    occupancy: Occupancy = Occupancy(),  # noqa: B008
) -> LayerFunctions:
    """The functions of a layer with these parameters; `attend` is how its queries, keys and values meet, `occupancy`
    which tokens its experts count."""
    return LayerFunctions(
        lambda x_BTD: norm(x_BTD, "attention_norm", layer_params, config),
        lambda x_BTD, key: attention(layer_params, x_BTD, rope, attend, config, key, tap),
        lambda x_BTD: norm(x_BTD, "mlp_norm", layer_params, config),
        lambda x_BTD: feed_forward(layer_params, x_BTD, config, tap, occupancy),
    )


def feed_forward(
    layer_params: Params,
    x_BTD: jax.Array,
    config: ModelConfig,
    tap: BoundTap = NO_TAP,
    occupancy: Occupancy = Occupancy(),  # noqa: B008
) -> tuple[jax.Array, Reports]:
    """What the MLP, or the experts that a token takes, add to the residual stream, and what they report."""
    if config.sparse:
        return expert_mlp(layer_params, x_BTD, config, tap, occupancy)
    return mlp(layer_params, x_BTD, config, tap), {}


def attention(
    layer_params: Params,
    x_BTD: jax.Array,
    rope: Rope | None,
    attend: Attend,
    config: ModelConfig,
    key: jax.Array | None = None,
    tap: BoundTap = NO_TAP,
) -> tuple[jax.Array, Reports]:
    """What attention adds to the residual stream, and what `attend` reports."""
    q_BTHK, k_BTGK, v_BTGK = queries_keys_values(layer_params, x_BTD, rope, config)
    q_BTHK, k_BTGK, v_BTGK = tap("queries", q_BTHK), tap("keys", k_BTGK), tap("values", v_BTGK)
    heads_BTHK, reports = attend(q_BTHK, k_BTGK, v_BTGK, key)
    heads_BTHK = tap("head_outputs", heads_BTHK)
    return adapted(layer_params, "attention_out", heads_BTHK, config), reports


def full_attention(inputs: LayerInputs, config: ModelConfig, tap: BoundTap = NO_TAP) -> Attend:
    """Causal attention within whole rows of tokens."""

    def attend(
        q_BTHK: jax.Array, k_BTGK: jax.Array, v_BTGK: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, Reports]:
        heads_BTHK = causal_attention(
            q_BTHK,
            k_BTGK,
            v_BTGK,
            scale=attention_scale(config),
            slopes=alibi_slopes(config.heads) if config.positions == "alibi" else None,
            segments_BT=inputs.segments_BT,
            dropout=config.attention_dropout,
            key=key,
            tap=tap,
        )
        return heads_BTHK, {}

    return attend
