"""The next best runs: those that most reduce the variance of one number per FLOP, chosen greedily on the information.

Each step adds the candidate that lowers the logarithm of the predicted variance most, per FLOP^g. Greed per FLOP
(g = 1) may fill a budget with small change, greed for gain alone (g = 0) may spend it at once; the better of several g
is taken, as for budgeted coverage (Leskovec 2007, doi 10.1145/1281192.1281239, section 4.1).

Letters: m candidates, p unknowns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.design.fisher import Information, Runs, fisher, gradient, information, possible_slopes
from lmscale.study.design.prior import Prior
from lmscale.study.laws import SIX_ND, ComputeModel, Law

EXPONENTS_OF_COST = (0.0, 0.5, 1.0)
VAGUE = 10.0
"""Standard deviation of every unknown, in its own unit, before any run: while there are fewer runs than unknowns, gains
can still be compared."""


@dataclass(frozen=True)
class Candidates:
    """Runs that could be made: N, D and their price in FLOPs (m,)."""

    params_m: np.ndarray
    tokens_m: np.ndarray
    flops_m: np.ndarray

    def take(self, chosen: list[int]) -> "Candidates":
        """Some of them, in the order given."""
        return Candidates(self.params_m[chosen], self.tokens_m[chosen], self.flops_m[chosen])

    def __len__(self) -> int:
        return len(self.params_m)


@dataclass(frozen=True)
class Proposal:
    """Runs to add, the most useful first, and what they are expected to bring."""

    chosen: Candidates
    before: Information
    after: Information
    sd_before: float | None
    """Standard deviation of the target quantity; None where the runs so far cannot identify the law."""
    sd_after: float | None
    sd_along: tuple[float | None, ...]
    """After each further run."""

    @property
    def flops(self) -> float:
        """The price of all of them."""
        return float(self.chosen.flops_m.sum())


def improve(
    prior: Prior,
    runs: Runs,
    candidates: Candidates,
    quantity: Callable[[Law], Any],
    *,
    spend: float,
    most: int = 12,
    compute: ComputeModel = SIX_ND,
) -> Proposal:
    """Choose at most `most` candidates that cost at most `spend` FLOPs together.

    `runs` is what is there or planned; new runs have noise of their own. Raises `UserError` where no candidate fits.
    """
    if not (candidates.flops_m <= spend).any():
        raise UserError(
            f"`spend={spend:.3g}` FLOPs buys none of the {len(candidates)} candidate runs; the cheapest costs "
            f"{candidates.flops_m.min():.3g}"
        )
    choices = [_greedy(prior, runs, candidates, quantity, spend, most, power) for power in EXPONENTS_OF_COST]
    _, chosen = min(choices, key=lambda variance_and_choice: variance_and_choice[0])
    picked = candidates.take(chosen)
    before = information(prior, runs, compute)
    after = information(prior, with_candidates(runs, picked), compute)
    along = [
        information(prior, with_candidates(runs, candidates.take(chosen[: count + 1])), compute)
        for count in range(len(chosen))
    ]
    return Proposal(
        picked, before, after, before.sd(quantity), after.sd(quantity), tuple(one.sd(quantity) for one in along)
    )


def with_candidates(runs: Runs, more: Candidates) -> Runs:
    """The runs and the candidates, each of these in a cluster of its own."""
    clusters = None if runs.clusters_n is None else [*runs.clusters_n, *[""] * len(more)]
    unique = None if runs.unique_n is None else np.concatenate([runs.unique_n, more.tokens_m])
    params_n = np.concatenate([runs.params_n, more.params_m])
    return Runs(params_n, np.concatenate([runs.tokens_n, more.tokens_m]), unique, clusters, runs.most_nats)


def _greedy(
    prior: Prior,
    runs: Runs,
    candidates: Candidates,
    quantity: Callable[[Law], Any],
    spend: float,
    most: int,
    power: float,
) -> tuple[float, list[int]]:
    """Variance of the quantity and the candidates that lead to it, largest gain per FLOP^power first."""
    slope_p = gradient(prior.law, quantity)
    priced = Runs(candidates.params_m, candidates.tokens_m, most_nats=runs.most_nats)
    slopes_mp = possible_slopes(prior.law, priced) / prior.noise_nats
    known_pp = fisher(prior, runs) + np.eye(len(slope_p)) / VAGUE**2
    covariance_pp = np.linalg.inv(known_pp)
    chosen: list[int] = []
    left, open_m = spend, np.ones(len(candidates), dtype=bool)
    while len(chosen) < most:
        affordable_m = open_m & (candidates.flops_m <= left)
        if not affordable_m.any():
            break
        variance = float(slope_p @ covariance_pp @ slope_p)
        seen_mp = slopes_mp @ covariance_pp
        removed_m = (seen_mp @ slope_p) ** 2 / (1 + np.einsum("mp,mp->m", seen_mp, slopes_mp))
        gain_m = -np.log1p(-np.minimum(removed_m / variance, 1 - 1e-12)) / candidates.flops_m**power
        best = int(np.argmax(np.where(affordable_m, gain_m, -math.inf)))
        chosen.append(best)
        left -= float(candidates.flops_m[best])
        open_m[best] = False
        step_p = seen_mp[best]
        covariance_pp = covariance_pp - np.outer(step_p, step_p) / (1 + slopes_mp[best] @ step_p)
    return float(slope_p @ covariance_pp @ slope_p), chosen
