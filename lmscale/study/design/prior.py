"""What is believed of a law before any run of a plan: its constants, a run's noise, and how far both may be off.

The precision that a plan promises is computed at a law. So it is no better known than that law: the prior holds draws
of the laws that its own runs allow, and a verdict is computed at each (`spread.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmscale.core.arguments import Count, Natural, Number, Positive, checked
from lmscale.core.errors import UserError, nearest
from lmscale.study.laws import CHINCHILLA_REFIT, PUBLISHED, Law
from lmscale.study.laws.discrepancy import Discrepancy

DRAWS = 200
"""Laws drawn from a prior: their 95th percentile is then known to some tenths of a standard deviation."""
NOISE_NATS = 0.01
"""Standard deviation of a run's loss about a published law, where nothing else is given."""
FITTED_FROM = {
    "chinchilla-refit": 1.4e18,
    "besiroglu-2024": 1.4e18,
    "hoffmann-2022": 1.4e18,
    "muennighoff-2023": 4.3e15,
    "gadre-2024-c4": 3.4e15,
    "gadre-2024-redpajama": 3.4e15,
    "gadre-2024-refinedweb": 3.4e15,
}
"""Smallest budget, in FLOPs, of the published runs behind a law."""
OF_THE_CHINCHILLA_RUNS = (
    (0.0006447244692, 0.003885461208, 0.006279709905, 0.0002293741453, 0.0003061606502),
    (0.003885461208, 0.06489204924, -0.02543900483, 0.003866785908, -0.001274030315),
    (0.006279709905, -0.02543900483, 0.1690647133, -0.001584014288, 0.008266682173),
    (0.0002293741453, 0.003866785908, -0.001584014288, 0.0002307150975, -7.93725422e-05),
    (0.0003061606502, -0.001274030315, 0.008266682173, -7.93725422e-05, 0.0004044812195),
)
"""Covariance of (E, ln A, ln B, alpha, beta) over 4000 resamples of the 240 runs of Besiroglu 2024, each fitted exactly
by Hoffmann's objective."""
COVARIANCES = {"chinchilla-refit": OF_THE_CHINCHILLA_RUNS, "besiroglu-2024": OF_THE_CHINCHILLA_RUNS}
"""Covariance of the unknowns of a published law, where its runs are published and give one."""


@checked
@dataclass(frozen=True)
class Prior:
    """What is believed before the runs: a law to differentiate at, and how far a run scatters about it."""

    law: Law = CHINCHILLA_REFIT
    name: str = "chinchilla-refit"
    noise_nats: Number = NOISE_NATS
    """Standard deviation of a run's loss about the law: seeds, order of the data, and what the law leaves out."""
    shared: Number = 0.0
    """Share of that variance which runs of one cluster (the branches of a trunk) have in common."""
    smallest_flops: float | None = FITTED_FROM["chinchilla-refit"]
    """The smallest budget of the runs that the law was fitted to; None where it is not known. Far below it the law's
    terms are too steep, and every standard deviation comes out too small."""
    draws: Law | None = field(default=None, compare=False, repr=False)
    """Laws that the prior's own runs allow, each parameter an array (R,); None where they are not known."""
    size_column: str = "active_params"
    """The count, by its name in `counting.Counts`, that is the law's N. Of dense models active parameters are all; a
    published law, of dense models, says most of models with experts by those that set their FLOPs."""
    noises_r: np.ndarray | None = field(default=None, compare=False, repr=False)
    """The noise that goes with each draw, in nats (R,); None for `noise_nats` with all."""
    given: Mapping[str, float] = field(default_factory=dict)
    """Values of the law's inputs besides params and tokens at which its optimum is stated."""
    discrepancy: Discrepancy | None = None
    """What the law leaves out, smoothly; None where its form is taken to be exact. With it, runs far from a target say
    little of the loss there, however many they are."""

    def __post_init__(self) -> None:
        if not self.noise_nats > 0:
            raise UserError(f"noise = {self.noise_nats} nats: must be positive; {NOISE_NATS} is the default")
        if not 0 <= self.shared < 1:
            raise UserError(f"shared noise = {self.shared}: a share of the variance, at least 0 and below 1")


@checked
def published_prior(
    name: str = "chinchilla-refit", noise_nats: Number | None = None, shared_noise: Number = 0.0
) -> Prior:
    """The prior of a published law, with draws where its runs are published. Raises `UserError` for an unknown name."""
    if name not in PUBLISHED:
        raise UserError(f"no published law is called {name!r}{nearest(name, PUBLISHED)}")
    law, covariance = PUBLISHED[name], COVARIANCES.get(name)
    return Prior(
        law,
        name,
        NOISE_NATS if noise_nats is None else noise_nats,
        shared_noise,
        FITTED_FROM.get(name),
        draws=None if covariance is None else normal_draws(law, np.array(covariance)),
    )


def unknowns(law: Law) -> np.ndarray:
    """The law's parameters (p, ...) as they are estimated: by their logarithm where `Parameter.log` says so."""
    pairs = zip(law.PARAMETERS, law.values().values())
    return np.array([np.log(value) if parameter.log else value for parameter, value in pairs])


@checked
def normal_draws(law: Law, covariance_pp: np.ndarray, draws: Count = DRAWS, seed: Natural = 0) -> Law:
    """Laws about `law` from a normal distribution of its unknowns, kept within the parameters' ranges."""
    around_p = unknowns(law)
    if np.shape(covariance_pp) != (len(around_p), len(around_p)):
        raise UserError(
            f"covariance_pp has the shape {np.shape(covariance_pp)}: it has a row and a column for each of the "
            f"{len(around_p)} unknowns of the law {law.NAME!r}"
        )
    rng = np.random.default_rng(seed)
    theta_rp = rng.multivariate_normal(around_p, covariance_pp, draws, method="svd")
    values: dict[str, Any] = {}
    for parameter, theta_r in zip(law.PARAMETERS, theta_rp.T):
        ends = (math.log(parameter.low), math.log(parameter.high)) if parameter.log else (parameter.low, parameter.high)
        inside_r = np.clip(theta_r, *ends)
        values[parameter.name] = np.exp(inside_r) if parameter.log else inside_r
    return type(law)(**values)


@checked
def noise_draws(noise_nats: Positive, freedom: Count, draws: Count = DRAWS, seed: Natural = 0) -> np.ndarray:
    """Noises (R,) that a standard deviation estimated with so many degrees of freedom allows."""
    chi_square_r = np.random.default_rng([seed, 1]).chisquare(freedom, draws)
    return np.asarray(noise_nats * np.sqrt(freedom / chi_square_r))
