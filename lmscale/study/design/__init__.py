"""What a plan can identify, before a FLOP is spent: Fisher information under a named prior law and noise.

`judge_plan` gives the verdict on a plan, `improve` the next best runs.
"""

from lmscale.study.design.bias import Valley, bias_of_exponent, planned_valley
from lmscale.study.design.fisher import UNIDENTIFIED, Information, Runs, condition, information, jacobian
from lmscale.study.design.line import Line, line_through
from lmscale.study.design.next_runs import Candidates, Proposal, improve, with_candidates
from lmscale.study.design.planned import fitted_runs
from lmscale.study.design.prior import Prior, noise_draws, normal_draws, published_prior
from lmscale.study.design.verdict import ALLOWED, Verdict, judge_plan

__all__ = [
    "ALLOWED",
    "UNIDENTIFIED",
    "Candidates",
    "Information",
    "Line",
    "Prior",
    "Proposal",
    "Runs",
    "Valley",
    "Verdict",
    "bias_of_exponent",
    "condition",
    "fitted_runs",
    "improve",
    "information",
    "jacobian",
    "judge_plan",
    "line_through",
    "noise_draws",
    "normal_draws",
    "planned_valley",
    "published_prior",
    "with_candidates",
]
