"""`lmscale plan --improve`: runs to add to a plan, made by its own recipe."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmscale.core.config import PRETRAIN, RunConfig, check
from lmscale.core.counting import ACTIVE, TOTAL, Counts, count, flops_per_token
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.study.design import (
    Candidates,
    Information,
    Prior,
    Proposal,
    Runs,
    fitted_runs,
    improve,
    information,
    inputs_of,
)
from lmscale.study.fits.sizes import OF_EXPERTS
from lmscale.study.grouping import group_index
from lmscale.study.laws import Law
from lmscale.study.sweep import Plan, plan_of_runs

SIZES, RATIOS = 25, 17
"""Points of the grid of candidates along N and D/N, evenly spaced in the logarithm."""
WIDER = 2.0
"""Factor by which candidates go beyond the planned N and D/N: further out, the recipe is untested."""
SMALL_CHANGE = 200.0
"""No candidate costs less than this fraction, 1/200, of the budget: a run has costs besides its FLOPs."""
COMPARABLE = 3.0
"""Runs that cost at least this fraction, 1/3, of the most expensive one are the largest runs."""
QUANTITIES: dict[str, tuple[str, Callable[[Information, float], Callable[[Law], Any] | Runs]]] = {
    "ratio": ("ln D/N", lambda information, flops: information.log_ratio(flops)),
    "params": ("ln N*", lambda information, flops: information.log_params(flops)),
    "loss": ("the loss", lambda information, flops: information.at_optimum(flops)),
}


def improved_plan(
    plan: Plan, prior: Prior, quantity: str, target_flops: float, spend: float, most: int
) -> tuple[Plan, Proposal, str]:
    """The plan with the proposed runs at its end, the proposal, and the name of the quantity that it narrows.

    Raises `UserError` where the recipe cannot make a run of the law's inputs, or where `spend` buys no run.
    """
    check(spend > 0 and most > 0, f"--spend {spend:g} --most {most}: both must be positive")
    size = _Size.of(plan, prior)
    points, candidates = _candidates(plan, size, prior.law, spend)
    fitted = fitted_runs(_of_the_law(plan), prior.size_column, type(prior.law))
    name, target = _target(plan, prior, information(prior, fitted), quantity, target_flops)
    proposal = improve(prior, fitted, candidates, target, spend=spend, most=most)
    known = {run.config.run_id for run in plan.runs}
    runs = [_run(plan, points[index], known) for index in proposal.indices]
    sweep = plan.sweep
    return plan_of_runs(sweep.name, [*plan.runs, *runs], **sweep.purpose), proposal, name


def _target(
    plan: Plan, prior: Prior, known: Information, quantity: str, target_flops: float
) -> tuple[str, Callable[[Law], Any] | Runs]:
    """What is narrowed, and its name: a quantity of the optimum, or the losses that the law is for.

    A law without an optimum of N and D, or whose further inputs are not given, is for the held-out runs, or else for
    the most expensive ones. Raises `UserError` where another quantity was asked for.
    """
    if known.states_optimum:
        name, narrowed = QUANTITIES[quantity]
        return f"{name} at {target_flops:.3g} FLOPs", narrowed(known, target_flops)
    check(
        quantity != "params",
        f"the law {prior.law.NAME!r} is of {', '.join(prior.law.INPUTS)} and states no N* at a budget: leave "
        f"--quantity out, or give the values of the further inputs with --given",
    )
    planned = _of_the_law(plan)
    ahead = [run for run in planned if run.held_out]
    largest = max(count(run.config).flops for run in planned)
    runs = ahead or [run for run in planned if count(run.config).flops > largest / COMPARABLE]
    rows = [inputs_of(run.config, prior.law.INPUTS, prior.size_column) for run in runs]
    target = Runs.of({name: np.array([row[name] for row in rows]) for name in prior.law.INPUTS})
    return f"the loss of the {'held-out' if ahead else 'largest'} runs", target


def _of_the_law(plan: Plan) -> list[PlannedRun]:
    """The runs that a law of N and D is fitted to: what follows pretraining has laws of its own."""
    return [run for run in plan.runs if run.stage == PRETRAIN]


@dataclass(frozen=True)
class _Size:
    """How the plan's law counts N, and how a point asks the recipe for it."""

    column: str
    coordinate: str
    arrangements: tuple[dict[str, float], ...]
    """What a point says besides size and length: the experts and the unique tokens of the planned runs."""

    @classmethod
    def of(cls, plan: Plan, prior: Prior) -> "_Size":
        """Raises `UserError` for runs of several numbers of experts under a law without, and for an N of no point."""
        column, numbers = prior.size_column, {run.config.model.experts for run in _of_the_law(plan)}
        inputs = set(prior.law.INPUTS)
        check(
            len(numbers) == 1 or bool(inputs & set(OF_EXPERTS)),
            f"the runs have {min(numbers)} to {max(numbers)} experts, and --improve adds runs of one law of N and D: "
            f"give it a sweep of one number of experts, or the law of a fit with experts as --prior",
        )
        check(
            column in (TOTAL, ACTIVE),
            f"the law of --prior counts N as {column}, which no recipe takes: fit it to params or active_params",
        )
        fitted = [run.config for run in _of_the_law(plan) if not run.held_out]
        several = [_arrangement(config, inputs) for config in fitted]
        distinct = tuple(dict(pairs) for pairs in dict.fromkeys(tuple(one.items()) for one in several))
        return cls(column, column if max(numbers) > 1 else TOTAL, distinct)

    def __call__(self, counts: Counts) -> int:
        return int(getattr(counts, self.column))


def _arrangement(config: RunConfig, inputs: Collection[str]) -> dict[str, float]:
    """The coordinates of a run's experts and unique tokens, as far as the law knows of them."""
    point: dict[str, float] = {}
    if set(OF_EXPERTS) & set(inputs):
        model = config.model
        point = {"experts": model.experts}
        if model.experts > 1:
            point |= {"experts_per_token": model.experts_per_token, "granularity": model.granularity}
    if "unique_tokens" in inputs and config.data.unique_tokens is not None:
        point["unique_tokens"] = config.data.unique_tokens
    return point


def _candidates(plan: Plan, size_of: _Size, law: Law, spend: float) -> tuple[list[dict[str, Any]], Candidates]:
    """A grid of N and D/N around the plan, for every arrangement, priced by the exact count of the recipe's shapes.

    The points that ask the recipe for them come first.
    """
    counts = [count(run.config) for run in _of_the_law(plan) if not run.held_out]
    params = [size_of(one) for one in counts]
    ratios = [one.tokens / size_of(one) for one in counts]
    low, high = plan.sweep.tokens_per_param
    grid = np.geomspace(max(low, min(ratios) / WIDER), min(high, max(ratios) * WIDER), RATIOS)
    rows: dict[tuple[float, ...], dict[str, Any]] = {}
    names = tuple(dict.fromkeys(("params", "tokens", *law.INPUTS)))
    for arrangement in size_of.arrangements:
        for size in np.geomspace(min(params) / WIDER, max(params) * WIDER, SIZES):
            config = _run_at(
                plan, {**arrangement, size_of.coordinate: float(size), "tokens": float(20 * size), "seed": 0}
            )
            if config is None:
                continue
            _check_experts(plan, size_of, arrangement, config)
            n, per_token = size_of(count(config)), flops_per_token(config.model)
            for ratio in grid:
                inputs = inputs_of(config, names, size_of.column) | {"params": float(n), "tokens": float(n * ratio)}
                if "unique_tokens" in inputs:
                    inputs["unique_tokens"] = min(arrangement.get("unique_tokens", math.inf), inputs["tokens"])
                point = {**arrangement, size_of.coordinate: float(n), "tokens": inputs["tokens"]}
                rows.setdefault((*inputs.values(), float(per_token * n * ratio)), point)
    affordable = sorted(row for row in rows if spend / SMALL_CHANGE <= row[-1] <= spend)
    check(
        bool(affordable),
        f"--spend {spend:.3g} FLOPs buys no run of {min(params) / WIDER:.3g} to {max(params) * WIDER:.3g} parameters",
    )
    columns = np.array(affordable).T
    return [rows[row] for row in affordable], Candidates.of(dict(zip(names, columns)), columns[-1])


def _run_at(plan: Plan, point: dict[str, Any]) -> RunConfig | None:
    """The run that the recipe makes at a point; None outside of its family. Raises `UserError` where it takes none."""
    try:
        return plan.sweep.recipe(point)
    except UserError:
        return None
    except (KeyError, TypeError) as error:
        raise UserError(
            f"the recipe of sweep {plan.sweep.name!r} makes no run of params and tokens ({error!r}), which "
            f"--improve needs; a recipe of `lmscale.recipes` does"
        ) from None


def _check_experts(plan: Plan, size_of: _Size, arrangement: dict[str, float], config: RunConfig) -> None:
    """Raises `UserError` where a recipe makes models of another number of experts than the planned runs have."""
    numbers = {run.config.model.experts for run in _of_the_law(plan)}
    expected = arrangement.get("experts", min(numbers))
    check(
        config.model.experts == expected,
        f"the planned runs have {expected:g} experts and the recipe of sweep {plan.sweep.name!r} makes models "
        f"of {config.model.experts}: give them to the recipe's family, so that --improve can add runs like them",
    )


def _run(plan: Plan, coordinates: dict[str, Any], known: set[str]) -> PlannedRun:
    """The run at a candidate's point, with the first seed that is not planned yet."""
    recipe = plan.sweep.recipe
    for seed in range(1000):
        point = {**coordinates, "seed": seed}
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
