"""Simulated sweeps from a known law: do fits recover it, and do their intervals cover it at the stated rate?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.side_by_side import fit
from lmscale.study.laws import SIX_ND, Chinchilla

if TYPE_CHECKING:
    import pandas as pd

Point = tuple[float, float, float]
"""params, tokens, flops_budget (NaN where none)."""


def isoflop_design(law: Chinchilla, budgets: Sequence[float], sizes: int = 7, factor: float = 4.0) -> list[Point]:
    """`sizes` models per budget, log-spaced within a factor `factor` of the law's own optimum on either side."""
    points = []
    for flops in budgets:
        centre = float(law.optimum(flops).params)
        for params in centre * np.geomspace(1 / factor, factor, sizes):
            points.append((float(params), float(SIX_ND.tokens(flops, params)), flops))
    return points


def grid_design(params: Sequence[float], tokens: Sequence[float]) -> list[Point]:
    """Every size at every number of tokens."""
    return [(n, d, float("nan")) for n in params for d in tokens]


def simulate(
    law: Chinchilla, points: Sequence[Point], noise: float, rng: np.random.Generator, curves: bool = False
) -> "pd.DataFrame":
    """A canonical table: the law's losses times exp(noise z), z standard normal.

    With `curves` the points of one size are one run at a constant rate: they share a name and their z.
    """
    import pandas as pd

    params, tokens, budget = np.array(points).T
    _, run = np.unique(params, return_inverse=True) if curves else (None, np.arange(len(params)))
    loss = law.loss(params, tokens) * np.exp(noise * rng.standard_normal(int(run.max()) + 1)[run])
    names = [f"simulated {index}" for index in run]
    columns: dict[str, Any] = {"run": names, "params": params, "tokens": tokens, "flops": SIX_ND.flops(params, tokens)}
    table = pd.DataFrame({**columns, "loss_nats": loss, "flops_budget": budget})
    return table.assign(schedule="constant") if curves else table


@dataclass(frozen=True)
class Coverage:
    """How often the interval of each quantity covers the truth, over `sweeps` simulated sweeps that could be fitted."""

    sweeps: int
    level: float
    covered: dict[str, float]
    new_runs: float | None
    """Share of new runs inside the *prediction* interval of a run; None where the approach predicts none."""
    new_runs_law: float | None
    """Share of new runs inside the interval of the *law*: lower, since a run scatters about the law."""


def coverage(
    law: Chinchilla,
    points: Sequence[Point],
    noise: float,
    *,
    approach: str = "3",
    sweeps: int = 400,
    resamples: int = 400,
    level: float = 0.95,
    far: float = 10.0,
    curves: bool = False,
    seed: int = 0,
    **options: Any,
) -> Coverage:
    """Simulate `sweeps` sweeps, fit each by `approach` with the `options` of `fits.fit`, and count.

    Quantities: a, and N*, D*/N* and L* at `far` times the design's largest budget; of Approach 3 also alpha, beta, E.
    Its new runs are drawn at the design's own points. Raises `UserError` where no sweep could be fitted.
    """
    rng = np.random.default_rng(seed)
    top = far * max(6 * n * d for n, d, _ in points)
    truth = law.optimum(top)
    quantities: dict[str, tuple[str | Callable[[Any], Any], float]] = {
        "a": ("a", float(law.exponents()["params"])),
        "N*": (lambda fit: fit.optimum(top).params, float(truth.params)),
        "D*/N*": (lambda fit: fit.optimum(top).tokens_per_param, float(truth.tokens_per_param)),
        "L*": (lambda fit: fit.optimum(top).loss_nats, float(truth.loss_nats)),
    }
    if approach == "3":
        quantities |= {name: (name, float(getattr(law, name))) for name in ("E", "alpha", "beta")}
    covered: dict[str, list[bool]] = {name: [] for name in quantities}
    inside: list[tuple[bool, bool]] = []
    trouble = ""
    for sweep in range(sweeps):
        table = simulate(law, points, noise, rng, curves)
        try:
            (fitted,) = fit(table, (approach,), resamples=resamples, seed=sweep, check=False, at=(), **options)
        except UserError as error:
            trouble = str(error)
            continue
        for name, (quantity, true) in quantities.items():
            low, high = fitted.interval(quantity, level)
            covered[name].append(low <= true <= high)
        if approach == "3":
            inside.append(_new_run(law, points, noise, fitted, level, rng))
    if not covered["a"]:
        raise UserError(f"none of {sweeps} simulated sweeps could be fitted: {trouble}")
    new = np.mean(inside, axis=0) if inside else (None, None)
    return Coverage(len(covered["a"]), level, {name: float(np.mean(of)) for name, of in covered.items()}, *new)


def _new_run(
    law: Chinchilla, points: Sequence[Point], noise: float, fitted: Any, level: float, rng: np.random.Generator
) -> tuple[bool, bool]:
    """Is a new run at one of `points` inside the interval of a run, and inside that of the law?"""
    params, tokens, _ = points[int(rng.integers(len(points)))]
    loss = float(law.loss(params, tokens) * np.exp(noise * rng.standard_normal()))
    prediction = fitted.predict(level, params=params, tokens=tokens)
    return prediction.interval[0] <= loss <= prediction.interval[1], prediction.law_interval[
        0
    ] <= loss <= prediction.law_interval[1]
