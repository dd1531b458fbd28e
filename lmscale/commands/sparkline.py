"""A row of numbers as a line of eight heights, for a terminal."""

import itertools
import math
from collections.abc import Sequence

HEIGHTS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The finite values as at most `width` characters, each the mean of its share of them; "" without any."""
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(finite))
    edges = [round(index * len(finite) / count) for index in range(count + 1)] if count else []
    means = [sum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    top = len(HEIGHTS) - 1
    return "".join(HEIGHTS[round(top * (mean - low) / (high - low)) if high > low else 0] for mean in means)
