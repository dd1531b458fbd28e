"""Low-rank adapters as rows of the parameter table: their shapes, what is trained, and the model without them.

R is the rank; other letters as in `parameters`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import jax

from lmscale.core.config import ModelConfig
from lmscale.lm.model.parameter_spec import ParameterSpec

A, B = "_lora_a", "_lora_b"
T = TypeVar("T")


def adapter_rows(table: Mapping[str, ParameterSpec], config: ModelConfig) -> dict[str, ParameterSpec]:
    """The factors of every adapted matrix [L, inputs..., outputs...]: A [L, inputs..., R] and B [L, R, outputs...].

    A starts at random with the variance of its fan-in, B at 0, so that training starts from the model itself (Hu 2021,
    section 4.1). Under mup and completep A is a matrix of the layers, and B, whose inputs do not grow, a table.
    """
    rows = {}
    for name in config.lora.matrices if config.lora else ():
        matrix = table[name]
        inner = len(matrix.inputs)
        fan_in = 1
        for axis in matrix.inputs:
            fan_in *= matrix.shape[axis]
        R = config.lora.rank if config.lora else 0
        rows[name + A] = replace(
            matrix,
            shape=(*matrix.shape[: 1 + inner], R),
            axes=(*matrix.axes[: 1 + inner], None),
            outputs=(1 + inner,),
            std=fan_in**-0.5,
        )
        rows[name + B] = replace(
            matrix,
            shape=(matrix.shape[0], R, *matrix.shape[1 + inner :]),
            axes=(matrix.axes[0], None, *matrix.axes[1 + inner :]),
            inputs=(1,),
            outputs=tuple(axis - inner + 1 for axis in matrix.outputs),
            std=0.0,
            lr_multiplier=1.0,
            decay_multiplier=1.0,
        )
    return rows


def is_adapter(name: str) -> bool:
    """Whether a row of the parameter table is a factor of an adapter."""
    return name.endswith((A, B))


def trained(values: Mapping[str, T], config: ModelConfig) -> dict[str, T]:
    """The values of the parameters that are trained: all, or the adapters alone."""
    return {name: value for name, value in values.items() if config.lora is None or is_adapter(name)}


def frozen(values: Mapping[str, T], config: ModelConfig) -> dict[str, T]:
    """The values of the parameters that stay as they are."""
    return {name: value for name, value in values.items() if config.lora is not None and not is_adapter(name)}


def merged(params: dict[str, jax.Array], config: ModelConfig) -> tuple[dict[str, jax.Array], ModelConfig]:
    """The parameters W + alpha / R A B, and the model without adapters that they are of."""
    if config.lora is None:
        return params, config
    whole = frozen(params, config)
    for name in config.lora.matrices:
        matrix, a, b = params[name], params[name + A], params[name + B]
        layers, rank = matrix.shape[0], config.lora.rank
        product = a.reshape(layers, -1, rank) @ b.reshape(layers, rank, -1)
        whole[name] = matrix + (config.lora.scale * product.reshape(matrix.shape)).astype(matrix.dtype)
    return whole, replace(config, lora=None)
