"""A plan as a design: the runs that a fit may see, its valleys, and what to add where it identifies nothing."""

import math
from collections.abc import Sequence

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.config import RunConfig
from lmscale.core.counting import SIZES, count, flops_per_token
from lmscale.core.errors import UserError, nearest
from lmscale.core.plans import PlannedRun
from lmscale.study.design.bias import LEAST_SIZES, Valley, planned_valley
from lmscale.study.design.fisher import Runs, condition
from lmscale.study.design.prior import Prior
from lmscale.study.grouping import group_count, group_values
from lmscale.study.laws import PLANNED_INPUTS, SIX_ND, Chinchilla, ComputeModel, DataConstrained, Law


@checked
def inputs_of(config: RunConfig, names: Sequence[str], size_column: str = Prior.size_column) -> dict[str, float]:
    """The inputs of a law that a planned run has, with the count `size_column` as N.

    Raises `UserError` for one that no configuration states, as the loss of a teacher.
    """
    counts, model = count(config), config.model
    if size_column not in SIZES:
        raise UserError(f"size_column = {size_column!r} is no count of parameters{nearest(size_column, SIZES)}")
    stated = {
        "params": getattr(counts, size_column),
        "tokens": counts.tokens,
        "unique_tokens": min(config.tokens, config.data.unique_tokens or config.tokens),
        "active_params": counts.active_params,
        "experts": model.experts,
        "granularity": model.granularity,
        "sparsity": 1 - model.experts_per_token / model.experts,
    }
    if unknown := [name for name in names if name not in stated]:
        raise UserError(
            f"a planned run states no {unknown[0]}: designs are judged for laws of {', '.join(PLANNED_INPUTS)}; "
            f"`study.design.improve` takes candidates with any columns"
        )
    return {name: float(stated[name]) for name in names}


@checked
def fitted_runs(
    planned: Sequence[PlannedRun], size_column: str = Prior.size_column, law: type[Law] = Chinchilla
) -> Runs:
    """The runs that a fit of `law` may see, with the count `size_column` as N.

    Raises `UserError` where all are held out, or state no input of the law.
    """
    fitted = [run for run in planned if not run.held_out]
    if not fitted:
        raise UserError("every run of the plan is held out, so no fit sees any; leave some to be fitted")
    names = tuple(dict.fromkeys(("params", "tokens", "unique_tokens", *law.INPUTS)))
    rows = [inputs_of(run.config, names, size_column) for run in fitted]
    return Runs.of(
        {name: np.array([row[name] for row in rows]) for name in names},
        clusters_n=[run.group for run in fitted],
        most_nats=math.log(max(run.config.model.vocab for run in fitted)),
    )


def planned_valleys(prior: Prior, planned: Sequence[PlannedRun]) -> tuple[Valley, ...]:
    """One valley per budget with sizes enough for a parabola."""
    if prior.law.INPUTS != ("params", "tokens"):
        return ()
    fitted = [run for run in planned if run.flops_budget is not None and not run.held_out]
    budgets: dict[float, set[tuple[int, int, int]]] = {}
    for run, flops in zip(fitted, group_values([run.flops_budget for run in fitted]).tolist()):
        counts = count(run.config)
        budgets.setdefault(flops, set()).add((getattr(counts, prior.size_column), counts.tokens, counts.flops))
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


def fix(prior: Prior, planned: Sequence[PlannedRun]) -> str:
    """Runs that would make the law identifiable, with what they cost, computed for this plan."""
    if others := [name for name in prior.law.INPUTS if name not in ("params", "tokens", "unique_tokens")]:
        each = " and of ".join(dict.fromkeys(("params", *others)))
        return f"add runs of several values of {each}, each at fixed values of the others"
    fitted = sorted((run for run in planned if not run.held_out), key=lambda run: count(run.config).flops)
    runs = fitted_runs(planned, prior.size_column)
    ratio = float(np.median(runs.tokens_n / runs.params_n))
    sizes_m = [getattr(count(run.config), prior.size_column) for run in fitted]
    shapes = {
        int(size): run.config.model for size, own, run in zip(group_values(sizes_m), sizes_m, fitted) if own == size
    }
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
