"""The next best runs: those that most reduce the variance of one number per FLOP, chosen greedily on the information.

Each step adds the candidate that lowers the logarithm of the predicted variance most, per FLOP^g. Greed per FLOP
(g = 1) may fill a budget with small change, greed for gain alone (g = 0) may spend it at once; the better of several g
is taken, as for budgeted coverage (Leskovec 2007, doi 10.1145/1281192.1281239, section 4.1).

Letters: m candidates, p unknowns.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmscale.core.arguments import Count, Positive, checked
from lmscale.core.errors import UserError
from lmscale.study.design.fisher import (
    NONE,
    Information,
    Runs,
    fisher,
    information,
    possible_slopes,
    slopes_of,
)
from lmscale.study.design.prior import Prior
from lmscale.study.laws import SIX_ND, ComputeModel, Law

EXPONENTS_OF_COST = (0.0, 0.5, 1.0)
VAGUE = 10.0
"""Standard deviation of every unknown, in its own unit, before any run: while there are fewer runs than unknowns, gains
can still be compared."""


@checked
@dataclass(frozen=True)
class Candidates:
    """Runs that could be made: N, D, any further inputs of a law, and their price in FLOPs (m,)."""

    params_m: np.ndarray
    tokens_m: np.ndarray
    flops_m: np.ndarray
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further inputs by name; a law of repeats reads `unique_tokens`, all of D where there is none."""

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray], flops_m: np.ndarray) -> "Candidates":
        """Candidates from the columns of a table, by the names of a law's inputs."""
        columns = {name: np.asarray(column, dtype=float) for name, column in columns.items()}
        others = {name: column for name, column in columns.items() if name not in ("params", "tokens")}
        return cls(columns.get("params", NONE), columns.get("tokens", NONE), np.asarray(flops_m, dtype=float), others)

    def take(self, chosen: list[int]) -> "Candidates":
        """Some of them, in the order given."""
        params_m, tokens_m = (column[chosen] if len(column) else column for column in (self.params_m, self.tokens_m))
        others = {name: column[chosen] for name, column in self.others.items()}
        return Candidates(params_m, tokens_m, self.flops_m[chosen], others)

    def runs(self, most_nats: float = math.inf) -> Runs:
        """Where they lie."""
        others = {name: column for name, column in self.others.items() if name != "unique_tokens"}
        return Runs(self.params_m, self.tokens_m, self.others.get("unique_tokens"), most_nats=most_nats, others=others)

    def __len__(self) -> int:
        return len(self.flops_m)


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
    indices: Sequence[int] = ()
    """Which of the candidates they are."""

    @property
    def flops(self) -> float:
        """The price of all of them."""
        return float(self.chosen.flops_m.sum())


@checked
def improve(
    prior: Prior,
    runs: Runs,
    candidates: Candidates,
    quantity: Callable[[Law], Any] | Runs,
    *,
    spend: Positive,
    most: Count = 12,
    compute: ComputeModel = SIX_ND,
    others: Sequence[Law] = (),
    vague: float | np.ndarray = VAGUE,
) -> Proposal:
    """Choose at most `most` candidates that cost at most `spend` FLOPs together.

    Args:
        prior: a law of any inputs, and its noise.
        runs: what is there or planned; new runs have noise of their own.
        quantity: what is to be narrowed, a function of the law or the losses of `Runs` (their mean variance).
        others: further laws of the same form that the runs allow; gains are averaged over all, so that the choice does
            not rest on one of them.
        vague: standard deviation of every unknown before any run, one for all or (p,).

    Raises `UserError` where no candidate fits, and for laws without a finite loss.
    """
    if not (candidates.flops_m <= spend).any():
        raise UserError(
            f"`spend={spend:.3g}` FLOPs buys none of the {len(candidates)} candidate runs; the cheapest costs "
            f"{candidates.flops_m.min():.3g}"
        )
    every = [_Linearised.of(replace(prior, law=law), runs, candidates, quantity, vague) for law in (prior.law, *others)]
    laws = [law for law in every if law is not None]
    if not laws:
        raise UserError(f"the law {prior.name!r} states no finite loss at the runs and candidates: give another prior")
    choices = [_greedy(laws, candidates.flops_m, spend, most, power) for power in EXPONENTS_OF_COST]
    _, chosen = min(choices, key=lambda variance_and_choice: variance_and_choice[0])
    picked = candidates.take(chosen)
    before = information(prior, runs, compute)
    after = information(prior, with_candidates(runs, picked), compute)
    along = [
        information(prior, with_candidates(runs, candidates.take(chosen[: count + 1])), compute)
        for count in range(len(chosen))
    ]
    return Proposal(
        picked, before, after, before.sd(quantity), after.sd(quantity), tuple(one.sd(quantity) for one in along), chosen
    )


@checked
def with_candidates(runs: Runs, more: Candidates) -> Runs:
    """The runs and the candidates, each of these in a cluster of its own."""
    clusters = None if runs.clusters_n is None else [*runs.clusters_n, *[""] * len(more)]
    unique_m = more.others.get("unique_tokens", more.tokens_m)
    unique_n = runs.tokens_n if runs.unique_n is None else runs.unique_n
    states_unique = runs.unique_n is not None or "unique_tokens" in more.others
    return Runs(
        np.concatenate([runs.params_n, more.params_m]),
        np.concatenate([runs.tokens_n, more.tokens_m]),
        np.concatenate([unique_n, unique_m]) if states_unique else None,
        clusters,
        runs.most_nats,
        {
            name: np.concatenate([runs.others.get(name, NONE), column])
            for name, column in more.others.items()
            if name != "unique_tokens"
        },
    )


@dataclass
class _Linearised:
    """One law's slopes: what the candidates would say (m, p), what is to be narrowed (t, p), and what is known."""

    slopes_mp: np.ndarray
    target_tp: np.ndarray
    covariance_pp: np.ndarray

    @classmethod
    def of(
        cls,
        prior: Prior,
        runs: Runs,
        candidates: Candidates,
        quantity: Callable[[Law], Any] | Runs,
        vague: float | np.ndarray,
    ) -> "_Linearised | None":
        """None for a law that states no finite loss somewhere, or slopes that fill the last digit."""
        target_tp = slopes_of(prior.law, quantity)
        slopes_mp = possible_slopes(prior.law, candidates.runs(runs.most_nats)) / prior.noise_nats
        known_pp = np.diag(np.broadcast_to(np.asarray(vague, dtype=float) ** -2, target_tp.shape[1:]))
        if len(runs):
            known_pp = known_pp + fisher(prior, runs)
        if not (np.isfinite(slopes_mp).all() and np.isfinite(target_tp).all() and np.isfinite(known_pp).all()):
            return None
        try:
            return cls(slopes_mp, target_tp, np.linalg.inv(known_pp))
        except np.linalg.LinAlgError:
            return None

    @property
    def variance(self) -> float:
        """Mean variance of what is to be narrowed."""
        return float(np.einsum("tp,pq,tq->t", self.target_tp, self.covariance_pp, self.target_tp).mean())

    def gains(self) -> np.ndarray:
        """Fall of the logarithm of the variance with each candidate (m,)."""
        seen_mp = self.slopes_mp @ self.covariance_pp
        removed_m = ((seen_mp @ self.target_tp.T) ** 2).mean(axis=1)
        removed_m = removed_m / (1 + np.einsum("mp,mp->m", seen_mp, self.slopes_mp))
        return np.asarray(-np.log1p(-np.minimum(removed_m / self.variance, 1 - 1e-12)))

    def with_run(self, index: int) -> "_Linearised":
        """What is known with one candidate more."""
        step_p = self.covariance_pp @ self.slopes_mp[index]
        covariance_pp = self.covariance_pp - np.outer(step_p, step_p) / (1 + self.slopes_mp[index] @ step_p)
        return replace(self, covariance_pp=covariance_pp)


def _greedy(
    laws: Sequence[_Linearised], flops_m: np.ndarray, spend: Positive, most: int, power: float
) -> tuple[float, list[int]]:
    """Variance of the quantity and the candidates that lead to it, largest gain per FLOP^power first."""
    chosen: list[int] = []
    left, open_m = spend, np.ones(len(flops_m), dtype=bool)
    while len(chosen) < most:
        affordable_m = open_m & (flops_m <= left)
        if not affordable_m.any():
            break
        gain_m = np.mean([law.gains() for law in laws], axis=0) / flops_m**power
        best = int(np.argmax(np.where(affordable_m, gain_m, -math.inf)))
        chosen.append(best)
        left -= float(flops_m[best])
        open_m[best] = False
        laws = [law.with_run(best) for law in laws]
    return float(np.exp(np.mean([math.log(law.variance) for law in laws]))), chosen
