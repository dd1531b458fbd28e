"""Floating-point operations of a traced program: its matrix products, loops counted by their length.

Counted before the compiler sees the program, when every shape and length is known, so what rematerialisation computes
twice counts twice. Hand-written kernels are not looked into.
"""

import math
from collections.abc import Iterator
from typing import Any

KERNELS = ("pallas_call", "tpu_custom_call")


def matmul_flops(jaxpr: Any) -> float:
    """FLOPs of all matrix products of a jaxpr on all devices together, a multiply-add counting two."""
    return sum(_flops(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _flops(equation: Any) -> float:
    name = equation.primitive.name
    if name == "dot_general":
        return _dot_flops(equation)
    if name.startswith("ragged_dot"):
        rows, inputs = equation.invars[0].aval.shape[-2:]
        return 2.0 * rows * inputs * equation.outvars[0].aval.shape[-1]
    if name in KERNELS:
        return 0.0
    inner = [matmul_flops(jaxpr) for jaxpr in _jaxprs(equation.params)]
    if name == "cond":
        return max(inner, default=0.0)
    times = 1
    if name == "scan":
        times = equation.params["length"]
    elif name == "shard_map":
        times = equation.params["mesh"].size
    return times * sum(inner)


def _dot_flops(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item
