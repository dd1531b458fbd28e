"""The model as a tree of Flax NNX modules, for those who work in modules; nothing else in the package needs it.

    transformer = Transformer(config, params)      # from the parameters of a run
    logits_BTV = transformer(tokens_BT)
    transformer.blocks[0].mlp = MyMLP(...)         # a module of your own
    params = transformer.params()                  # back, as long as the modules are the package's

Every module computes with the functions of `transformer` and `layers`, and its leaves bear the names of
`parameters.parameter_table`, one array per layer instead of one stacked array. Layers are written out and nothing is
rematerialised: `scan_layers` and `remat` are for the run itself. Letters as in `transformer`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lmscale.core.config import ModelConfig, check
from lmscale.core.errors import nearest
from lmscale.lm.model import layers, transformer
from lmscale.lm.model.cross_entropy import cross_entropy, default_chunk
from lmscale.lm.model.parameters import (
    Params,
    cast,
    embedding_multiplier,
    logit_multiplier,
    parameter_table,
)
from lmscale.lm.model.transformer import LayerFunctions, LayerInputs

LEAVES = {
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
    "mlp": (
        "mlp_in", "mlp_in_bias", "mlp_out", "mlp_out_bias",
        "router", "router_bias", "experts_in", "experts_out", "shared_in", "shared_out",
    ),
}  # fmt: skip
"""Module of a block -> its rows of the parameter table, where the configuration has them."""


class Leaves(nnx.Module):
    """A module that holds the arrays of the given names, as far as there are any, each as an `nnx.Param`."""

    def __init__(self, config: ModelConfig, arrays: Params, names: tuple[str, ...]) -> None:
        self.config = config
        self.names = tuple(name for name in names if name in arrays)
        for name in self.names:
            setattr(self, name, nnx.Param(arrays[name]))

    def leaves(self) -> Params:
        """Name -> array as it is stored."""
        return {name: getattr(self, name).get_value() for name in self.names}

    def arrays(self) -> Params:
        """Name -> array in the compute dtype."""
        return cast(self.leaves(), self.config)


class Norm(Leaves):
    """RMSNorm or LayerNorm over the last axis."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return layers.norm(x, self.names[0], self.arrays(), self.config)


class Attention(Leaves):
    """What attention adds to the residual stream [B, T, D]."""

    def __call__(self, x_BTD: jax.Array, inputs: LayerInputs, dropout_key: jax.Array | None = None) -> jax.Array:
        attend = transformer.full_attention(inputs, self.config)
        return transformer.attention(self.arrays(), x_BTD, inputs.rope, attend, self.config, dropout_key)[0]


class MLP(Leaves):
    """What the MLP, or the experts that a token takes, add to the residual stream [B, T, D]."""

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return transformer.feed_forward(self.arrays(), x_BTD, self.config)[0]


class Block(nnx.Module):
    """One layer: attention, then the MLP, each after a norm of its own."""

    def __init__(self, config: ModelConfig, layer_params: Params) -> None:
        self.config = config
        self.attention_norm = Norm(config, layer_params, LEAVES["attention_norm"])
        self.attention = Attention(config, layer_params, LEAVES["attention"])
        self.mlp_norm = Norm(config, layer_params, LEAVES["mlp_norm"])
        self.mlp = MLP(config, layer_params, LEAVES["mlp"])

    def __call__(self, residual_BTD: jax.Array, inputs: LayerInputs, dropout_key: jax.Array | None = None) -> jax.Array:
        functions = LayerFunctions(
            self.attention_norm,
            lambda x_BTD, key: (self.attention(x_BTD, inputs, key), {}),
            self.mlp_norm,
            lambda x_BTD: (self.mlp(x_BTD), {}),
        )
        return transformer.block(residual_BTD, functions, self.config, dropout_key)[0]

    def leaves(self) -> Params:
        """Name -> array of this layer."""
        return {name: value for module in LEAVES for name, value in getattr(self, module).leaves().items()}


class Embedding(Leaves):
    """Tokens [B, T] to the residual stream [B, T, D], learned positions included."""

    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        arrays = self.arrays()
        residual_BTD = arrays["embedding"][tokens_BT]
        if "positions" in arrays:
            residual_BTD = residual_BTD + arrays["positions"][None, : tokens_BT.shape[1]]
        return residual_BTD * embedding_multiplier(self.config)

    def table(self) -> jax.Array:
        """Token vectors [V, D] in the compute dtype: transposed, the head of a tied model."""
        return self.arrays()["embedding"]


class Head(Leaves):
    """The matrix from the residual stream to logits; without leaves where embeddings are tied."""

    def __call__(self, embedding: Embedding) -> jax.Array:
        """[D, V] in the compute dtype."""
        return self.arrays()["head"] if self.names else embedding.table().T


class Transformer(nnx.Module):
    """The whole model; `params()` is what `parameters.init` gives and `transformer.logits` takes."""

    def __init__(self, config: ModelConfig, params: Params) -> None:
        """Modules that hold the arrays of `params`. Raises `UserError` for parameters of another configuration."""
        check(config.lora is None, "the nnx tree has no adapters; give it what lora.merged gives")
        _check_params(config, params)
        stacked = {name for name, row in parameter_table(config).items() if row.axes[0] == "layers"}
        by_layer = [{name: params[name][number] for name in stacked} for number in range(config.layers)]
        self.config = config
        self.embedding = Embedding(config, params, ("embedding", "positions"))
        self.blocks = nnx.List([Block(config, layer_params) for layer_params in by_layer])
        self.final_norm = Norm(config, params, ("final_norm", "final_norm_bias"))
        check(not config.scalar_head, "a reward model gives one number and no next token; take the pure functions")
        self.head = Head(config, params, ("head",))

    def params(self) -> Params:
        """Name -> array, layers stacked: the mapping that the model was built from, with the leaves' present values."""
        by_layer = [block.leaves() for block in self.blocks]
        stacked = {name: jnp.stack([leaves[name] for leaves in by_layer]) for name in by_layer[0]}
        whole = {**self.embedding.leaves(), **stacked, **self.final_norm.leaves(), **self.head.leaves()}
        return {name: whole[name] for name in parameter_table(self.config)}

    def final_residual(self, tokens_BT: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """The residual stream [B, T, D] after the last norm. Dropout is off without a key."""
        config, inputs = self.config, transformer.layer_inputs(tokens_BT, self.config)
        keys = [None] * (config.layers + 1)
        if dropout_key is not None:
            keys = list(jax.random.split(dropout_key, config.layers + 1))
        residual_BTD = layers.dropout(self.embedding(tokens_BT), config.residual_dropout, keys[-1])
        for block, key in zip(self.blocks, keys):
            residual_BTD = block(residual_BTD, inputs, key)
        return self.final_norm(residual_BTD)

    def __call__(self, tokens_BT: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """`transformer.logits`: [B, T, V] in float32."""
        return transformer.unembed(self.final_residual(tokens_BT, dropout_key), self.head(self.embedding), self.config)

    def token_losses(self, tokens_BS: jax.Array, dropout_key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """`transformer.token_losses`: cross-entropy in nats and log-partition, both [B, S - 1]."""
        inputs_BT, targets_BT = jnp.maximum(tokens_BS[:, :-1], 0), tokens_BS[:, 1:]
        return cross_entropy(
            self.final_residual(inputs_BT, dropout_key),
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
        check(shape == row.shape, f"parameter {name!r} has shape {shape}, but the configuration has {row.shape}")
