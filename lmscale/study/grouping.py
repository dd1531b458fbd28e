"""Values that are one but for rounding: budgets, sizes and scales, counted by groups and never bit by bit.

Whole layers and batches move what was planned as one number by up to about a per cent, and arithmetic by the last bit.
The rule: sorted upwards, a value belongs to the group of the value before it if it is at most `SAME` above that one
and at most twice `SAME` above the group's smallest. So a chain of close values is cut into groups and never drifts.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

RATES = ("learning_rate", "peak_lr", "lr")
SCALES = ("params", "tokens", "unique_tokens", "flops", "flops_budget", "batch_tokens", *RATES)
"""Columns of a table that are counted by groups; a loss or a seed is another one at any difference."""
SAME = 0.01
"""Relative step between neighbours of one group; from its smallest to its largest value a group spans two of them."""
LEAST_SIZES = 3
"""Rows of one budget that can show a minimum."""
MOST_IN_VALLEYS = 0.5
"""Share of the rows that must lie in such budgets: a cloud of runs without any has a few by chance."""
ROUNDING = 1e-9
"""So that values exactly `SAME` apart are one group, whichever way their quotient is rounded."""


def group_index(values: Any, same: float = SAME) -> np.ndarray:
    """The group of every value (n,), numbered upwards from 0; values that are not finite and positive have -1."""
    values_n = np.asarray(values, dtype=float)
    index_n = np.full(len(values_n), -1)
    known = np.flatnonzero(np.isfinite(values_n) & (values_n > 0))
    order = known[np.argsort(values_n[known], kind="stable")]
    step, span = (1 + same) * (1 + ROUNDING), (1 + same) ** 2 * (1 + ROUNDING)
    distinct, inverse = np.unique(values_n[order], return_inverse=True)
    groups = np.zeros(len(distinct), dtype=int)
    first = previous = distinct[0] if len(distinct) else 0.0
    for position, value in enumerate(distinct.tolist()):
        groups[position] = groups[position - 1] if position else 0
        if value > step * previous or value > span * first:
            groups[position] += 1
            first = value
        previous = value
    index_n[order] = groups[inverse]
    return index_n


def signed_group_index(values: Any, same: float = SAME) -> np.ndarray:
    """Groups as `group_index` makes them, of negative values and zeros besides; only missing values have -1."""
    values_n = np.asarray(values, dtype=float)
    positive, negative = group_index(values_n, same), group_index(-values_n, same)
    zero_at = int(positive.max(initial=-1)) + 1
    index_n = np.where(values_n == 0, zero_at, positive)
    return np.where(negative >= 0, zero_at + 1 + negative, index_n)


def group_values(values: Any, same: float = SAME) -> np.ndarray:
    """Every value replaced by the middle one of its group (n,), which is a value of the table; NaN without a group."""
    values_n = np.asarray(values, dtype=float)
    index_n = group_index(values_n, same)
    order = np.lexsort((values_n, index_n))
    order = order[index_n[order] >= 0]
    groups = np.arange(int(index_n.max(initial=-1)) + 1)
    first, last = (np.searchsorted(index_n[order], groups, side=side) for side in ("left", "right"))
    middle = values_n[order][(first + last - 1) // 2]
    return np.where(index_n >= 0, middle[index_n] if len(middle) else np.nan, np.nan)


def group_count(values: Any, same: float = SAME) -> int:
    """How many groups the values form."""
    return int(group_index(values, same).max(initial=-1)) + 1


def point_index(columns: Mapping[str, Any]) -> np.ndarray:
    """The point of every row (n,): rows are one point where all columns agree, `SCALES` by groups, others exactly.

    Missing values agree with each other.
    """
    import pandas as pd

    point_n: Any = 0
    for name, values in columns.items():
        index_n = group_index(values) if name in SCALES else pd.factorize(np.asarray(values))[0]
        point_n = np.unique(point_n * (len(index_n) + 1) + index_n + 1, return_inverse=True)[1]
    return np.asarray(point_n)


def in_largest_group(values: Any, same: float = SAME) -> np.ndarray:
    """Which values belong to the group of the largest (n,)."""
    index_n = group_index(values, same)
    return (index_n == index_n.max(initial=-1)) & (index_n >= 0)


def stated_budgets(table: "pd.DataFrame") -> np.ndarray:
    """The column `flops_budget` (n,), NaN where a row states no budget above 0."""
    if "flops_budget" not in table:
        return np.full(len(table), np.nan)
    budgets_n = np.asarray(table["flops_budget"], dtype=float)
    return np.where(np.isfinite(budgets_n) & (budgets_n > 0), budgets_n, np.nan)


def budgets_of_flops(table: "pd.DataFrame") -> np.ndarray:
    """The FLOPs of every row (n,) where enough of them agree to be budgets of a table that states none; else NaN.

    Most rows must lie in groups of `LEAST_SIZES` or more, of which there are two or more.
    """
    flops_n = np.asarray(table["flops"], dtype=float) if "flops" in table else np.full(len(table), np.nan)
    index_n = group_index(flops_n)
    counts = np.bincount(index_n[index_n >= 0])
    valley = counts >= LEAST_SIZES
    if valley.sum() >= 2 and counts[valley].sum() >= MOST_IN_VALLEYS * counts.sum():
        return np.where(index_n >= 0, flops_n, np.nan)
    return np.full(len(table), np.nan)
