"""Parameters that are fixed, tied to another or bounded by hand."""

import math
from collections.abc import Mapping
from dataclasses import replace

from lmscale.core.errors import UserError, nearest
from lmscale.study.laws import Law, Parameter


def check_constraints(
    form: type[Law], fixed: Mapping[str, float], bounds: Mapping[str, tuple[float, float]], tied: Mapping[str, str]
) -> None:
    """Raises `UserError` for a parameter that the form has not, or constraints that contradict each other."""
    for name in (*fixed, *bounds, *tied, *tied.values()):
        if name not in form.names():
            raise UserError(f"the law {form.NAME!r} has no parameter {name!r}{nearest(name, form.names())}")
    for name, value in fixed.items():
        if not math.isfinite(value):
            raise UserError(f"{name} is fixed at {value}: give a finite number")
        if name in tied:
            raise UserError(f"{name} is fixed at {value:g} and tied to {tied[name]}: give one of the two")
        if name in bounds:
            raise UserError(f"{name} is fixed at {value:g} and bounded: give one of the two")
    for name, other in tied.items():
        if other in tied:
            raise UserError(
                f"{name} is tied to {other}, which is itself tied to {tied[other]}: tie both to one that is not"
            )
        if name in bounds:
            raise UserError(f"{name} is tied to {other} and bounded: bound {other} instead")
    for parameter in form.PARAMETERS:
        bounded(parameter, bounds.get(parameter.name))
    if len({*fixed, *tied}) == len(form.PARAMETERS):
        raise UserError(f"every parameter of the law {form.NAME!r} is fixed or tied: leave one to be fitted")


def bounded(parameter: Parameter, bounds: tuple[float, float] | None) -> Parameter:
    """The parameter within other bounds, its starts moved inside. Raises `UserError` for bounds that cannot be."""
    if bounds is None:
        return parameter
    low, high = bounds
    starts = tuple(dict.fromkeys(min(max(start, low), high) for start in parameter.starts))
    return replace(parameter, low=low, high=high, starts=starts)
