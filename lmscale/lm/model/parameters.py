"""Every parameter of the model in one table: shape, logical axes, initial values, and how it is to be trained.

Initialisation, sharding, the optimizer's masks and rates, and the parametrization follow from the table; the three
multipliers of the forward pass that belong to a parametrization stand here too.

Letters: D width, L layers, H heads, G heads of keys and values, P = H / G + 2 projections of such a head (those of its
queries, the key, the value), K features of a head, F hidden units of the MLP or of one expert, C branches of the MLP (2
where it is gated), E experts, S shared experts, V vocabulary, T context.
"""

import math

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.devices.sharding import Axes, constrain
from lmscale.lm.model.lora import adapter_rows, trained
from lmscale.lm.model.parameter_spec import ParameterSpec

Params = dict[str, jax.Array]
"""One array per row of `parameter_table`; the layers of a kind are stacked along a leading axis."""

ROUTER = ("router", "router_bias")
GPT2_STD = 0.02
ONE_DRAW = 2**26
"""Models up to this size draw all initial values at once, which compiles ten times as fast. Above it, each matrix
draws its own, so that no device ever holds more than one of them undivided."""


def parameter_table(config: ModelConfig) -> dict[str, ParameterSpec]:
    """Name -> row, for every parameter.

    Fan-in: matrices have variance 1 / inputs; those that write to the residual stream also over 2 L (Radford 2019).
    Token vectors have variance 1 / D and enter times sqrt(D), so that the residual stream starts with unit variance.
    """
    D, L, H, G, K = config.width, config.layers, config.heads, config.num_kv_heads, config.head_width
    P, C, F = config.heads // config.num_kv_heads + 2, mlp_inputs(config), config.hidden
    to_residual = "layers", None, None, "embed"
    table = {
        "embedding": _table(config, config.vocab, "vocab"),
        "attention_norm": _gain(config, (L, D)),
        "attention_qkv": _hidden(config, (L, D, G, P, K), ("layers", "embed", "heads", None, None), (1,), (2, 4)),
        "attention_out": _hidden(
            config, (L, H, K, D), ("layers", "heads", *to_residual[2:]), (1, 2), (3,), writes_to_residual=True
        ),
        "mlp_norm": _gain(config, (L, D)),
        **(_experts(config) if config.sparse else _mlp(config)),
        "final_norm": _gain(config, (D,)),
    }
    if config.positions == "learned":
        table["positions"] = _table(config, config.context, None)
    if config.qk_norm:
        table |= {"query_norm": _gain(config, (L, K)), "key_norm": _gain(config, (L, K))}
    if config.biases or config.qkv_biases:
        table["attention_qkv_bias"] = _bias(config, (L, G, P, K), ("layers", "heads", None, None))
    if config.biases:
        table |= {
            "attention_out_bias": _bias(config, (L, D), ("layers", None)),
            "mlp_in_bias": _bias(config, (L, C, F), ("layers", None, "hidden")),
            "mlp_out_bias": _bias(config, (L, D), ("layers", None)),
        }
        if config.norm == "layernorm":
            table |= {
                "attention_norm_bias": _bias(config, (L, D), ("layers", None)),
                "mlp_norm_bias": _bias(config, (L, D), ("layers", None)),
                "final_norm_bias": _bias(config, (D,), (None,)),
            }
    if config.scalar_head:
        # Begins at 0 (Yang 2022, section D.2): every reward does, and none is preferred before a step is done.
        table["scalar_head"] = ParameterSpec(
            (D, 1), ("embed", None), "head", inputs=(0,), outputs=(1,), epsilon_multiplier=1 / config.width_ratio
        )
    elif not config.tied_embeddings:
        table["head"] = ParameterSpec(
            (D, config.vocab), ("embed", "vocab"), "head", std=_outer_std(config), inputs=(0,), outputs=(1,),
            epsilon_multiplier=1 / config.width_ratio,
        )  # fmt: skip
    return table | adapter_rows(table, config)


def mlp_inputs(config: ModelConfig) -> int:
    """C: branches of the MLP."""
    return 2 if config.gated else 1


def _mlp(config: ModelConfig, prefix: str = "mlp", hidden: int | None = None) -> dict[str, ParameterSpec]:
    """The two matrices of a dense MLP."""
    D, L, C, F = config.width, config.layers, mlp_inputs(config), hidden or config.hidden
    return {
        f"{prefix}_in": _hidden(config, (L, D, C, F), ("layers", "embed", None, "hidden"), (1,), (3,)),
        f"{prefix}_out": _hidden(config, (L, F, D), ("layers", "hidden", "embed"), (1,), (2,), writes_to_residual=True),
    }


def _experts(config: ModelConfig) -> dict[str, ParameterSpec]:
    """The router, the experts, each a matrix of its own to the optimizer, and the shared experts, one MLP together."""
    D, L, C, E, F = config.width, config.layers, mlp_inputs(config), config.experts, config.expert_hidden
    inner = "layers", "experts", "embed", None, "hidden"
    outer = "layers", "experts", "hidden", "embed"
    table = {
        "router": _router(config),
        "experts_in": _hidden(config, (L, E, D, C, F), inner, (2,), (4,)),
        "experts_out": _hidden(config, (L, E, F, D), outer, (2,), (3,), writes_to_residual=True),
    }
    if config.router.bias_rate:
        table["router_bias"] = _bias(config, (L, E), ("layers", None))
    return table | (_mlp(config, "shared", config.shared_experts * F) if config.shared_experts else {})


def _router(config: ModelConfig) -> ParameterSpec:
    """From the residual stream to logits, of which there are as many at every width, as in an output head.

    Under mup and completep its initial logits and its rate therefore fall as those of a head with its multiplier 1 /
    m_N drawn into the matrix, whose gradient does not shrink with the width (Malasnicki 2025, arXiv 2508.09752: the
    router is an output matrix; Yang 2022, section B.1, for the multiplier).
    """
    ratio = config.width_ratio
    return ParameterSpec(
        (config.layers, config.width, config.experts), ("layers", "embed", None), "hidden",
        std=_outer_std(config) / ratio, inputs=(1,), outputs=(2,),
        lr_multiplier=1 / ratio, decay_multiplier=ratio, epsilon_multiplier=1 / config.depth_ratio,
    )  # fmt: skip


def _outer_std(config: ModelConfig) -> float:
    """Initial standard deviation of tables and heads, that of the base width at every width.

    Yang 2022, table 8; Dey 2025, table 1.
    """
    return GPT2_STD if config.init == "gpt2" else (config.base_width or config.width) ** -0.5


def _table(config: ModelConfig, rows: int, axis: str | None) -> ParameterSpec:
    std, epsilon = _outer_std(config), 1 / config.width_ratio
    return ParameterSpec(
        (rows, config.width), (axis, "embed"), "table", std=std, inputs=(0,), outputs=(1,), epsilon_multiplier=epsilon
    )


def _hidden(
    config: ModelConfig,
    shape: tuple[int, ...],
    axes: Axes,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    writes_to_residual: bool = False,
) -> ParameterSpec:
    """A matrix of the layers: variance and rate fall as 1 / m_N under mup and completep, which add that
    rate x decay stays as it is and that Adam's epsilon follows the gradient (Dey 2025, table 1, alpha = 1)."""
    fan_in = math.prod(shape[axis] for axis in inputs)
    std = GPT2_STD * config.width_ratio**-0.5 if config.init == "gpt2" else fan_in**-0.5
    if writes_to_residual:
        std *= 0.0 if config.init == "zero-out" else (2 * config.layers / config.depth_ratio) ** -0.5
    return ParameterSpec(
        shape, axes, "hidden", std=std, inputs=inputs, outputs=outputs,
        lr_multiplier=1 / config.width_ratio,
        decay_multiplier=config.width_ratio,
        epsilon_multiplier=1 / (config.width_ratio * config.depth_ratio),
    )  # fmt: skip


def _gain(config: ModelConfig, shape: tuple[int, ...]) -> ParameterSpec:
    return _vector(
        config,
        shape,
        (None,) * len(shape) if len(shape) == 1 else ("layers", None),
        0.0 if config.norm == "rmsnorm-offset" else 1.0,
    )


def _bias(config: ModelConfig, shape: tuple[int, ...], axes: Axes) -> ParameterSpec:
    return _vector(config, shape, axes, 0.0)


def _vector(config: ModelConfig, shape: tuple[int, ...], axes: Axes, mean: float) -> ParameterSpec:
    epsilon = 1 / (config.width_ratio * (config.depth_ratio if "layers" in axes else 1))
    return ParameterSpec(shape, axes, "vector", mean=mean, decay_multiplier=0.0, epsilon_multiplier=epsilon)


def cast(params: Params, config: ModelConfig) -> Params:
    """Parameters in the compute dtype; the router keeps its own, since it is computed in float32."""
    dtype = jnp.dtype(config.compute_dtype)
    return {name: value if name in ROUTER else value.astype(dtype) for name, value in params.items()}


def embedding_multiplier(config: ModelConfig) -> float:
    """The factor of token and position vectors at the entry of the residual stream: it starts with unit variance, under
    gpt2 as in the paper, unless `embedding_scale` sets it."""
    if config.embedding_scale is not None:
        return config.embedding_scale
    return 1.0 if config.init == "gpt2" else 1 / _outer_std(config)


def logit_multiplier(config: ModelConfig) -> float:
    """1 / m_N (Yang 2022, table 8); 1 under the standard parametrization.

    Logits then start with unit variance. Where the head is tied, that of the token just read is the exception: it
    starts near sqrt(D), since the residual stream still carries the token's own vector. Scaling all logits down to
    meet it slows the head, which costs more over a whole run than the steps in which a model learns not to repeat
    itself.
    """
    return 1 / config.width_ratio


def attention_scale(config: ModelConfig) -> float:
    """1 / sqrt(K) (Vaswani 2017); sqrt(base) / K under mup and completep, whose queries and keys come to agree."""
    if config.parametrization == "standard":
        return config.head_width**-0.5
    return math.sqrt(config.base_head_width or config.head_width) / config.head_width


def residual_multiplier(config: ModelConfig) -> float:
    """1 / m_L: the factor of what attention and MLP add to the residual stream (Dey 2025, alpha = 1); 1 except under
    completep."""
    return 1 / config.depth_ratio


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Initial parameters. Call it under `jax.jit`: the values are then the same bits on every mesh."""
    return _drawn(parameter_table(config), config, key)


def init_trained(config: ModelConfig, key: jax.Array) -> Params:
    """Initial values, as `init` has them, of the trained parameters: of a model with adapters, these alone."""
    return _drawn(trained(parameter_table(config), config), config, key)


def _drawn(table: dict[str, ParameterSpec], config: ModelConfig, key: jax.Array) -> Params:
    dtype = jnp.dtype(config.param_dtype)
    sizes = {name: math.prod(row.shape) for name, row in table.items() if row.std}
    if sum(sizes.values()) <= ONE_DRAW:
        ends = [sum(list(sizes.values())[: number + 1]) for number in range(len(sizes))]
        split = jnp.split(jax.random.normal(key, (ends[-1],), dtype), ends[:-1])
        draws = {name: constrain(draw, None) for name, draw in zip(sizes, split)}  # replicated before it is divided
    else:
        keys = jax.random.split(key, len(sizes))
        draws = {name: jax.random.normal(draw_key, table[name].shape, dtype) for name, draw_key in zip(sizes, keys)}
    return {
        name: row.std * draws[name].reshape(row.shape) if row.std else jnp.full(row.shape, row.mean, dtype)
        for name, row in table.items()
    }
