"""`lmscale plan --improve`: runs to add to a plan, made by its own recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmscale.core.config import PRETRAIN, check
from lmscale.core.counting import ACTIVE, TOTAL, Counts, count, flops_per_token
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.study.design import Candidates, Information, Prior, Proposal, fitted_runs, improve, information
from lmscale.study.grouping import group_index
from lmscale.study.laws import Law
from lmscale.study.sweep import Plan, plan_of_runs

SIZES, RATIOS = 25, 17
"""Points of the grid of candidates along N and D/N, evenly spaced in the logarithm."""
WIDER = 2.0
"""Factor by which candidates go beyond the planned N and D/N: further out, the recipe is untested."""
SMALL_CHANGE = 200.0
"""No candidate costs less than this fraction, 1/200, of the budget: a run has costs besides its FLOPs."""
QUANTITIES: dict[str, tuple[str, Callable[[Information, float], Callable[[Law], Any]]]] = {
    "ratio": ("ln D/N", lambda information, flops: information.log_ratio(flops)),
    "params": ("ln N*", lambda information, flops: information.log_params(flops)),
    "loss": ("the loss", lambda information, flops: information.loss(flops)),
}


def improved_plan(
    plan: Plan, prior: Prior, quantity: str, target_flops: float, spend: float, most: int
) -> tuple[Plan, Proposal, str]:
    """The plan with the proposed runs at its end, the proposal, and the name of the quantity that it narrows.

    Raises `UserError` where the recipe cannot make a run of params and tokens, or where `spend` buys no run.
    """
    check(spend > 0 and most > 0, f"--spend {spend:g} --most {most}: both must be positive")
    size = _Size.of(plan, prior)
    candidates = _candidates(plan, size, spend)
    name, narrowed = QUANTITIES[quantity]
    fitted = fitted_runs(_of_the_law(plan), prior.size_column)
    target = narrowed(information(prior, fitted), target_flops)
    proposal = improve(prior, fitted, candidates, target, spend=spend, most=most)
    chosen = proposal.chosen
    known = {run.config.run_id for run in plan.runs}
    runs = [_run(plan, size, float(n), float(d), known) for n, d in zip(chosen.params_m, chosen.tokens_m)]
    sweep = plan.sweep
    improved = plan_of_runs(sweep.name, [*plan.runs, *runs], **sweep.purpose)
    return improved, proposal, f"{name} at {target_flops:.3g} FLOPs"


def _of_the_law(plan: Plan) -> list[PlannedRun]:
    """The runs that a law of N and D is fitted to: what follows pretraining has laws of its own."""
    return [run for run in plan.runs if run.stage == PRETRAIN]


@dataclass(frozen=True)
class _Size:
    """How the plan's law counts N, and how a point asks the recipe for it."""

    column: str
    coordinate: str
    experts: int

    @classmethod
    def of(cls, plan: Plan, prior: Prior) -> "_Size":
        """Raises `UserError` for a plan of several numbers of experts, and for an N that no point asks for."""
        column, numbers = prior.size_column, {run.config.model.experts for run in _of_the_law(plan)}
        check(
            len(numbers) == 1,
            f"the runs have {min(numbers)} to {max(numbers)} experts, and --improve adds runs of one law of N and D: "
            f"give it a sweep of one number of experts",
        )
        check(
            column in (TOTAL, ACTIVE),
            f"the law of --prior counts N as {column}, which no recipe takes: fit it to params or active_params",
        )
        experts = numbers.pop()
        return cls(column, column if experts > 1 else TOTAL, experts)

    def __call__(self, counts: Counts) -> int:
        return int(getattr(counts, self.column))


def _candidates(plan: Plan, size_of: _Size, spend: float) -> Candidates:
    """A grid of N and D/N around the plan, priced by the exact count of the recipe's own shapes."""
    counts = [count(run.config) for run in _of_the_law(plan) if not run.held_out]
    params = [size_of(one) for one in counts]
    ratios = [one.tokens / size_of(one) for one in counts]
    low, high = plan.sweep.tokens_per_param
    grid = np.geomspace(max(low, min(ratios) / WIDER), min(high, max(ratios) * WIDER), RATIOS)
    rows: set[tuple[float, float, float]] = set()
    for size in np.geomspace(min(params) / WIDER, max(params) * WIDER, SIZES):
        try:
            config = plan.sweep.recipe({size_of.coordinate: float(size), "tokens": float(20 * size), "seed": 0})
        except UserError:
            continue  # outside the recipe's family
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the recipe of sweep {plan.sweep.name!r} makes no run of params and tokens ({error!r}), which "
                f"--improve needs; a recipe of `lmscale.recipes` does"
            ) from None
        check(
            config.model.experts == size_of.experts,
            f"the planned runs have {size_of.experts} experts and the recipe of sweep {plan.sweep.name!r} makes models "
            f"of {config.model.experts}: give them to the recipe's family, so that --improve can add runs like them",
        )
        n = size_of(count(config))
        rows |= {(float(n), float(n * ratio), float(flops_per_token(config.model) * n * ratio)) for ratio in grid}
    affordable = [row for row in sorted(rows) if spend / SMALL_CHANGE <= row[2] <= spend]
    check(
        bool(affordable),
        f"--spend {spend:.3g} FLOPs buys no run of {min(params) / WIDER:.3g} to {max(params) * WIDER:.3g} parameters",
    )
    return Candidates(*np.array(affordable).T)


def _run(plan: Plan, size: _Size, params: float, tokens: float, known: set[str]) -> PlannedRun:
    """The run at a candidate, with the first seed that is not planned yet."""
    recipe = plan.sweep.recipe
    for seed in range(1000):
        point = {size.coordinate: params, "tokens": tokens, "seed": seed}
        config = recipe(point)
        if config.run_id not in known:
            known.add(config.run_id)
            origins = recipe.origins(point) if hasattr(recipe, "origins") else {}
            return PlannedRun(
                config=config,
                flops_budget=_budget(plan, count(config).flops),
                origins={**origins, "point": "proposed by --improve"},
            )
    raise AssertionError("a thousand seeds of one run are planned")


def _budget(plan: Plan, flops: float) -> float | None:
    """The planned budget that so many FLOPs belong to, up to rounding; None where they are of none."""
    budgets = [run.flops_budget for run in plan.runs if run.flops_budget is not None]
    groups = group_index([*budgets, flops])
    return next((budget for budget, group in zip(budgets, groups) if group == groups[-1]), None)
