"""The algebra of points, each of which holds the coordinates of one run.

Every function takes and returns tuples of points, so that calls nest in any order; `chain` and `product` are
associative, and `product` distributes over `chain`.
"""

import builtins
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lmscale.core.arguments import checked
from lmscale.core.config import check
from lmscale.core.user_code import called

Point = Mapping[str, Any]
"""Coordinates of one run: `flops`, `params`, `tokens`, `seed`, ..."""
Points = tuple[Point, ...]
COORDINATES = {
    "flops", "params", "active_params", "tokens", "tokens_per_param", "width", "peak_lr", "batch_sequences",
    "unique_tokens", "experts", "experts_per_token", "expert_width", "granularity", "base_width",
}  # fmt: skip
"""Names of a point whose values are positive numbers wherever they stand."""
DATASTORE = "datastore_tokens"
"""Name of the size of a datastore, 0 for none: it belongs to the exam of a run, so that points which differ in it alone
are one run."""


@checked
def grid(**axes: Iterable[Any]) -> Points:
    """Every combination of the given axes, the last varying fastest."""
    points: list[dict[str, Any]] = [{}]
    for name, values in axes.items():
        choices = list(values)
        points = [{**point, name: value} for point in points for value in choices]
    return tuple(points)


@checked
def zip(**axes: Iterable[Any]) -> Points:
    """The axes side by side: the first point takes the first value of each. Raises `UserError` for unequal lengths."""
    lists = {name: list(values) for name, values in axes.items()}
    lengths = {name: len(values) for name, values in lists.items()}
    check(
        len(set(lengths.values())) <= 1,
        f"zip({', '.join(f'{name}: {count} values' for name, count in lengths.items())}): axes side by side must be "
        f"equally long; cut the longer, or take grid for every combination",
    )
    return tuple(dict(builtins.zip(lists, values)) for values in builtins.zip(*lists.values()))


@checked
def chain(*lists: Iterable[Point]) -> Points:
    """The points of several lists, one after the other."""
    return tuple(point for points in lists for point in points)


@checked
def product(*lists: Iterable[Point]) -> Points:
    """Every point of one list joined with every point of the next, the last varying fastest.

    Raises `UserError` where two joined points give one coordinate two values.
    """
    points: list[dict[str, Any]] = [{}]
    for factor in lists:
        rights = list(factor)
        points = [_joined(left, right) for left in points for right in rights]
    return tuple(points)


@checked
def where(points: Iterable[Point], keep: Callable[[Point], bool]) -> Points:
    """The points for which `keep` holds."""
    return tuple(point for point in points if called("the condition of where", keep, point))


@checked
def hold_out(points: Iterable[Point], chosen: Callable[[Point], bool] = lambda point: True) -> Points:
    """The same points, marked as held out where `chosen` holds: no fit sees them, they are the prediction."""
    choices = (called("the choice of hold_out", chosen, point) for point in points)
    return tuple({**point, "held_out": True} if marked else point for marked, point in builtins.zip(choices, points))


def _joined(left: Point, right: Point) -> dict[str, Any]:
    for name in left.keys() & right.keys():
        check(
            left[name] == right[name],
            f"product: {name} is {left[name]!r} in one list and {right[name]!r} in the other; give it in one of them "
            f"alone",
        )
    return {**left, **right}


def check_points(name: str, points: Sequence[Point]) -> None:
    """Raise `UserError` for the first of a sweep's points that is no mapping, or whose coordinate is no number."""
    for number, point in enumerate(points, start=1):
        place = f"point {number} of sweep {name!r}"
        check(
            isinstance(point, Mapping) and all(isinstance(key, str) for key in point),
            f"{place} is {_short(point)}: a point maps names to values, as in {{'params': 1e5, 'flops': 1e12}}",
        )
        for key in COORDINATES & point.keys():
            value = point[key]
            check(
                is_positive(value),
                f"{place}: {key} = {_short(value)}: must be a positive number",
            )
        size = point.get(DATASTORE, 0)
        check(
            isinstance(size, numbers.Real) and not isinstance(size, bool) and 0 <= _as_float(size) < math.inf,
            f"{place}: {DATASTORE} = {_short(size)}: tokens of a datastore, 0 or more",
        )
        lengths = point.get("trunk_tokens", (1,))
        check(
            isinstance(lengths, Sequence) and len(lengths) > 0 and all(map(is_positive, lengths)),
            f"{place}: trunk_tokens = {_short(lengths)}: the lengths of all branches, as `trunk` gives them",
        )
        held_out = point.get("held_out", False)
        check(
            isinstance(held_out, bool) or type(held_out).__name__ in ("bool", "bool_"),
            f"{place}: held_out = {_short(held_out)}: must be True or False",
        )
        seed = point.get("seed", 0)
        check(
            isinstance(seed, numbers.Integral) and not isinstance(seed, bool),
            f"{place}: seed = {_short(seed)}: must be a whole number",
        )


def is_positive(value: Any) -> bool:
    """Whether a value of a point is a positive finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < _as_float(value) < math.inf


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _short(value: Any) -> str:
    return text if len(text := repr(value)) <= 60 else f"{text[:60]}..."


def describe(point: Point) -> str:
    """A point as messages write it."""
    return f"point({', '.join(f'{name}={_written(value)}' for name, value in point.items())})"


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"point(of {', '.join(map(str, value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
