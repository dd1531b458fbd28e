"""Simulated sweeps from a known law: does a fit find it again, and do its intervals hold it as often as they say?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.fits.losslaw import LossLaw
from lmscale.fits.parametric import loss_law
from lmscale.laws import SIX_ND, Chinchilla

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


def simulate(law: Chinchilla, points: Sequence[Point], noise: float, rng: np.random.Generator) -> "pd.DataFrame":
    """A canonical table: the law's losses times exp(noise z), z standard normal."""
    import pandas as pd

    params, tokens, budget = np.array(points).T
    loss = law.loss(params, tokens) * np.exp(noise * rng.standard_normal(len(params)))
    names = [f"simulated {index}" for index in range(len(params))]
    columns: dict[str, Any] = {"run": names, "params": params, "tokens": tokens, "flops": 6 * params * tokens}
    return pd.DataFrame({**columns, "loss_nats": loss, "flops_budget": budget})


@dataclass(frozen=True)
class Coverage:
    """How often the interval of each quantity held the truth, over `sweeps` simulated sweeps."""

    sweeps: int
    level: float
    held: dict[str, float]
    new_runs: float
    """Share of new runs inside the *prediction* interval of a run."""
    new_runs_law: float
    """Share of new runs inside the interval of the *law*: lower, since a run scatters about the law."""


def coverage(
    law: Chinchilla,
    points: Sequence[Point],
    noise: float,
    *,
    sweeps: int = 400,
    resamples: int = 400,
    level: float = 0.95,
    far: float = 10.0,
    loss: str = "huber",
    delta: float = 1e-3,
    bootstrap: str = "auto",
    seed: int = 0,
) -> Coverage:
    """Simulate `sweeps` sweeps, fit each, and count.

    Quantities: alpha, beta, E, a, and N*, D/N and L* at `far` times the design's largest budget. New runs are drawn at
    the design's own points.
    """
    rng = np.random.default_rng(seed)
    top = far * max(6 * n * d for n, d, _ in points)
    truth = law.optimum(top)
    quantities: dict[str, tuple[str | Callable[[LossLaw], Any], float]] = {
        "E": ("E", float(law.E)),
        "alpha": ("alpha", float(law.alpha)),
        "beta": ("beta", float(law.beta)),
        "a": ("a", float(law.exponents()["params"])),
        "N*": (lambda fit: fit.optimum(top).params, float(truth.params)),
        "D*/N*": (lambda fit: fit.optimum(top).tokens_per_param, float(truth.tokens_per_param)),
        "L*": (lambda fit: fit.optimum(top).loss_nats, float(truth.loss_nats)),
    }
    held = dict.fromkeys(quantities, 0)
    inside = inside_law = 0
    for sweep in range(sweeps):
        table = simulate(law, points, noise, rng)
        fit = loss_law(
            table, loss=loss, delta=delta, resamples=resamples, bootstrap=bootstrap, seed=sweep, check=False, at=()
        )
        for name, (quantity, true) in quantities.items():
            low, high = fit.interval(quantity, level)
            held[name] += low <= true <= high
        params, tokens, _ = points[int(rng.integers(len(points)))]
        new = float(law.loss(params, tokens) * np.exp(noise * rng.standard_normal()))
        said = fit.predict(level, params=params, tokens=tokens)
        inside += said.interval[0] <= new <= said.interval[1]
        inside_law += said.law_interval[0] <= new <= said.law_interval[1]
    return Coverage(sweeps, level, {k: v / sweeps for k, v in held.items()}, inside / sweeps, inside_law / sweeps)
