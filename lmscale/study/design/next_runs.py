"""The next best runs: those that most reduce the variance of one number per FLOP, chosen greedily on the information.

Each step adds the candidate that lowers the logarithm of the predicted variance most, per FLOP^g. Greed per FLOP
(g = 1) may fill a budget with small change, greed for gain alone (g = 0) may spend it at once; the better of several g
is taken, as for budgeted coverage (Leskovec 2007, doi 10.1145/1281192.1281239, section 4.1).

Where the prior states a discrepancy, losses that are narrowed include it: many cheap runs then pin down a law that may
not hold at the target, and runs near the target are worth their price. Designs against a wrong form are as old as Box
and Draper 1959 (doi 10.1080/01621459.1959.10501525).

Letters: m candidates, t losses ahead, q unknowns of the law and of its discrepancy.
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
    extended_slopes,
    information,
    precision,
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
    others: Sequence[Law | Prior] = (),
    vague: float | np.ndarray = VAGUE,
) -> Proposal:
    """Choose at most `most` candidates that cost at most `spend` FLOPs together.

    Args:
        prior: a law of any inputs, its noise and, where it may be wrong, its discrepancy.
        runs: what is there or planned; new runs have noise of their own.
        quantity: what is to be narrowed, a function of the law or the losses of `Runs` (their mean variance).
        others: further laws of the same form that the runs allow, or beliefs with a noise and a discrepancy of their
            own; gains are averaged over all, so that the choice does not rest on one of them.
        vague: standard deviation of every unknown before any run, one for all or (p,).

    Raises `UserError` where no candidate fits, and for laws without a finite loss.
    """
    if not (candidates.flops_m <= spend).any():
        raise UserError(
            f"`spend={spend:.3g}` FLOPs buys none of the {len(candidates)} candidate runs; the cheapest costs "
            f"{candidates.flops_m.min():.3g}"
        )
    priors = [one if isinstance(one, Prior) else replace(prior, law=one) for one in (prior, *others)]
    every = [_Linearised.of(one, runs, candidates, quantity, vague) for one in priors]
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
    """One law's slopes: what the candidates would say (m, q), what is to be narrowed (t, q), and what is known.

    q counts the law's unknowns and those of the prior's discrepancy.
    """

    slopes_mq: np.ndarray
    target_tq: np.ndarray
    covariance_qq: np.ndarray

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
        ahead = [quantity] if isinstance(quantity, Runs) else []
        with np.errstate(all="ignore"):
            slopes_nq, slopes_mq, *targets = extended_slopes(prior, runs, candidates.runs(runs.most_nats), *ahead)
        unknowns, extended = len(prior.law.PARAMETERS), slopes_mq.shape[1]
        target_tq = np.zeros((1, extended))
        if targets:
            target_tq = targets[0]
        else:
            target_tq[:, :unknowns] = slopes_of(prior.law, quantity)
        known_qq = precision(prior, runs, slopes_nq)
        known_qq[:unknowns, :unknowns] += np.diag(np.broadcast_to(np.asarray(vague, dtype=float) ** -2, unknowns))
        slopes_mq = slopes_mq / prior.noise_nats
        if not (np.isfinite(slopes_mq).all() and np.isfinite(target_tq).all() and np.isfinite(known_qq).all()):
            return None
        try:
            return cls(slopes_mq, target_tq, np.linalg.inv(known_qq))
        except np.linalg.LinAlgError:
            return None

    @property
    def variance(self) -> float:
        """Mean variance of what is to be narrowed."""
        return float(np.einsum("tq,qr,tr->t", self.target_tq, self.covariance_qq, self.target_tq).mean())

    def gains(self) -> np.ndarray:
        """Fall of the logarithm of the variance with each candidate (m,)."""
        seen_mq = self.slopes_mq @ self.covariance_qq
        removed_m = ((seen_mq @ self.target_tq.T) ** 2).mean(axis=1)
        removed_m = removed_m / (1 + np.einsum("mq,mq->m", seen_mq, self.slopes_mq))
        return np.asarray(-np.log1p(-np.minimum(removed_m / self.variance, 1 - 1e-12)))

    def with_run(self, index: int) -> "_Linearised":
        """What is known with one candidate more."""
        step_q = self.covariance_qq @ self.slopes_mq[index]
        covariance_qq = self.covariance_qq - np.outer(step_q, step_q) / (1 + self.slopes_mq[index] @ step_q)
        return replace(self, covariance_qq=covariance_qq)


def _greedy(
    laws: Sequence[_Linearised], flops_m: np.ndarray, spend: float, most: int, power: float
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
