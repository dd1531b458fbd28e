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

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in _FUNCTIONS or len(args) != 3 or kwargs:
            raise UserError(
                f"a law's loss uses {function.__name__} in a way that has no derivative rule here; known: "
                f"np.where(condition, x, y), np.clip(x, low, high)"
            )
        return _FUNCTIONS[function](*args)

    def __lt__(self, other: Any) -> Any:
        return self.value < _plain(other)

    def __le__(self, other: Any) -> Any:
        return self.value <= _plain(other)

    def __gt__(self, other: Any) -> Any:
        return self.value > _plain(other)

    def __ge__(self, other: Any) -> Any:
        return self.value >= _plain(other)

    def __abs__(self) -> "Dual":
        return self._chain(np.abs(self.value), np.sign(self.value))

    def __pos__(self) -> "Dual":
        return self

    def __neg__(self) -> "Dual":
        return self._chain(-self.value, -1.0)

    def __add__(self, other: Any) -> Any:
        return _add(self, other)

    def __sub__(self, other: Any) -> Any:
        return _subtract(self, other)

    def __mul__(self, other: Any) -> Any:
        return _multiply(self, other)

    def __truediv__(self, other: Any) -> Any:
        return _divide(self, other)

    def __pow__(self, other: Any) -> Any:
        return _power(self, other)

    def __radd__(self, other: Any) -> Any:
        return _add(other, self)

    def __rsub__(self, other: Any) -> Any:
        return _subtract(other, self)

    def __rmul__(self, other: Any) -> Any:
        return _multiply(other, self)

    def __rtruediv__(self, other: Any) -> Any:
        return _divide(other, self)

    def __rpow__(self, other: Any) -> Any:
        return _power(other, self)


ONE = 1.0
"""The slope of a sum: its tangents are taken as they are."""


def _join(value: Any, *parts: tuple[Any, Any]) -> Dual:
    """value with the tangents of every (dual or plain, slope) pair."""
    tangents: dict[int, Any] = {}
    for of, slope in parts:
        if isinstance(of, Dual):
            for key, tangent in of.tangents.items():
                term = tangent if slope is ONE else slope * tangent
                tangents[key] = tangents[key] + term if key in tangents else term
    return Dual(value, tangents)


def _plain(x: Any) -> Any:
    return x.value if isinstance(x, Dual) else x


def _add(x: Any, y: Any) -> Dual:
    return _join(_plain(x) + _plain(y), (x, ONE), (y, ONE))


def _subtract(x: Any, y: Any) -> Dual:
    return _join(_plain(x) - _plain(y), (x, ONE), (y, -1.0))


def _multiply(x: Any, y: Any) -> Dual:
    return _join(_plain(x) * _plain(y), (x, _plain(y)), (y, _plain(x)))


def _divide(x: Any, y: Any) -> Dual:
    ratio = _plain(x) / _plain(y)
    return _join(ratio, (x, 1 / _plain(y)), (y, -ratio / _plain(y)))


def _power(x: Any, y: Any) -> Dual:
    base, exponent = _plain(x), _plain(y)
    value = base**exponent
    slope_x = value * exponent / base if isinstance(x, Dual) else 0.0
    # 0 to a positive power is 0, and so is its slope; a logarithm of 0 would make that NaN.
    slope_y = value * np.log(np.where(np.equal(base, 0), 1.0, base)) if isinstance(y, Dual) else 0.0
    return _join(value, (x, slope_x), (y, slope_y))


def _exp(x: Dual) -> Dual:
    value = np.exp(x.value)
    return x._chain(value, value)


def _minimum(x: Any, y: Any) -> Dual:
    smaller = _plain(x) < _plain(y)
    return _join(np.minimum(_plain(x), _plain(y)), (x, np.where(smaller, 1.0, 0.0)), (y, np.where(smaller, 0.0, 1.0)))


def _maximum(x: Any, y: Any) -> Dual:
    larger = _plain(x) > _plain(y)
    return _join(np.maximum(_plain(x), _plain(y)), (x, np.where(larger, 1.0, 0.0)), (y, np.where(larger, 0.0, 1.0)))


def _where(condition: Any, x: Any, y: Any) -> Dual:
    """np.where; tangents of the side that is not taken do not spoil the sum where they are not finite."""
    first = np.asarray(_plain(condition), dtype=bool)
    tangents: dict[int, Any] = {}
    for of, mask in ((x, first), (y, ~first)):
        for key, tangent in of.tangents.items() if isinstance(of, Dual) else ():
            term = np.where(mask, tangent, 0.0)
            tangents[key] = tangents[key] + term if key in tangents else term
    return Dual(np.where(first, _plain(x), _plain(y)), tangents)


def _logaddexp(x: Any, y: Any) -> Dual:
    value = np.logaddexp(_plain(x), _plain(y))
    return _join(value, (x, np.exp(_plain(x) - value)), (y, np.exp(_plain(y) - value)))


def _hypot(x: Any, y: Any) -> Dual:
    value = np.hypot(_plain(x), _plain(y))
    return _join(value, (x, _plain(x) / value), (y, _plain(y) / value))


def _compared(ufunc: Any) -> Any:
    return lambda x, y: ufunc(_plain(x), _plain(y))


LN_2, LN_10 = float(np.log(2)), float(np.log(10))

_RULES: dict[Any, Any] = {
    np.add: _add,
    np.subtract: _subtract,
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
    np.maximum: _maximum,
    np.fmin: _minimum,
    np.fmax: _maximum,
    np.absolute: abs,
    np.fabs: abs,
    np.positive: lambda x: x,
    np.sign: lambda x: np.sign(x.value),
    np.reciprocal: lambda x: _divide(1.0, x),
    np.float_power: _power,
    np.log2: lambda x: x._chain(np.log2(x.value), 1 / (LN_2 * x.value)),
    np.log10: lambda x: x._chain(np.log10(x.value), 1 / (LN_10 * x.value)),
    np.exp2: lambda x: x._chain(np.exp2(x.value), LN_2 * np.exp2(x.value)),
    np.cbrt: lambda x: x._chain(np.cbrt(x.value), 1 / (3 * np.cbrt(x.value) ** 2)),
    np.sinh: lambda x: x._chain(np.sinh(x.value), np.cosh(x.value)),
    np.cosh: lambda x: x._chain(np.cosh(x.value), np.sinh(x.value)),
    np.sin: lambda x: x._chain(np.sin(x.value), np.cos(x.value)),
    np.cos: lambda x: x._chain(np.cos(x.value), -np.sin(x.value)),
    np.arctan: lambda x: x._chain(np.arctan(x.value), 1 / (1 + x.value**2)),
    np.logaddexp: _logaddexp,
    np.hypot: _hypot,
    **{ufunc: _compared(ufunc) for ufunc in (np.less, np.less_equal, np.greater, np.greater_equal)},
    **{ufunc: _compared(ufunc) for ufunc in (np.equal, np.not_equal)},
    np.isfinite: lambda x: np.isfinite(x.value),
    np.isnan: lambda x: np.isnan(x.value),
}
_FUNCTIONS: dict[Any, Any] = {np.where: _where, np.clip: lambda x, low, high: _minimum(_maximum(x, low), high)}
"""NumPy functions of three arguments that are no ufuncs."""
