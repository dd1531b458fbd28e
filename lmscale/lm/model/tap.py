"""Taps: named sites of the forward pass where values can be recorded and replaced.

    tap = record("residual_post", "attention_weights")
    logits_BTV, activations = forward(params, tokens_BT, config, tap)
    activations["residual_post"]                                 # [L, B, T, D]

    def without_head_2_of_layer_5(name, heads_BTHK, layer):
        ablated = heads_BTHK.at[:, :, 2].set(0)
        return jnp.where(layer == 5, ablated, heads_BTHK), None  # the value to go on with; nothing is kept

    logits_BTV, _ = forward(params, tokens_BT, config, Tap(("head_outputs",), without_head_2_of_layer_5))

Which sites are tapped is known when the program is built, so that an untapped pass is the program it always was. A tap
is hashable and may be a static argument of `jax.jit`; one that patches with arrays is made inside the jitted function.
Letters as in `transformer`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax

from lmscale.core.config import ModelConfig, check
from lmscale.core.errors import nearest


class Site(NamedTuple):
    """A site that can be tapped."""

    shape: str
    """Axes of its value; what a tap keeps inside the layers is stacked along a further axis in front, [L, ...]."""
    meaning: str
    in_layer: bool = True
    """Whether every layer has it. Elsewhere there is one value, without an axis of layers, and `layer` is None."""


TAPS: dict[str, Site] = {
    "embedding": Site("B T D", "residual stream that enters the first layer", in_layer=False),
    "residual_pre": Site("B T D", "residual stream before attention"),
    "attention_input": Site("B T D", "the same after the norm: what attention reads"),
    "queries": Site("B T H K", "queries, normed and rotated where the model does so"),
    "keys": Site("B T G K", "keys, likewise; query head h reads key head h // (H / G)"),
    "values": Site("B T G K", "values"),
    "attention_scores": Site("B H T S", "scores before the softmax, `plain.MASKED` where a key is not visible"),
    "attention_weights": Site("B H T S", "softmax of the scores: how much each query reads of each key"),
    "head_outputs": Site("B T H K", "weighted sum of the values, per head, before the output projection"),
    "attention_output": Site("B T D", "what attention adds to the residual stream"),
    "residual_mid": Site("B T D", "residual stream between attention and MLP"),
    "mlp_input": Site("B T D", "the same after the norm: what the MLP reads"),
    "mlp_hidden": Site("B T F", "activations of the MLP's neurons, the branches of SwiGLU multiplied"),
    "mlp_output": Site("B T D", "what the MLP adds to the residual stream"),
    "residual_post": Site("B T D", "residual stream after the layer"),
    "final_norm": Site("B T D", "residual stream after the last norm: what the head reads", in_layer=False),
    "logits": Site("B T V", "float32, scaled and capped as they are returned", in_layer=False),
}
"""Name -> site, in the order of the forward pass. Scores and weights of attention exist only where it is computed by
its formula: tapping them takes that path, which needs memory for [B, H, T, S] per layer."""

EXPERT_TAPS: dict[str, Site] = {
    "router_logits": Site("B T E", "float32, of every expert"),
    "experts": Site("B T J", "int32, the experts that a token chooses, the likeliest one first"),
    "gates": Site("B T J", "float32, of those experts"),
    "expert_hidden": Site("B T J F", "activations of the neurons of those experts"),
    "shared_hidden": Site("B T F", "activations of the neurons of all shared experts"),
}
"""Name -> site that a mixture of experts has in place of `mlp_hidden`."""

Patch = Callable[[str, jax.Array, jax.Array | None], tuple[jax.Array, jax.Array | None]]
"""name, value, layer -> the value to go on with, and what to keep or None.

`layer` is an int32 array, traced where layers run in a loop: compare it by `jnp.where(layer == 5, ...)`, not by `if`.
What is kept may have any shape, the same in every layer."""


@dataclass(frozen=True)
class Tap:
    """A function and the sites at which it is called. Raises `UserError` for a site that does not exist."""

    names: tuple[str, ...]
    function: Patch

    def __post_init__(self) -> None:
        known = TAPS | EXPERT_TAPS
        for name in self.names:
            check(name in known, f"{name!r} names no site of the forward pass{nearest(name, known)}")

    def check_sites(self, config: ModelConfig) -> None:
        """Raise `UserError` for a site that a model of this configuration does not have."""
        known = sites(config)
        for name in self.names:
            check(
                name in known,
                f"a model with experts = {config.experts} and shared_experts = {config.shared_experts} has no site "
                f"{name!r}; it has {', '.join(known)}",
            )


def sites(config: ModelConfig) -> list[str]:
    """Names of the sites that a model has."""
    if not config.sparse:
        return [*TAPS]
    absent = {"mlp_hidden"} if config.shared_experts else {"mlp_hidden", "shared_hidden"}
    return [name for name in TAPS | EXPERT_TAPS if name not in absent]


def record(*names: str) -> Tap:
    """The tap that keeps the values of the named sites and changes nothing."""
    return Tap(names, _keep)


def _keep(name: str, value: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    return value, value


class BoundTap:
    """A tap inside one layer, or outside of all: called with the values there, it collects what is to be kept."""

    def __init__(self, tap: Tap | None, layer: jax.Array | None = None) -> None:
        self._tap, self._layer = tap, layer
        self.activations: dict[str, jax.Array] = {}

    def taps(self, *names: str) -> bool:
        """Whether one of these sites is tapped."""
        return self._tap is not None and not set(names).isdisjoint(self._tap.names)

    def __call__(self, name: str, value: jax.Array) -> jax.Array:
        """The value to go on with. Raises `UserError` where the tap changes its shape or type."""
        if self._tap is None or name not in self._tap.names:
            return value
        patched, activation = self._tap.function(name, value, self._layer)
        check(
            (patched.shape, patched.dtype) == (value.shape, value.dtype),
            f"the tap at {name!r} turns {value.dtype}{list(value.shape)} into {patched.dtype}{list(patched.shape)}; "
            "return a value of the same shape and type",
        )
        if activation is not None:
            self.activations[name] = activation
        return patched


NO_TAP = BoundTap(None)
