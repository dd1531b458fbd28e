"""Exact first derivatives of a law by forward differentiation: numbers that carry their tangents.

A `Dual` goes through a law's `loss` in place of a parameter. It knows + - * / **, negation and the NumPy functions
below; tangents that are zero are not stored, so a term costs only the parameters it holds.
"""

from typing import Any

import numpy as np

from lmscale.core.errors import UserError


class Dual:
    """value + sum_k tangents[k] epsilon_k; value and tangents are arrays that broadcast together."""

    __slots__ = ("tangents", "value")

    def __init__(self, value: Any, tangents: dict[int, Any]) -> None:
        self.value, self.tangents = value, tangents

    def _chain(self, value: Any, slope: Any) -> "Dual":
        return Dual(value, {k: slope * t for k, t in self.tangents.items()})

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or ufunc not in _RULES:
            raise UserError(
                f"a law's loss uses {ufunc.__name__}, which has no derivative rule here; "
                f"known: {', '.join(sorted(known.__name__ for known in _RULES))}"
            )
        return _RULES[ufunc](*args)

    def __neg__(self) -> "Dual":
        return self._chain(-self.value, -1.0)

    def __add__(self, other: Any) -> Any:
        return _add(self, other)

    def __sub__(self, other: Any) -> Any:
        return _add(self, -other)

    def __mul__(self, other: Any) -> Any:
        return _multiply(self, other)

    def __truediv__(self, other: Any) -> Any:
        return _divide(self, other)

    def __pow__(self, other: Any) -> Any:
        return _power(self, other)

    def __radd__(self, other: Any) -> Any:
        return _add(other, self)

    def __rsub__(self, other: Any) -> Any:
        return _add(other, -self)

    def __rmul__(self, other: Any) -> Any:
        return _multiply(other, self)

    def __rtruediv__(self, other: Any) -> Any:
        return _divide(other, self)

    def __rpow__(self, other: Any) -> Any:
        return _power(other, self)


def _join(value: Any, *parts: tuple[Any, Any]) -> Dual:
    """value with the tangents of every (dual or plain, slope) pair."""
    tangents: dict[int, Any] = {}
    for of, slope in parts:
        if isinstance(of, Dual):
            for key, tangent in of.tangents.items():
                term = slope * tangent
                tangents[key] = tangents[key] + term if key in tangents else term
    return Dual(value, tangents)


def _plain(x: Any) -> Any:
    return x.value if isinstance(x, Dual) else x


def _add(x: Any, y: Any) -> Dual:
    return _join(_plain(x) + _plain(y), (x, 1.0), (y, 1.0))


def _multiply(x: Any, y: Any) -> Dual:
    return _join(_plain(x) * _plain(y), (x, _plain(y)), (y, _plain(x)))


def _divide(x: Any, y: Any) -> Dual:
    ratio = _plain(x) / _plain(y)
    return _join(ratio, (x, 1 / _plain(y)), (y, -ratio / _plain(y)))


def _power(x: Any, y: Any) -> Dual:
    base, exponent = _plain(x), _plain(y)
    value = base**exponent
    slope_x = value * exponent / base if isinstance(x, Dual) else 0.0
    slope_y = value * np.log(base) if isinstance(y, Dual) else 0.0
    return _join(value, (x, slope_x), (y, slope_y))


def _exp(x: Dual) -> Dual:
    value = np.exp(x.value)
    return x._chain(value, value)


def _minimum(x: Any, y: Any) -> Dual:
    smaller = _plain(x) < _plain(y)
    return _join(np.minimum(_plain(x), _plain(y)), (x, np.where(smaller, 1.0, 0.0)), (y, np.where(smaller, 0.0, 1.0)))


_RULES: dict[Any, Any] = {
    np.add: _add,
    np.subtract: lambda x, y: _add(x, -y),
    np.multiply: _multiply,
    np.true_divide: _divide,
    np.power: _power,
    np.negative: lambda x: -x,
    np.exp: _exp,
    np.expm1: lambda x: x._chain(np.expm1(x.value), np.exp(x.value)),
    np.log: lambda x: x._chain(np.log(x.value), 1 / x.value),
    np.log1p: lambda x: x._chain(np.log1p(x.value), 1 / (1 + x.value)),
    np.sqrt: lambda x: x._chain(np.sqrt(x.value), 0.5 / np.sqrt(x.value)),
    np.square: lambda x: _multiply(x, x),
    np.tanh: lambda x: x._chain(np.tanh(x.value), 1 - np.tanh(x.value) ** 2),
    np.minimum: _minimum,
}
