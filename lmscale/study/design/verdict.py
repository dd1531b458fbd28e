"""A plan judged before it runs: what it can identify, how well, and what to change where it cannot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmscale.core.counting import count, flops_per_token
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.study.design.bias import LEAST_SIZES, Valley, bias_of_exponent, planned_valley
from lmscale.study.design.fisher import UNIDENTIFIED, Information, Runs, condition, information
from lmscale.study.design.prior import Prior, published_prior
from lmscale.study.design.spread import sds
from lmscale.study.grouping import group_count, group_values
from lmscale.study.laws import SIX_ND, ComputeModel, DataConstrained

ALLOWED = 0.95
"""Share of the laws that a prior allows under which a plan is at least as precise as is said."""
TWO_SIDED = 1.96
"""Standard deviations on either side of a normal 95 % interval."""
FIRM, LOOSE = 1.5, 3.0
"""Factors by which D/N may be off at the target (95 %): up to the first it is pinned down, above the second it is not
known in any useful sense."""
NOTABLE_BIAS = 0.02
"""Relative error of a parabola's N* from which on it is stated."""
BELOW = 1e3
"""Times smaller than the smallest run of the prior: there its form is a guess."""
FAR = 100.0
"""Times the largest run: a target further out rests on the form of the law more than on the runs."""


def fitted_runs(planned: Sequence[PlannedRun]) -> Runs:
    """The runs that a fit may see. Raises `UserError` where all are held out."""
    fitted = [run for run in planned if not run.held_out]
    if not fitted:
        raise UserError("every run of the plan is held out, so no fit sees any; leave some to be fitted")
    counts = [count(run.config) for run in fitted]
    unique = [min(run.config.tokens, run.config.data.unique_tokens or run.config.tokens) for run in fitted]
    return Runs(
        params_n=np.array([one.params for one in counts], dtype=float),
        tokens_n=np.array([one.tokens for one in counts], dtype=float),
        unique_n=np.array(unique, dtype=float),
        clusters_n=[run.group for run in fitted],
        most_nats=math.log(max(run.config.model.vocab for run in fitted)),
    )


@dataclass(frozen=True)
class Verdict:
    """What a plan can identify, how well, and in which sentence."""

    information: Information
    target_flops: float
    target: str
    """Why this budget: "--target", "the held-out budget", "ten times the largest run"."""
    valleys: tuple[Valley, ...]
    largest_flops: float
    fix: str
    """What would let the plan identify the law; empty where it can."""

    @property
    def refused(self) -> bool:
        """Whether the plan cannot identify the law at all."""
        return not self.information.identified

    @cached_property
    def sd_log_ratio(self) -> float | None:
        """Predicted standard deviation of ln D*/N* at the target, under the prior's law; None where there is none."""
        if isinstance(self.information.prior.law, DataConstrained):
            return None
        return self.information.sd(self.information.log_ratio(self.target_flops))

    @cached_property
    def upper_sd_log_ratio(self) -> float | None:
        """`sd_log_ratio` that is not exceeded under `ALLOWED` of the laws and noises that the prior allows.

        That of the prior's own law where it allows no other. None where there is none.
        """
        if self.sd_log_ratio is None:
            return None
        drawn = sds(self.information, self.information.log_ratio(self.target_flops))
        upper = np.quantile(drawn, ALLOWED, method="higher") if len(drawn) else 0.0
        return max(self.sd_log_ratio, float(upper))

    @property
    def factor_at_prior(self) -> float | None:
        """By which D/N at the target may be off either way, 95 %, if the prior's law and noise were exactly right."""
        return _factor_of(self.sd_log_ratio)

    @property
    def factor(self) -> float | None:
        """By which D/N at the target may be off either way, 95 %, under `ALLOWED` of the laws that the prior allows."""
        return _factor_of(self.upper_sd_log_ratio)

    @property
    def beyond_prior(self) -> bool:
        """Whether all runs are far smaller than those that the prior was fitted to."""
        smallest = self.information.prior.smallest_flops
        return smallest is not None and self.largest_flops * BELOW < smallest

    def sentence(self) -> str:
        """The verdict."""
        information, where = self.information, f"at {self.target_flops:.3g} FLOPs"
        if self.refused:
            line = f"{information.line}: " if information.line else ""
            return (
                f"this plan cannot identify the law: {line}cond(J) = {information.condition:.2g}, above "
                f"{UNIDENTIFIED:.0e}, so that the terms of N and D cannot be told apart"
            )
        if self.factor is None or self.factor_at_prior is None:
            return f"this plan can identify the law {information.prior.law.NAME!r}"
        if self.factor > LOOSE:
            return (
                f"this plan identifies the law in principle, but leaves D/N {where} open by {_factor(self.factor)} "
                f"either way (95 %{self._if_exact()}): `--improve` proposes the runs that narrow it"
            )
        sentence = f"this plan gives D/N {where} within {_factor(self.factor)} either way (95 %{self._if_exact()})"
        if self.factor <= FIRM:
            sentence = f"this plan pins down D/N {where} within {_share(self.factor)} (95 %{self._if_exact()})"
        bias = max((abs(one.bias) for one in self.valleys if one.bias is not None), default=0.0)
        if self.beyond_prior:
            sentence = f"taken at its word, the prior says that {sentence}"
        if bias > NOTABLE_BIAS:
            sentence += f"; a parabola per budget is off by up to {100 * bias:.1f} %, so take the law's own optimum"
        return sentence

    def _if_exact(self) -> str:
        """What the figure would be, or is, without any doubt of the prior."""
        prior, exact = self.information.prior, self.factor_at_prior
        assert exact is not None
        condition = f"if the law {prior.name} and its noise of {prior.noise_nats:.3g} nats were exactly right"
        if prior.draws is None:
            return f", {condition}; how far they are off is not known"
        return f"; {_share(exact) if exact <= FIRM else _factor(exact)} {condition}"

    def cautions(self) -> list[str]:
        """What the numbers do not say by themselves."""
        cautions = []
        if not self.refused and self.target_flops > FAR * self.largest_flops:
            cautions.append(
                f"the target is {self.target_flops / self.largest_flops:.2g} times the largest run: there the form of "
                f"the law counts for more than its intervals say"
            )
        prior = self.information.prior
        if self.beyond_prior:
            cautions.append(
                f"the largest run has {self.largest_flops:.3g} FLOPs, the prior {prior.name} was fitted from "
                f"{prior.smallest_flops:.3g} on: so far below, its slopes are too steep and these standard deviations "
                f"too small; give the fit of a small sweep of your own with --prior FITS.json"
            )
        outside = [one for one in self.valleys if not one.inside]
        if outside:
            first = outside[0]
            cautions.append(
                f"under the prior the minimum at {first.flops:.3g} FLOPs, N* = {first.params:.3g}, lies outside the "
                f"planned {first.lowest:.3g} to {first.highest:.3g}"
                + (f" (and at {len(outside) - 1} other budgets)" if len(outside) > 1 else "")
            )
        return cautions

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        prior, information = self.information.prior, self.information
        sds = {name: information.sd(name) for name in _quantities(information)}
        return {
            "prior": {
                "name": prior.name,
                "law": prior.law.NAME,
                "parameters": {name: float(value) for name, value in prior.law.values().items()},
                "noise_nats": prior.noise_nats,
                "shared_noise": prior.shared,
                "draws": 0 if prior.draws is None else len(next(iter(prior.draws.values().values()))),
            },
            "runs": len(information.runs),
            "condition": information.condition if math.isfinite(information.condition) else None,
            "identified": information.identified,
            "sd": sds,
            "target_flops": self.target_flops,
            "sd_log_tokens_per_param": self.sd_log_ratio,
            "upper_sd_log_tokens_per_param": _finite(self.upper_sd_log_ratio),
            "valleys": [valley.to_json() for valley in self.valleys],
            "bias_of_a": bias_of_exponent(self.valleys),
            "verdict": self.sentence(),
            "fix": self.fix,
            "cautions": self.cautions(),
        }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _quantities(information: Information) -> list[str]:
    """Quantities of the law whose standard deviations are stated."""
    law = information.prior.law
    return [*(["a"] if law.exponents(information.compute) else []), *law.names()]


def _factor_of(sd: float | None) -> float | None:
    return None if sd is None else math.exp(min(TWO_SIDED * sd, 700.0))


def _factor(value: float) -> str:
    return f"a factor {value:.2f}" if value < 100 else "a factor of more than 100"


def _share(factor: float) -> str:
    """ "34 %", "2 %", ".4 %"."""
    return f"{100 * (factor - 1):.2g} %"


def judge_plan(
    planned: Sequence[PlannedRun],
    prior: Prior | None = None,
    target_flops: float | None = None,
) -> Verdict:
    """Judge a plan under `prior` (default: the Chinchilla refit with its draws, noise .01 nats) at a target budget.

    Without a target: the largest held-out budget, where it is above all fitted ones, else ten times the largest run.
    """
    prior = prior or published_prior()
    runs = fitted_runs(planned)
    largest = max(count(run.config).flops for run in planned if not run.held_out)
    why = "--target"
    if target_flops is None:
        ahead = max((count(run.config).flops for run in planned if run.held_out), default=0)
        target_flops = float(ahead) if ahead > 1.05 * largest else 10.0 * largest
        why = "the largest held-out run" if ahead > 1.05 * largest else "ten times the largest run"
    known = information(prior, runs)
    fix = "" if known.identified else _fix(prior, planned)
    return Verdict(known, target_flops, why, _valleys(prior, planned), float(largest), fix)


def _valleys(prior: Prior, planned: Sequence[PlannedRun]) -> tuple[Valley, ...]:
    """One per budget with sizes enough for a parabola."""
    if isinstance(prior.law, DataConstrained):
        return ()
    fitted = [run for run in planned if run.flops_budget is not None and not run.held_out]
    budgets: dict[float, set[tuple[int, int, int]]] = {}
    for run, flops in zip(fitted, group_values([run.flops_budget for run in fitted]).tolist()):
        counts = count(run.config)
        budgets.setdefault(flops, set()).add((counts.params, counts.tokens, counts.flops))
    valleys = []
    for flops, members in sorted(budgets.items()):
        params_n, tokens_n, flops_n = np.array(sorted(members), dtype=float).T
        if group_count(params_n) >= LEAST_SIZES:
            valleys.append(planned_valley(prior.law, flops, params_n, _cost(params_n, tokens_n, flops_n)))
    return tuple(valleys)


def _cost(params_n: np.ndarray, tokens_n: np.ndarray, flops_n: np.ndarray) -> ComputeModel:
    """C = k N^p D through the exact counts of one budget; 6 N D where they agree with it."""
    per_token_n = flops_n / tokens_n
    if np.abs(per_token_n / (6 * params_n) - 1).max() < 0.01:
        return SIX_ND
    power, shift = np.polyfit(np.log(params_n), np.log(per_token_n), 1)
    return ComputeModel(math.exp(float(shift)), float(power))


def _fix(prior: Prior, planned: Sequence[PlannedRun]) -> str:
    """Runs that would make the law identifiable, with what they cost, computed for this plan."""
    fitted = sorted((run for run in planned if not run.held_out), key=lambda run: count(run.config).flops)
    runs = fitted_runs(planned)
    ratio = float(np.median(runs.tokens_n / runs.params_n))
    shapes = {count(run.config).params: run.config.model for run in fitted}
    sizes = sorted(shapes)[:3]
    if len(sizes) < 2:
        smallest = sizes[0]
        return f"add runs of other sizes, for example N = {smallest / 4:.3g} and {smallest * 4:.3g}, at several D each"
    ratios = (ratio / 4, ratio * 4)
    more = [(params, params * other) for params in sizes for other in ratios]
    cost = sum(flops_per_token(shapes[params]) * tokens for params, tokens in more)
    added = Runs(
        np.append(runs.params_n, [params for params, _ in more]),
        np.append(runs.tokens_n, [tokens for _, tokens in more]),
    )
    sentence = (
        f"add runs that vary D at fixed N: the {len(sizes)} smallest sizes also at D = {ratios[0]:.3g} N and "
        f"{ratios[1]:.3g} N ({len(more)} runs, {cost:.3g} FLOPs)"
    )
    if not isinstance(prior.law, DataConstrained):
        sentence += f" bring cond(J) to {condition(prior.law, added):.2g}"
    return sentence
