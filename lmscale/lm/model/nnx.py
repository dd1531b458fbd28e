"""The model as a tree of Flax NNX modules, for those who work in modules; nothing else in the package needs it.

    transformer = Transformer(config, params)      # from the parameters of a run
    logits_BTV = transformer(tokens_BT)
    transformer.blocks[0].mlp = MyMLP(...)         # a part of your own
    params = transformer.params()                  # back, as long as the parts are the package's

Every part computes with the functions of `model`, and its leaves bear the names of `parameters.parameter_table`, one
array per layer instead of one stacked array. Layers are written out and nothing is rematerialised: `scan_layers` and
`remat` are for the run itself. Letters as in `model`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lmscale.core.config import ModelConfig, check
from lmscale.core.errors import nearest
from lmscale.lm.model import transformer
from lmscale.lm.model.cross_entropy import cross_entropy, default_chunk
from lmscale.lm.model.parameters import (
    Params,
    embedding_multiplier,
    logit_multiplier,
    parameter_table,
    residual_multiplier,
)
from lmscale.lm.model.transformer import Shared

PARTS = {
    "attention_norm": ("attention_norm", "attention_norm_bias"),
    "attention": (
        "attention_qkv",
        "attention_qkv_bias",
        "attention_out",
        "attention_out_bias",
        "query_norm",
        "key_norm",
    ),
    "mlp_norm": ("mlp_norm", "mlp_norm_bias"),
    "mlp": ("mlp_in", "mlp_in_bias", "mlp_out", "mlp_out_bias"),
}
"""Part of a block -> the rows of the parameter table that are its own."""


class Part(nnx.Module):
    """What all parts are: those of the given arrays that are their own, each an `nnx.Param` under its name."""

    def __init__(self, config: ModelConfig, arrays: Params, names: tuple[str, ...]) -> None:
        self.config = config
        self.names = tuple(name for name in names if name in arrays)
        for name in self.names:
            setattr(self, name, nnx.Param(arrays[name]))

    def leaves(self) -> Params:
        """Name -> array, as they are."""
        return {name: getattr(self, name).get_value() for name in self.names}

    def arrays(self) -> Params:
        """Name -> array in the compute dtype."""
        return {name: value.astype(self.config.compute_dtype) for name, value in self.leaves().items()}


class Norm(Part):
    """RMSNorm or LayerNorm over the last axis."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return transformer.norm(x, self.names[0], self.arrays(), self.config)


class Attention(Part):
    """What attention adds to the stream [B, T, D]."""

    def __call__(self, x_BTD: jax.Array, shared: Shared, dropout_key: jax.Array | None = None) -> jax.Array:
        return transformer.attention(self.arrays(), x_BTD, shared, self.config, dropout_key)


class MLP(Part):
    """What the MLP adds to the stream [B, T, D]."""

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return transformer.mlp(self.arrays(), x_BTD, self.config)


class Block(nnx.Module):
    """One layer: attention, then the MLP, each after a norm of its own."""

    def __init__(self, config: ModelConfig, own: Params) -> None:
        self.config = config
        self.attention_norm = Norm(config, own, PARTS["attention_norm"])
        self.attention = Attention(config, own, PARTS["attention"])
        self.mlp_norm = Norm(config, own, PARTS["mlp_norm"])
        self.mlp = MLP(config, own, PARTS["mlp"])

    def __call__(self, x_BTD: jax.Array, shared: Shared, dropout_key: jax.Array | None = None) -> jax.Array:
        scale, rate = residual_multiplier(self.config), self.config.residual_dropout
        keys = [None] * 3 if dropout_key is None else list(jax.random.split(dropout_key, 3))
        added = self.attention(self.attention_norm(x_BTD), shared, keys[0])
        x_BTD = x_BTD + scale * transformer.dropped(added, rate, keys[1])
        added = self.mlp(self.mlp_norm(x_BTD))
        return x_BTD + scale * transformer.dropped(added, rate, keys[2])

    def leaves(self) -> Params:
        """Name -> array of this layer."""
        return {name: value for part in PARTS for name, value in getattr(self, part).leaves().items()}


class Embedding(Part):
    """Tokens [B, T] to the stream [B, T, D], learned positions included."""

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        arrays = self.arrays()
        x_BTD = arrays["embedding"][tokens_BT]
        if "positions" in arrays:
            x_BTD = x_BTD + arrays["positions"][None, : tokens_BT.shape[1]]
        return x_BTD * embedding_multiplier(self.config)

    def table(self) -> jax.Array:
        """Token vectors [V, D] in the compute dtype: turned over, the head of a tied model."""
        return self.arrays()["embedding"]


class Head(Part):
    """The matrix from the stream to logits; without leaves where embeddings are tied."""

    def __call__(self, embedding: Embedding) -> jax.Array:
        """[D, V] in the compute dtype."""
        return self.arrays()["head"] if self.names else embedding.table().T


class Transformer(nnx.Module):
    """The whole model; `params()` is what `parameters.init` gives and `model.logits` takes."""

    def __init__(self, config: ModelConfig, params: Params) -> None:
        """Modules that hold the arrays of `params`. Raises `UserError` for parameters of another configuration."""
        _check_params(config, params)
        stacked = {name for name, row in parameter_table(config).items() if row.axes[0] == "layers"}
        layers = [{name: params[name][number] for name in stacked} for number in range(config.layers)]
        self.config = config
        self.embedding = Embedding(config, params, ("embedding", "positions"))
        self.blocks = nnx.List([Block(config, own) for own in layers])
        self.final_norm = Norm(config, params, ("final_norm", "final_norm_bias"))
        self.head = Head(config, params, ("head",))

    def params(self) -> Params:
        """Name -> array, layers stacked: the mapping that it was made of, with the values that the leaves have now."""
        layers = [block.leaves() for block in self.blocks]
        stacked = {name: jnp.stack([own[name] for own in layers]) for name in layers[0]}
        whole = {**self.embedding.leaves(), **stacked, **self.final_norm.leaves(), **self.head.leaves()}
        return {name: whole[name] for name in parameter_table(self.config)}

    def shared(self, tokens_BT: jax.Array) -> Shared:
        """What every block needs besides the stream."""
        config = self.config
        return Shared(
            transformer.rotation(np.arange(tokens_BT.shape[1])[None], config) if config.positions == "rotary" else None,
            None if config.document_end is None else transformer.segments(tokens_BT, config.document_end),
        )

    def stream(self, tokens_BT: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """The stream [B, T, D] after the last norm. Dropout is off without a key."""
        config, time = self.config, tokens_BT.shape[1]
        check(
            time <= config.context, f"{time} tokens do not fit the context of {config.context}; cut them to that many"
        )
        keys = [None] * (config.layers + 1)
        if dropout_key is not None:
            keys = list(jax.random.split(dropout_key, config.layers + 1))
        shared = self.shared(tokens_BT)
        x_BTD = transformer.dropped(self.embedding(tokens_BT), config.residual_dropout, keys[-1])
        for block, key in zip(self.blocks, keys):
            x_BTD = block(x_BTD, shared, key)
        return self.final_norm(x_BTD)

    def __call__(self, tokens_BT: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """`model.logits`: [B, T, V] in float32."""
        return self.logits(self.stream(tokens_BT, dropout_key))

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Of the stream after the last norm."""
        logits_BTV = jnp.matmul(x_BTD, self.head(self.embedding), preferred_element_type=jnp.float32)
        logits_BTV = logits_BTV * logit_multiplier(self.config)
        cap = self.config.logit_softcap
        return logits_BTV if cap is None else cap * jnp.tanh(logits_BTV / cap)

    def token_losses(self, tokens_BS: jax.Array, dropout_key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """`model.token_losses`: cross-entropy in nats and log-partition, both [B, S - 1]."""
        inputs_BT, targets_BT = jnp.maximum(tokens_BS[:, :-1], 0), tokens_BS[:, 1:]
        return cross_entropy(
            self.stream(inputs_BT, dropout_key),
            self.head(self.embedding),
            targets_BT,
            scale=logit_multiplier(self.config),
            softcap=self.config.logit_softcap,
            chunk=self.config.loss_chunk or default_chunk(inputs_BT.shape[0], inputs_BT.shape[1], self.config.vocab),
        )


def _check_params(config: ModelConfig, params: Params) -> None:
    table = parameter_table(config)
    for name in params:
        check(name in table, f"the configuration has no parameter {name!r}{nearest(name, table)}")
    for name, row in table.items():
        check(name in params, f"the parameters lack {name!r}, which the configuration has; known: {', '.join(params)}")
        shape = params[name].shape
        check(shape == row.shape, f"parameter {name!r} has shape {shape}, but the configuration wants {row.shape}")
