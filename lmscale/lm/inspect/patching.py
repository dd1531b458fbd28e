"""Patches: values of one prompt put into the forward pass of another, many of them as rows of one batch.

A row is a prompt and a mask, which says where its values are replaced; what replaces them comes from a source: recorded
values of other prompts, or constants. Letters as in `transformer`; N prompts, R rows, U units of a kind in one layer.
"""

from collections.abc import Mapping
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.core.errors import nearest
from lmscale.lm.devices.sharding import batch_devices
from lmscale.lm.inspect import expert_neurons
from lmscale.lm.model import transformer
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import Tap, record

Masks = Mapping[str, jax.Array]
"""Site -> where its value is replaced, bool [R, L, T or 1, U or 1]; L is 1 at a site outside of the layers."""
Sources = Mapping[str, jax.Array]
"""Site -> what replaces it: as a tap records it, [L, N, T, ...] or [N, T, ...], or with 1 for any of N and T."""
MEMORY_BYTES = 2**28
"""What the recorded values of a group of prompts, or the logits of a batch, may take."""


class Mediator(NamedTuple):
    """A kind of unit whose effect is measured one unit at a time."""

    site: str
    resolves: Literal["units", "positions"]
    """Whether its units lie beside each other in a layer, at all positions at once, or at the positions of a prompt."""
    meaning: str


MEDIATORS: dict[str, Mediator] = {
    "heads": Mediator("head_outputs", "units", "one head at all positions, before the output projection"),
    "attention": Mediator("attention_output", "units", "what attention adds in one layer, at all positions"),
    "mlps": Mediator("mlp_output", "units", "what the MLP adds in one layer, at all positions"),
    "neurons": Mediator("mlp_hidden", "units", "one neuron of an MLP, or of an expert, at all positions that have it"),
    "positions": Mediator("residual_post", "positions", "the residual stream after one layer, at one position"),
}
"""Name -> mediator (Vig 2020 takes heads and neurons, Meng 2022 the others)."""


def mediator(name: str) -> Mediator:
    """The mediator of a name. Raises `UserError` naming the nearest."""
    check(name in MEDIATORS, f"{name!r} is no kind of unit{nearest(name, MEDIATORS)}; take {', '.join(MEDIATORS)}")
    return MEDIATORS[name]


def unit_shape(name: str, config: ModelConfig, time: int) -> tuple[int, int]:
    """(L, units in a layer) of a mediator for prompts of so many tokens."""
    units = {"heads": config.heads, "neurons": neuron_count(config), "positions": time}
    return config.layers, units.get(name, 1)


def neuron_count(config: ModelConfig) -> int:
    """Neurons of a layer, those of all experts included."""
    if not config.sparse:
        return config.hidden
    return expert_neurons.routed_count(config) + expert_neurons.shared_count(config)


def mediator_sites(name: str, config: ModelConfig) -> tuple[str, ...]:
    """The sites whose values a mediator is replaced by."""
    if name == "neurons" and config.sparse:
        return expert_neurons.neuron_sites(config)
    return (mediator(name).site,)


def one_unit(name: str, unit_R: jax.Array, config: ModelConfig, time: int) -> Masks:
    """Masks that replace one unit each; unit i lies in layer i // U at place i % U."""
    layers, units = unit_shape(name, config, time)
    layer_RL = (unit_R // units)[:, None] == jnp.arange(layers)[None]
    unit_RU = (unit_R % units)[:, None] == jnp.arange(units)[None]
    mask_RLU = layer_RL[:, :, None] & unit_RU[:, None, :]
    if name == "neurons":
        return neuron_masks(mask_RLU, config)
    site, resolves, _ = mediator(name)
    return {site: mask_RLU[:, :, None, :] if resolves == "units" else mask_RLU[:, :, :, None]}


def neuron_masks(mask_RLU: jax.Array, config: ModelConfig) -> Masks:
    """Masks that replace some neurons at all positions that have them."""
    mask_RL1U = mask_RLU[:, :, None, :]
    if not config.sparse:
        return {"mlp_hidden": mask_RL1U}
    routed = expert_neurons.routed_count(config)
    parts = {expert_neurons.HIDDEN: mask_RL1U[..., :routed], expert_neurons.SHARED: mask_RL1U[..., routed:]}
    return {site: mask for site, mask in parts.items() if site in expert_neurons.neuron_sites(config)}


def patching_tap(masks: Masks, sources: Sources, source_R: jax.Array, config: ModelConfig) -> Tap:
    """The tap that puts prompt `source_R` of the sources into every row where the masks say so.

    It holds arrays, so that it is made inside the jitted function.
    """
    experts: list[jax.Array] = []  # of the layer that runs

    def patch(site: str, value: jax.Array, layer: jax.Array | None) -> tuple[jax.Array, None]:
        if site == expert_neurons.EXPERTS:
            experts[:] = [expert_neurons.taken(value, config)]
            return value, None
        mask = masks[site][:, 0 if layer is None else layer]
        if site == expert_neurons.HIDDEN:
            mask, source = _of_experts(mask, sources, experts[0], source_R, layer, config)
        else:
            source = _of_rows(sources[site], source_R, layer)
            mask = mask.reshape(*mask.shape, *(1,) * (value.ndim - 3))
        return jnp.where(mask, source.astype(value.dtype), value), None

    before = (expert_neurons.EXPERTS,) if expert_neurons.HIDDEN in masks else ()
    return Tap((*before, *masks), patch)


def _of_rows(source: jax.Array, source_R: jax.Array, layer: jax.Array | None) -> jax.Array:
    """What a source has for every row in one layer."""
    source = source if layer is None else source[layer]
    return source if source.shape[0] == 1 else source[source_R]


def _of_experts(
    mask_RTU: jax.Array,
    sources: Sources,
    experts_RTJ: jax.Array,
    source_R: jax.Array,
    layer: jax.Array | None,
    config: ModelConfig,
) -> tuple[jax.Array, jax.Array]:
    """Where the neurons of the experts that a token takes are replaced, and what replaces them, [R, T, J, F]: means of
    every expert's neurons, or where the sources name experts, what they recorded."""
    mask_RTJF = expert_neurons.masks_of_choices(mask_RTU, experts_RTJ, config)
    source = _of_rows(sources[expert_neurons.HIDDEN], source_R, layer)
    if expert_neurons.EXPERTS not in sources:
        return mask_RTJF, expert_neurons.means_of_choices(source[0, 0], experts_RTJ)
    others_RTJ = expert_neurons.taken(_of_rows(sources[expert_neurons.EXPERTS], source_R, layer), config)
    same_RTJ, place_RTJ = expert_neurons.in_common(experts_RTJ, others_RTJ)
    return mask_RTJF & same_RTJ[..., None], jnp.take_along_axis(source, place_RTJ[..., None], axis=2)


def logits_at(
    params: Params, tokens_RT: jax.Array, end_R: jax.Array, config: ModelConfig, tap: Tap | None = None
) -> jax.Array:
    """Logits [R, V] of the token after position `end_R` of every row; those behind it change nothing."""
    final_RTD, cast_params, _, _ = transformer.final_residual(params, tokens_RT, config, None, tap)
    last_R1D = jnp.take_along_axis(final_RTD, end_R[:, None, None], axis=1)
    return transformer.unembed(last_R1D, transformer.head(cast_params, config), config)[:, 0]


@partial(jax.jit, static_argnames=("config", "sites"))
def recorded(params: Params, tokens_NT: jax.Array, config: ModelConfig, sites: tuple[str, ...]) -> dict[str, jax.Array]:
    """The values of the sites for every prompt."""
    return transformer.final_residual(params, tokens_NT, config, None, record(*sites))[2]


def chunks(rows: int, row_bytes: int, most: int = 256) -> list[NDArray[np.int32]]:
    """The numbers 0 to `rows` - 1 in batches of one size, which the last repeats its last number to fill.

    A batch divides over the devices of the mesh, and its rows take at most `MEMORY_BYTES`.
    """
    devices = batch_devices()
    size = min(most, max(1, MEMORY_BYTES // max(1, row_bytes)), rows)
    size = -(-size // devices) * devices
    padded = np.minimum(np.arange(-(-rows // size) * size, dtype=np.int32), rows - 1)
    return list(padded.reshape(-1, size))
