"""Experts as axes of a sweep: a point says how many, how fine, and how many read a token."""

import numbers
from dataclasses import replace
from typing import Any

from lmscale.core.config import RouterConfig, check
from lmscale.study.recipes.family import Family
from lmscale.study.sweep import Point

EXPERT_COUNTS = ("experts", "experts_per_token", "shared_experts", "expert_width")
"""Fields of the model that a point may set, whole numbers."""
EXPERT_AXES = {**{name: name for name in EXPERT_COUNTS}, "granularity": "expert_width"}
"""Coordinates of a point, with the field of the model that each sets."""


def with_experts(family: Family, point: Point) -> Family:
    """The family with the experts of a point; of a dense point (experts = 1), without those of the family.

    Raises `UserError` for a number that is not whole, and for an expert's width that is given twice.
    """
    given: dict[str, Any] = {name: _whole(name, point[name]) for name in EXPERT_COUNTS if name in point}
    if not given and "granularity" not in point:
        return family
    check(
        not {"expert_width", "granularity"} <= point.keys(),
        "the point gives both expert_width and granularity, and one of them sets the width of an expert",
    )
    if given.get("experts") == 1:  # what the family says of experts is nothing to a dense model
        dense = replace(
            family.base, experts=1, experts_per_token=1, shared_experts=0, expert_width=None, router=RouterConfig()
        )
        base, granularity = replace(dense, **given), point.get("granularity")
    else:
        base, granularity = replace(family.base, **given), point.get("granularity", family.granularity)
    if "expert_width" in given:
        granularity = None
    return replace(family, base=base, granularity=None if granularity is None else float(granularity))


def _whole(name: str, value: Any) -> int:
    check(
        isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer(),
        f"{name} = {value!r}: must be a whole number",
    )
    return int(value)
