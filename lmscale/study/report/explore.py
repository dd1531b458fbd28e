"""What the page's sliders show, computed here at every position: optima over compute, and errors of the parameters.

The page only looks numbers up. So its intervals are percentiles over all of a fit's draws, for every form of a law, and
equal what the tables and `lmscale fit` state.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.results.common import LEVELS
from lmscale.study.plots import compact, measured_runs, number, power
from lmscale.study.report import page
from lmscale.study.report.account import fitted_rows
from lmscale.study.report.answer import largest_budget, usable
from lmscale.study.report.tables import BEYOND, budgets

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import LossLaw

PER_DECADE = 12
"""Positions of the slider in a decade of compute."""
MOST_POSITIONS = 121
"""Positions at most: each costs an optimum of every draw."""
QUANTITIES = ("params", "tokens", "tokens_per_param", "loss_nats")
NAMES = {
    "params": ("N*", "parameters"), "tokens": ("D*", "tokens"), "tokens_per_param": ("D*/N*", "tokens per parameter"),
    "loss_nats": ("L*", "predicted loss"),
}  # fmt: skip
WRITTEN: dict[str, Callable[[float], str]] = {
    "params": compact,
    "tokens": compact,
    "tokens_per_param": number,
    "loss_nats": "{:.4f}".format,
}
STEPS = tuple(step / 2 for step in range(-6, 7))
"""Standard errors by which a parameter's slider moves it."""
LEAST = 0.01
"""A positive parameter's slider ends at this share of its value: no law has an optimum at zero."""
DECADES_BEYOND = (1, 10, 100, 1000)
"""Times the largest fitted budget at which a parameter's error is followed."""


def positions(table: "pd.DataFrame", fits: Sequence[Any]) -> list[float]:
    """The C of the slider, rising: the table's budgets, and steps from the smallest run to `BEYOND` times the largest.

    Empty without fits or measured runs.
    """
    runs = measured_runs(table)
    if not len(runs) or not fits:
        return []
    low, high = float(runs["flops"].min()), BEYOND * float(runs["flops"].max())
    stated = [flops for flops in budgets(table) if flops <= high]
    count = max(2, min(MOST_POSITIONS - len(stated), round(PER_DECADE * math.log10(high / low)) + 1))
    return sorted({*stated, *(float(f"{flops:.2e}") for flops in np.geomspace(low, high, count))})


def over_compute(table: "pd.DataFrame", fits: Sequence[Any]) -> dict[str, Any] | None:
    """Optima with intervals of every usable fit at every position; None where no fit states one."""
    allocating = usable(fits)
    flops = positions(table, allocating)
    if not flops:
        return None
    start, _ = largest_budget(fitted_rows(table, allocating))
    return {
        "flops": flops,
        "start": int(np.abs(np.log(np.array(flops) / start)).argmin()),
        "approaches": {fit.approach: _of_fit(fit, flops) for fit in allocating},
    }


def _of_fit(fit: Any, flops: Sequence[float]) -> dict[str, Any]:
    rows = fit.allocations(flops)
    levels = [f"{level:g}" for level in LEVELS] if rows and rows[0]["intervals"] else []
    return {
        "largest_flops": fit.largest_flops,
        "quantities": {
            name: {
                "centre": [row[name] for row in rows],
                "intervals": {level: [list(row["intervals"][level][name]) for row in rows] for level in levels},
            }
            for name in QUANTITIES
        },
    }


def slider(explored: Mapping[str, Any] | None) -> str:
    """The table that the slider over compute moves, at its first position."""
    if explored is None:
        return ""
    flops, approaches = explored["flops"][explored["start"]], explored["approaches"]
    heads = "".join(f"<th>{head}</th>" for head in ("approach", "value", "80 %", "95 %"))
    rows = "".join(_slider_row(quantity, name, explored) for quantity in QUANTITIES for name in approaches)
    beyond = "".join(
        f'<p class="small">Approach {name}: C is <span data-cell="{name}:beyond:">'
        f"{page.text(_beyond(flops, approach['largest_flops']))}</span>.</p>"
        for name, approach in approaches.items()
    )
    return (
        f'<div id="explore"><p class="small">At C = <span data-cell="::flops">{page.text(power(flops))}</span> FLOPs:'
        f'</p><div class="scroll"><table class="summary"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{beyond}</div>"
    )


def _slider_row(quantity: str, approach: str, explored: Mapping[str, Any]) -> str:
    name, unit = NAMES[quantity]
    values = explored["approaches"][approach]["quantities"][quantity]
    cells = "".join(
        f'<td data-cell="{approach}:{quantity}:{part}">{page.text(written)}</td>'
        for part, written in _parts(quantity, values, explored["start"])
    )
    head = f'<th class="word">{page.text(name)}<span>{page.text(unit)}</span></th>'
    return f"<tr>{head}<td>{approach}</td>{cells}</tr>"


def _parts(quantity: str, values: Mapping[str, Any], position: int) -> list[tuple[str, str]]:
    """(part, text) of a quantity at a position: its centre and both intervals."""
    write = WRITTEN[quantity]
    parts = [("centre", write(values["centre"][position]))]
    for level in map("{:g}".format, LEVELS):
        ends = values["intervals"].get(level, [(math.nan, math.nan)] * (position + 1))[position]
        known = all(map(math.isfinite, ends))
        parts.append((level, f"{write(ends[0])} – {write(ends[1])}" if known else "–"))
    return parts


def _beyond(flops: float, largest: float) -> str:
    times = flops / largest
    if times > 1.001:
        return f"{times:.3g} times beyond the largest fitted compute: an extrapolation"
    return "within the fitted compute"


def sensitivity(law: "LossLaw | None") -> dict[str, Any] | None:
    """Optima where a parameter errs by `STEPS` standard errors, alone and with the others following.

    The others follow by the regression of the draws on that parameter, in logarithms where all draws are positive. None
    for a law without an optimum or without draws.
    """
    if law is None or not law.resamples or not law.states_optimum:
        return None
    flops = [factor * law.largest_flops for factor in DECADES_BEYOND]
    free = [name for name in law.law.names() if name not in (*law.fixed, *law.tied, *law.at_bounds)]
    parameters = {name: _moved(law, name, free, flops) for name in free}
    known = {name: value for name, value in parameters.items() if value is not None}
    return {"flops": flops, "steps": list(STEPS), "start": STEPS.index(0), "parameters": known} if known else None


def _moved(law: "LossLaw", name: str, free: Sequence[str], flops: Sequence[float]) -> dict[str, Any] | None:
    """One parameter's values at every step, and the optima there; None where its draws do not vary."""
    draws = {one: np.asarray(law.draws(one), dtype=float) for one in free}
    sd = float(np.nanstd(draws[name], ddof=1))
    if not sd > 0:
        return None
    centre = float(getattr(law.law, name))
    low, high = _range(law, name)
    least = LEAST * centre if centre > 0 else low
    values = [min(max(centre + step * sd, low, least), high) for step in STEPS]
    following = [{name: value, **_followers(law, name, value, draws)} for value in values]
    return {
        "values": values,
        "standard_error": sd,
        "alone": _optima(law, [{name: value} for value in values], flops),
        "following": _optima(law, following, flops),
    }


def _range(law: "LossLaw", name: str) -> tuple[float, float]:
    """Where the parameter may lie: its form's range, or that of the fit."""
    parameter = next(one for one in law.law.PARAMETERS if one.name == name)
    return law.bounds.get(name, (parameter.low, parameter.high))


def _followers(law: "LossLaw", name: str, value: float, draws: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Where the other parameters lie on average among draws with this value of the one."""
    moved = {}
    for other in draws:
        if other == name:
            continue
        logs = all(float(np.nanmin(draws[one])) > 0 for one in (name, other))
        x, y = (np.log(draws[one]) if logs else draws[one] for one in (name, other))
        good = np.isfinite(x) & np.isfinite(y)
        slope = float(np.cov(x[good], y[good])[0, 1] / np.var(x[good], ddof=1))
        centre = float(getattr(law.law, other))
        if logs:
            moved[other] = centre * (value / float(getattr(law.law, name))) ** slope
        else:
            moved[other] = centre + slope * (value - float(getattr(law.law, name)))
    return moved


def _optima(law: "LossLaw", changes: Sequence[Mapping[str, Any]], flops: Sequence[float]) -> dict[str, Any]:
    """Quantity -> its value at every change of the parameters (rows) and every C; NaN where there is no optimum."""
    values = np.full((len(QUANTITIES), len(changes), len(flops)), np.nan)
    for row, change in enumerate(changes):
        moved = replace(law, law=replace(law.law, **change), samples=None)
        # an error may be so large that the loss falls for ever smaller or larger models
        with suppress(UserError), np.errstate(all="ignore"):
            best = moved.optimum(np.asarray(flops))
            values[:, row] = [np.broadcast_to(getattr(best, name), len(flops)) for name in QUANTITIES]
    return {name: values[index].tolist() for index, name in enumerate(QUANTITIES)}


def parameter_sliders(moved: Mapping[str, Any] | None) -> str:
    """The table that the sliders over parameters move; it says what the fit has until one moves."""
    if moved is None:
        return ""
    first = next(iter(moved["parameters"].values()))["alone"]
    heads = "".join(
        f"<th>{page.text(NAMES[name][0])}<span>{page.text(NAMES[name][1])}</span></th>" for name in QUANTITIES
    )
    rows = "".join(
        f'<tr><th class="word">{label}</th>'
        + "".join(
            f'<td data-cell="{part}:{name}">{page.text(WRITTEN[name](first[name][moved["start"]][0]))}</td>'
            for name in QUANTITIES
        )
        + "</tr>"
        for part, label in (("fit", "the fit"), ("alone", "moved alone"), ("following", "the others following"))
    )
    return (
        f'<div id="parameters"><div class="scroll"><table class="summary"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div>"
    )
