"""Experts with room for a number of tokens of every sequence; the tokens that come last pass them by.

Places are given in the order of the tokens, and the sequence is the pool, so that whether a token finds room depends on
those before it alone: a model can be sampled, cut into micro-batches and spread over devices as it was trained. GShard
(Lepikhin 2020) gives first choices before second ones, and pools a batch. Letters as in `experts`; A places of an
expert, P = T J pairs of a token and a choice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmscale.core.config import ModelConfig
from lmscale.lm.devices.sharding import constrain
from lmscale.lm.model.experts.rows import gather_rows
from lmscale.lm.model.layers import activate
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.tap import NO_TAP, BoundTap

AT_EXPERTS = ("experts", "expert_batch", None, None)
"""Logical axes of [E, B, A, D] where it is multiplied."""


class Occupancy(NamedTuple):
    """What is known of a batch's tokens besides their values."""

    read_BT: jax.Array | None = None
    """Where there is a token and no padding; None has no padding. Padding takes no place."""
    occupied_BE: jax.Array | None = None
    """Tokens of a sequence that chose an expert before these; None are none."""


class Places(NamedTuple):
    """Which choice of a token has which place of an expert."""

    pair_BEA: jax.Array
    """Number of the pair t J + j in a place; P in an empty one."""
    place_BTJ: jax.Array
    """Number of the place e A + a of a choice; E A of one that found no room."""
    has_room_BTJ: jax.Array
    """Which choices have a place."""


def places(experts_BTJ: jax.Array, config: ModelConfig, occupancy: Occupancy) -> Places:
    """The places of a batch's choices, in the order of the tokens."""
    batch, time, choices = experts_BTJ.shape
    experts, most, room = config.experts, *_room(config, time)
    if occupancy.read_BT is not None:
        experts_BTJ = jnp.where(occupancy.read_BT[:, :, None], experts_BTJ, experts)
    experts_BP = experts_BTJ.reshape(batch, -1)
    sizes_BE = jax.nn.one_hot(experts_BP, experts, dtype=jnp.int32).sum(axis=1)
    free_BE = jnp.full_like(sizes_BE, most) if occupancy.occupied_BE is None else most - occupancy.occupied_BE
    offsets_BE = jnp.cumsum(sizes_BE, axis=1) - sizes_BE
    order_BP = jnp.argsort(experts_BP, axis=1, stable=True)
    own_BP = jnp.minimum(experts_BP, experts - 1)
    rank_BP = jnp.argsort(order_BP, axis=1) - jnp.take_along_axis(offsets_BE, own_BP, axis=1)
    has_room_BP = (experts_BP < experts) & (rank_BP < jnp.take_along_axis(free_BE, own_BP, axis=1))
    place_BP = jnp.where(has_room_BP, own_BP * room + rank_BP, experts * room)
    at_BEA = offsets_BE[:, :, None] + jnp.arange(room)[None, None]
    pair_BEA = jnp.take_along_axis(order_BP, jnp.minimum(at_BEA, time * choices - 1).reshape(batch, -1), axis=1)
    taken_BEA = jnp.arange(room)[None, None] < jnp.minimum(free_BE, sizes_BE)[:, :, None]
    shape = batch, time, choices
    return Places(
        jnp.where(taken_BEA, pair_BEA.reshape(at_BEA.shape), time * choices),
        place_BP.reshape(shape),
        has_room_BP.reshape(shape),
    )


def _room(config: ModelConfig, time: int) -> tuple[int, int]:
    """Most tokens of a sequence that an expert reads, and places for them: of so many tokens no more can choose it."""
    assert config.expert_capacity is not None
    return config.expert_capacity, min(config.expert_capacity, time)


def with_capacity(
    layer_params: Params,
    x_BTD: jax.Array,
    experts_BTJ: jax.Array,
    gates_BTJ: jax.Array,
    config: ModelConfig,
    occupancy: Occupancy,
    tap: BoundTap = NO_TAP,
) -> tuple[jax.Array, jax.Array]:
    """[B, T, D]: the outputs of the experts that had room for a token, each times its gate, summed in float32; and
    which choices found room [B, T, J]."""
    batch, time, choices = experts_BTJ.shape
    pair_BEA, place_BTJ, has_room_BTJ = places(experts_BTJ, config, occupancy)
    rows = jax.vmap(gather_rows)
    x_BRD = rows(x_BTD, pair_BEA.reshape(batch, -1) // choices, place_BTJ)
    # On a mesh the places go to the devices of their experts, and what becomes of them goes back: two all-to-alls.
    x_EBAD = constrain(jnp.moveaxis(x_BRD.reshape(*pair_BEA.shape, -1), 1, 0), *AT_EXPERTS)
    hidden_EBAF = activate(jnp.einsum("ebad,edcf->ebacf", x_EBAD, layer_params["experts_in"]), config)
    hidden_EBAF = _tapped(hidden_EBAF, pair_BEA, place_BTJ, tap)
    y_EBAD = constrain(jnp.einsum("ebaf,efd->ebad", hidden_EBAF, layer_params["experts_out"]), *AT_EXPERTS)
    y_BRD = constrain(jnp.moveaxis(y_EBAD, 0, 1).reshape(batch, -1, x_BTD.shape[-1]), "batch", None, None)
    y_BPD = rows(y_BRD, place_BTJ.reshape(batch, -1), pair_BEA.reshape(batch, -1, 1))
    y_BTJD = y_BPD.reshape(batch, time, choices, -1)
    return (y_BTJD * gates_BTJ[:, :, :, None]).sum(axis=2).astype(x_BTD.dtype), has_room_BTJ


def _tapped(hidden_EBAF: jax.Array, pair_BEA: jax.Array, place_BTJ: jax.Array, tap: BoundTap) -> jax.Array:
    """Hidden units in the order of the tokens for the tap, zeros where there was no room, and in their places again."""
    if not tap.taps("expert_hidden"):
        return hidden_EBAF
    batch, time, choices = place_BTJ.shape
    rows, hidden = jax.vmap(gather_rows), hidden_EBAF.shape[-1]
    flat_BRF = jnp.moveaxis(hidden_EBAF, 0, 1).reshape(batch, -1, hidden)
    there_BPF = rows(flat_BRF, place_BTJ.reshape(batch, -1), pair_BEA.reshape(batch, -1, 1))
    there_BTJF = tap("expert_hidden", there_BPF.reshape(batch, time, choices, hidden))
    back = rows(there_BTJF.reshape(batch, -1, hidden), pair_BEA.reshape(batch, -1), place_BTJ.reshape(batch, -1, 1))
    return jnp.moveaxis(back.reshape(*pair_BEA.shape, hidden), 1, 0)
