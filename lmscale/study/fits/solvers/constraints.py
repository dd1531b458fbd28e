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
        _check_fixed(next(one for one in form.PARAMETERS if one.name == name), value)
        if name in tied:
            raise UserError(f"{name} is fixed at {value:g} and tied to {tied[name]}: give one of the two")
        if name in bounds:
            raise UserError(f"{name} is fixed at {value:g} and bounded: give one of the two")
    for name, other in tied.items():
        if other == name:
            raise UserError(f"{name} is tied to itself: name another parameter, or leave it out")
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


def _check_fixed(parameter: Parameter, value: float) -> None:
    if not math.isfinite(value):
        raise UserError(f"{parameter.name} is fixed at {value}: give a finite number")
    if _of_the_other_sign(parameter, value):
        raise UserError(f"{parameter.name} is fixed at {value:g}, and is {_sign(parameter)}: {_range(parameter)}")


def bounded(parameter: Parameter, bounds: tuple[float, float] | None) -> Parameter:
    """The parameter within other bounds, its starts moved inside. Raises `UserError` for bounds that cannot be."""
    if bounds is None:
        return parameter
    low, high = bounds
    if beyond := _of_the_other_sign(parameter, low, high):
        raise UserError(f"{parameter.name} is bounded by {beyond[0]:g}, and is {_sign(parameter)}: {_range(parameter)}")
    if parameter.log and low == 0:
        raise UserError(f"{parameter.name} is searched by its logarithm: bound it from a number above 0, as from 1e-9")
    starts = tuple(dict.fromkeys(min(max(start, low), high) for start in parameter.starts))
    return replace(parameter, low=low, high=high, starts=starts)


def _of_the_other_sign(parameter: Parameter, *values: float) -> list[float]:
    """The values that lie beyond 0 from the parameter's own range, where its terms mean nothing."""
    return [one for one in values if (one < 0 <= parameter.low) or (parameter.high <= 0 < one)]


def _sign(parameter: Parameter) -> str:
    return "positive" if parameter.low >= 0 else "negative"


def _range(parameter: Parameter) -> str:
    return f"the law has it between {parameter.low:g} and {parameter.high:g}"


def outside_own_ranges(
    form: type[Law], fixed: Mapping[str, float], bounds: Mapping[str, tuple[float, float]], tied: Mapping[str, float]
) -> list[str]:
    """A sentence for each parameter that is fixed, bounded or by its tie outside of the range that its law gives it.

    `tied` are the values that the ties give. A parameter fixed at 0 takes its term away, and is no doubt.
    """
    sentences = []
    for parameter in form.PARAMETERS:
        name, low, high = parameter.name, parameter.low, parameter.high
        own = f"outside of the law's own range, {low:g} to {high:g}"
        for verb, values in (("fixed at", fixed), ("by its tie", tied)):
            if name in values and values[name] != 0 and not low <= values[name] <= high:
                sentences.append(f"{name} is {verb} {values[name]:g}, {own}")
        if name in bounds and (bounds[name][1] < low or bounds[name][0] > high):
            sentences.append(f"{name} is bounded between {bounds[name][0]:g} and {bounds[name][1]:g}, {own}")
    return sentences
