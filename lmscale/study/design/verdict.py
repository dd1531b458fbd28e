"""A plan judged before it runs: what it can identify, how well, and what to change where it cannot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.config import PRETRAIN
from lmscale.core.counting import count
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import Z_95, counted
from lmscale.study.design.bias import Valley, bias_of_exponent
from lmscale.study.design.fisher import UNIDENTIFIED, Information, information
from lmscale.study.design.planned import fitted_runs, fix, planned_valleys
from lmscale.study.design.prior import Prior, published_prior
from lmscale.study.design.spread import sds
from lmscale.study.laws import DataConstrained

ALLOWED = 0.95
"""Share of the laws that a prior allows under which a plan is at least as precise as is said."""
FIRM, LOOSE = 1.5, 3.0
"""Factors by which D/N may be off at the target (95 %): up to the first it is pinned down, above the second it is not
known in any useful sense."""
NOTABLE_BIAS = 0.02
"""Relative error of a parabola's N* from which on it is stated."""
BELOW = 1e3
"""Times smaller than the smallest run of the prior: there its form is a guess."""
FAR = 100.0
"""Times the largest run: a target further out rests on the form of the law more than on the runs."""


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
        if isinstance(self.information.prior.law, DataConstrained) or not self.information.states_optimum:
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
            on_line = information.line
            line = f"{on_line}{on_line.theorem}: " if on_line else ""
            return (
                f"this plan cannot identify the law: {line}cond(J) = {information.condition:.2g}, above "
                f"{UNIDENTIFIED:.0e}, so that {self._terms()} cannot be told apart"
            )
        if self.factor is None or self.factor_at_prior is None:
            return f"this plan can identify the law {information.prior.law.NAME!r}"
        precision = f"{_within(self.factor)} (95 %{self._if_exact()})"
        if doubt := self._doubt():
            return (
                f"this plan can be fitted: its runs tell the effects of N and D apart. How exactly it will know "
                f"the best D/N {where} is open, since the assumed law {information.prior.name} cannot say how well it "
                f"fixes D/N there: {doubt}. Train and fit this plan, and give the next that fit: --prior FITS.json. "
                f"(Taken at its word, {information.prior.name} promises {precision})"
            )
        if self.factor > LOOSE:
            return (
                f"this plan can be fitted, but leaves the best D/N {where} open by {precision} either way: "
                f"`--improve` proposes the runs that narrow it"
            )
        sentence = f"this plan gives the best D/N, tokens per parameter, {where} within {precision} either way"
        if self.factor <= FIRM:
            sentence = f"this plan pins down the best D/N, tokens per parameter, {where} within {precision}"
        bias = max((abs(one.bias) for one in self.valleys if one.bias is not None), default=0.0)
        if bias > NOTABLE_BIAS:
            sentence += f"; a parabola per budget is off by up to {100 * bias:.1f} %, so take the law's own optimum"
        return sentence

    def _terms(self) -> str:
        """What runs that identify nothing leave alike."""
        law = self.information.prior.law
        return "the terms of N and D" if law.splits_compute() else f"the parameters of {law.NAME!r}"

    def _doubt(self) -> str:
        """Why the prior's law says nothing of these runs; "" where it does."""
        prior, runs = self.information.prior, self.information.runs
        highest = float(np.max(prior.law.loss(*runs.inputs(prior.law))))
        if highest > runs.most_nats:
            return (
                f"at these runs it predicts losses of up to {highest:.3g} nats, where no model loses more than "
                f"ln V = {runs.most_nats:.3g}"
            )
        if self.beyond_prior:
            return f"it was fitted from {prior.smallest_flops:.3g} FLOPs on, the plan ends at {self.largest_flops:.3g}"
        return ""

    def _if_exact(self) -> str:
        """What the figure would be, or is, without any doubt of the prior."""
        prior, exact = self.information.prior, self.factor_at_prior
        assert exact is not None
        condition = f"if the law {prior.name} and its noise of {prior.noise_nats:.3g} nats were exactly right"
        if prior.draws is None:
            return f", {condition}; how far they are off is not known"
        return f"; {_within(exact)} {condition}"

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
                + (f" (and at {counted(len(outside) - 1, 'other budget')})" if len(outside) > 1 else "")
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
                "discrepancy": None if prior.discrepancy is None else prior.discrepancy.size,
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
    return None if sd is None else math.exp(min(Z_95 * sd, 700.0))


def _within(factor: float) -> str:
    """ "34 %", "a factor 2.10"."""
    if factor <= FIRM:
        return f"{100 * (factor - 1):.2g} %"
    return f"a factor {factor:.2f}" if factor < 100 else "a factor of more than 100"


@checked
def judge_plan(
    planned: Sequence[PlannedRun],
    prior: Prior | None = None,
    target_flops: float | None = None,
) -> Verdict:
    """Judge a plan under `prior` (default: the Chinchilla refit with its draws, noise .01 nats) at a target budget.

    Without a target: the largest held-out budget, where it is above all fitted ones, else ten times the largest run.
    """
    prior = prior or published_prior()
    planned = [run for run in planned if run.stage == PRETRAIN]  # a law is of one stage
    runs = fitted_runs(planned, prior.size_column, type(prior.law))
    largest = max(count(run.config).flops for run in planned if not run.held_out)
    why = "--target"
    if target_flops is None:
        ahead = max((count(run.config).flops for run in planned if run.held_out), default=0)
        target_flops = float(ahead) if ahead > 1.05 * largest else 10.0 * largest
        why = "the largest held-out run" if ahead > 1.05 * largest else "ten times the largest run"
    known = information(prior, runs)
    mend = "" if known.identified else fix(prior, planned)
    return Verdict(known, target_flops, why, planned_valleys(prior, planned), float(largest), mend)
