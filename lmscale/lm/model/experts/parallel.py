"""Experts on a mesh: each device multiplies the rows of its own experts, which all-to-all brings to it.

A device sorts what its router chose by expert and sends each row to the device that holds the expert. The first
exchange has room for `SLACK` times an even share; what is left over goes in smaller exchanges, as many as the fullest
device needs and none where the router is balanced. So shapes are static, no row is dropped, and no device ever holds
or multiplies all rows. (`jax.lax.ragged_all_to_all` would do it in one exchange, into a buffer that could hold all
rows; XLA has none for CPUs.)

Letters beside those of `experts`: N tokens of a device, C = N J choices of theirs, P devices along the expert axis, X
experts of a device, E = P X experts, R rows that a device sends to another in one exchange, S = P R slots of rows.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lmscale.core.config import ModelConfig
from lmscale.lm.devices.sharding import Axes, batch_devices, mesh_axis_size, spec
from lmscale.lm.model.experts.dropless import count, dropless, hidden_of_experts
from lmscale.lm.model.experts.grouped import block_rows, grouped_matmul
from lmscale.lm.model.experts.rows import gather_rows
from lmscale.lm.model.parameters import Params, parameter_table

SLACK = 1.25
"""Room of the first exchange over an even share."""
LATER_ROOM = 0.25
"""Room of each later exchange over that of the first: about what the last one sends in vain."""


class Choices(NamedTuple):
    """Where the choices of a device's tokens go: integers that every exchange reads."""

    order_C: jax.Array
    """Choices sorted by expert."""
    first_P: jax.Array
    """Where those of each device begin in that order."""
    sent_P: jax.Array
    """Choices for the experts of each device."""
    received_PX: jax.Array
    """Choices of each device for each of this device's experts."""
    device_NJ: jax.Array
    """The device of each choice."""
    place_NJ: jax.Array
    """The place of each choice among those for its device."""


def divides(batch: int, time: int, experts: int) -> bool:
    """Whether there is a mesh of several devices, over which a batch and experts divide evenly."""
    axes = (batch, batch_devices()), (time, mesh_axis_size("sequence")), (experts, mesh_axis_size("expert"))
    several = jax.sharding.get_abstract_mesh().size > 1
    return several and all(size % devices == 0 for size, devices in axes)


def experts_on_each_device(
    layer_params: Params, x_BTD: jax.Array, experts_BTJ: jax.Array, gates_BTJ: jax.Array, config: ModelConfig
) -> jax.Array:
    """[B, T, D]: the outputs of every token's experts, each times its gate, computed where the experts are.

    Needs `divides`.
    """
    mesh_axes, table = jax.sharding.get_abstract_mesh().axis_names, parameter_table(config)
    tokens = spec(("batch", "time", None))
    weights = {name: layer_params[name] for name in ("experts_in", "experts_out")}
    shares = {name: _without_fsdp(table[name].axes[1:]) for name in weights}
    # A loop that runs as often as one device needs does not say what varies over the mesh.
    mapped = jax.shard_map(
        partial(_on_device, config, mesh_axes), in_specs=(shares, *[tokens] * 3), out_specs=tokens, check_vma=False
    )
    return mapped(weights, x_BTD, experts_BTJ, gates_BTJ)


def _without_fsdp(axes: Axes) -> PartitionSpec:
    """Weights are gathered over fsdp where they are used, and their gradients are summed back over it."""
    return spec(tuple(None if axis == "embed" else axis for axis in axes))


def _on_device(
    config: ModelConfig,
    mesh_axes: tuple[str, ...],
    weights: Params,
    x_BTD: jax.Array,
    experts_BTJ: jax.Array,
    gates_BTJ: jax.Array,
) -> jax.Array:
    """`experts_on_each_device` for one device's share of every array."""
    if mesh_axis_size("expert") == 1:
        y_BTD = dropless(weights, x_BTD, experts_BTJ, gates_BTJ, config)
    else:
        y_BTD = _exchanged(weights, x_BTD, experts_BTJ, gates_BTJ, config, mesh_axes)
    # each device has summed over its share of the hidden units
    return y_BTD if mesh_axis_size("tensor") == 1 else jax.lax.psum(y_BTD, "tensor")


def _exchanged(
    weights: Params,
    x_BTD: jax.Array,
    experts_BTJ: jax.Array,
    gates_BTJ: jax.Array,
    config: ModelConfig,
    mesh_axes: tuple[str, ...],
) -> jax.Array:
    """[B, T, D]: the gated sum over the experts of each of a device's tokens, wherever they are."""
    x_ND, experts_NJ = x_BTD.reshape(-1, x_BTD.shape[-1]), experts_BTJ.reshape(-1, experts_BTJ.shape[-1])
    devices = mesh_axis_size("expert")
    choices = _choices(experts_NJ, devices, config.experts // devices)
    room = math.ceil(min(SLACK / devices, 1) * experts_NJ.size)
    y_NJD = _exchange(config, room, choices, weights, x_ND, 0)
    if room < experts_NJ.size:
        later = math.ceil(LATER_ROOM * room)
        end = jax.lax.pmax(jnp.max(choices.sent_P), mesh_axes)  # the same everywhere: all take part in every exchange
        y_NJD += _later_exchanges(config, room, later, choices, weights, x_ND, end)
    y_BTJD = y_NJD.reshape(*experts_BTJ.shape, -1)
    return (y_BTJD * gates_BTJ[:, :, :, None]).sum(axis=2).astype(x_BTD.dtype)


def _choices(experts_NJ: jax.Array, devices: int, local: int) -> Choices:
    """Sort the choices by expert; tell every device how many to expect."""
    experts_C = experts_NJ.reshape(-1)
    order_C = jnp.argsort(experts_C, stable=True)
    counts_PX = count(experts_C, devices * local).reshape(devices, local)
    sent_P = counts_PX.sum(axis=1)
    first_P = jnp.cumsum(sent_P) - sent_P
    device_C = experts_C // local
    place_C = jnp.argsort(order_C) - first_P[device_C]
    shape = experts_NJ.shape
    return Choices(
        order_C, first_P, sent_P, _to_owners(counts_PX), device_C.reshape(shape), place_C.reshape(shape)
    )  # fmt: skip


def _to_owners(x_P: jax.Array) -> jax.Array:
    """Row p of every device goes to device p, which gets a row from each; a second time, they are back."""
    return jax.lax.all_to_all(x_P, "expert", 0, 0, tiled=True)


def _exchange(
    config: ModelConfig, room: int, choices: Choices, weights: Params, x_ND: jax.Array, start: jax.Array | int
) -> jax.Array:
    """What the experts make of the choices at places `start` to `start + room`, [N, J, D]; 0 for all others."""
    (devices, _), (tokens, taken), width = choices.received_PX.shape, choices.place_NJ.shape, x_ND.shape[1]
    place_R = start + jnp.arange(room)
    slot_NJ = choices.place_NJ - start
    here_NJ = (slot_NJ >= 0) & (slot_NJ < room)
    slot_NJ = jnp.where(here_NJ, choices.device_NJ * room + slot_NJ, devices * room)
    at_PR = jnp.minimum(choices.first_P[:, None] + place_R[None, :], tokens * taken - 1)
    filled_PR = place_R[None, :] < choices.sent_P[:, None]
    choice_S = jnp.where(filled_PR, choices.order_C[at_PR], tokens * taken).reshape(-1)
    sent_SD = gather_rows(x_ND, choice_S // taken, slot_NJ)
    received_PRD = _to_owners(sent_SD.reshape(devices, room, width))
    y_PRD = _to_owners(_by_own_experts(config, choices.received_PX, weights, received_PRD, place_R))
    return gather_rows(y_PRD.reshape(-1, width), slot_NJ.reshape(-1), choice_S[:, None]).reshape(tokens, taken, width)


def _by_own_experts(
    config: ModelConfig, received_PX: jax.Array, weights: Params, x_PRD: jax.Array, place_R: jax.Array
) -> jax.Array:
    """The rows of all devices, each through the expert that its place among its sender's choices tells."""
    ends_PX = jnp.cumsum(received_PX, axis=1)
    expert_S = (place_R[None, :, None] >= ends_PX[:, None, :]).sum(axis=2).reshape(-1)  # X behind the last choice
    slots, local, width = len(expert_S), received_PX.shape[1], x_PRD.shape[2]
    sizes_X, order_S = count(expert_S, local), jnp.argsort(expert_S, stable=True)
    rows = block_rows(slots, local)
    # A row of nobody's is read as zeros, and nothing reads what becomes of it: neither has a share in a gradient.
    order_M = jnp.pad(jnp.where(jnp.arange(slots) < sizes_X.sum(), order_S, slots), (0, rows), constant_values=slots)
    row_S = jnp.where(expert_S < local, jnp.argsort(order_S), slots + rows)
    x_MD = gather_rows(x_PRD.reshape(-1, width), order_M, row_S[:, None])
    hidden_MF = hidden_of_experts(weights, x_MD, sizes_X, rows, config)
    y_MD = grouped_matmul(hidden_MF, weights["experts_out"], sizes_X, rows)
    return gather_rows(y_MD, row_S, order_M[:, None]).reshape(x_PRD.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _later_exchanges(
    config: ModelConfig, start: int, room: int, choices: Choices, weights: Params, x_ND: jax.Array, end: jax.Array
) -> jax.Array:
    """The sum of all exchanges from place `start` up to place `end`, which is known at run time alone.

    The backward pass makes each exchange again: it cannot store what an unknown number of them would need.
    """

    def add(place: jax.Array, total_NJD: jax.Array) -> jax.Array:
        return total_NJD + _exchange(config, room, choices, weights, x_ND, place)

    return _from_place_to_place(start, end, room, add, jnp.zeros((*choices.place_NJ.shape, x_ND.shape[1]), x_ND.dtype))


def _from_place_to_place(start: int, end: jax.Array, room: int, add: Callable[[jax.Array, Any], Any], zero: Any) -> Any:
    """The total to which `add` adds at places `start`, `start + room`, ... below `end`."""

    def one(state: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        return state[0] + room, add(*state)

    return jax.lax.while_loop(lambda state: state[0] < end, one, (jnp.int32(start), zero))[1]


def _later_forward(
    config: ModelConfig, start: int, room: int, choices: Choices, weights: Params, x_ND: jax.Array, end: jax.Array
) -> tuple[jax.Array, Any]:
    return _later_exchanges(config, start, room, choices, weights, x_ND, end), (choices, weights, x_ND, end)


def _later_backward(config: ModelConfig, start: int, room: int, saved: Any, grad_NJD: jax.Array) -> tuple[Any, ...]:
    choices, weights, x_ND, end = saved

    def add(place: jax.Array, total: Any) -> Any:
        def exchange(weights: Params, x_ND: jax.Array) -> jax.Array:
            return _exchange(config, room, choices, weights, x_ND, place)

        return jax.tree.map(jnp.add, total, jax.vjp(exchange, weights, x_ND)[1](grad_NJD))

    zero = jax.tree.map(jnp.zeros_like, (weights, x_ND))
    return None, *_from_place_to_place(start, end, room, add, zero), None


_later_exchanges.defvjp(_later_forward, _later_backward)
