"""What a plan can identify, before a FLOP is spent: Fisher information under a named prior law and noise.

`judge_plan` gives the verdict on a plan, `improve` the next best runs; `optimal_experts` says how many experts a budget
and a memory should have.
"""

from lmscale.study.design.bias import Valley, bias_of_exponent, planned_valley
from lmscale.study.design.experts import (
    ExpertChoice,
    ExpertLimits,
    effective_dense_params,
    expert_choices,
    optimal_experts,
    total_params,
)
from lmscale.study.design.fisher import UNIDENTIFIED, Information, Runs, condition, information, jacobian
from lmscale.study.design.line import Line, line_through
from lmscale.study.design.next_runs import Candidates, Proposal, improve, with_candidates
from lmscale.study.design.planned import fitted_runs, inputs_of
from lmscale.study.design.prior import Prior, noise_draws, normal_draws, published_prior
from lmscale.study.design.verdict import ALLOWED, Verdict, judge_plan
from lmscale.study.laws.discrepancy import Discrepancy

__all__ = [
    "ALLOWED",
    "UNIDENTIFIED",
    "Candidates",
    "Discrepancy",
    "ExpertChoice",
    "ExpertLimits",
    "Information",
    "Line",
    "Prior",
    "Proposal",
    "Runs",
    "Valley",
    "Verdict",
    "bias_of_exponent",
    "condition",
    "effective_dense_params",
    "expert_choices",
    "fitted_runs",
    "improve",
    "information",
    "inputs_of",
    "jacobian",
    "judge_plan",
    "line_through",
    "noise_draws",
    "normal_draws",
    "optimal_experts",
    "planned_valley",
    "published_prior",
    "total_params",
    "with_candidates",
]
