"""The algebra of points: lists of runs' coordinates, closed under what is done to them.

Every function takes and gives tuples of points, so that they nest in any order; `chain` and `product` are associative,
and `product` distributes over `chain`.
"""

import builtins
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lmscale.core.config import check

Point = Mapping[str, Any]
"""Coordinates of one run, as a builder made them: `flops`, `params`, `tokens`, `seed`, ..."""
Points = tuple[Point, ...]


def grid(**axes: Iterable[Any]) -> Points:
    """Every combination of the given axes, the last varying fastest."""
    points: list[dict[str, Any]] = [{}]
    for name, values in axes.items():
        held = list(values)
        points = [{**point, name: value} for point in points for value in held]
    return tuple(points)


def zip(**axes: Iterable[Any]) -> Points:
    """The axes side by side: the first point takes the first value of each. Raises `UserError` for unequal lengths."""
    held = {name: list(values) for name, values in axes.items()}
    lengths = {name: len(values) for name, values in held.items()}
    check(
        len(set(lengths.values())) <= 1,
        f"zip({', '.join(f'{name}: {count} values' for name, count in lengths.items())}): axes side by side must be "
        f"equally long; cut the longer, or take grid for every combination",
    )
    return tuple(dict(builtins.zip(held, values)) for values in builtins.zip(*held.values()))


def chain(*parts: Iterable[Point]) -> Points:
    """The points of several lists, one after the other."""
    return tuple(point for part in parts for point in part)


def product(*parts: Iterable[Point]) -> Points:
    """Every point of one list joined with every point of the next, the last varying fastest.

    Raises `UserError` where two that are joined give one coordinate two values.
    """
    points: list[dict[str, Any]] = [{}]
    for part in parts:
        held = list(part)
        points = [_joined(left, right) for left in points for right in held]
    return tuple(points)


def where(points: Iterable[Point], keep: Callable[[Point], bool]) -> Points:
    """The points for which `keep` holds."""
    return tuple(point for point in points if keep(point))


def hold_out(points: Iterable[Point], chosen: Callable[[Point], bool] = lambda point: True) -> Points:
    """The same points, those for which `chosen` holds marked: no fit sees them, they are the prediction."""
    return tuple({**point, "held_out": True} if chosen(point) else point for point in points)


def _joined(left: Point, right: Point) -> dict[str, Any]:
    for name in left.keys() & right.keys():
        check(
            left[name] == right[name],
            f"product: {name} is {left[name]!r} in one list and {right[name]!r} in the other; give it in one of them "
            f"alone",
        )
    return {**left, **right}


def said(point: Point) -> str:
    """A point as messages name it."""
    values = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in point.items())
    return f"point({values})"
