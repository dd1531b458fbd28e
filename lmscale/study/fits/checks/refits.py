"""Checks of a loss law that fit again: without a run or a budget, by another loss, under another count."""

import math
from dataclasses import replace

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.design import UNIDENTIFIED
from lmscale.study.fits.results.common import Status
from lmscale.study.fits.runs import UsableRuns, compute_model
from lmscale.study.fits.solvers.derivatives import condition, jacobian
from lmscale.study.fits.solvers.minimise import minimise, minimise_many, minimise_near
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem
from lmscale.study.grouping import in_largest_group
from lmscale.study.laws import SIX_ND, ComputeModel

MOST = 250_000  # runs times fits without one of them: of a larger table only the weightiest runs are left out


def _exponent(problem: Problem, values_p: np.ndarray, compute: ComputeModel) -> np.ndarray | None:
    exponents = problem.law(values_p).exponents(compute)
    return np.asarray(exponents["params"], dtype=float) if exponents else None


def _headline(problem: Problem, values_p: np.ndarray, compute: ComputeModel) -> tuple[str, np.ndarray]:
    """The number whose stability is watched: a of N* ~ C^a, else the first parameter."""
    exponent = _exponent(problem, values_p, compute)
    return ("a", exponent) if exponent is not None else (problem.form.names()[0], np.asarray(values_p[0], dtype=float))


def influence(problem: Problem, best: GlobalMinimum, runs: UsableRuns, compute: ComputeModel) -> list[Status]:
    """Leave-one-out: which single run moves the exponent most."""
    chosen = _weightiest(problem, best)
    weights = np.ones((problem.runs, len(chosen)))
    weights[chosen, np.arange(len(chosen))] = 0
    values_pb, _ = minimise_many(problem, weights, best.values_p, thorough=False)
    name, left_out = _headline(problem, values_pb, compute)
    _, full = _headline(problem, best.values_p, compute)
    moved = left_out - full
    if not np.isfinite(moved).any():
        return []
    worst = int(np.nanargmax(np.abs(moved)))
    sentence = f"leaving out one run moves {name} by at most {moved[worst]:+.4f} ({runs.names[chosen[worst]]})"
    squares = float(np.nansum((moved - np.nanmean(moved)) ** 2))
    spread = math.sqrt((problem.runs - 1) / problem.runs * squares)
    sentence += (
        f"; jackknife s.e. {spread:.4f}" if len(chosen) == problem.runs else f"; the {len(chosen)} weightiest tried"
    )
    large = abs(moved[worst]) > max(0.5 * spread, 1e-9)
    return [Status("influence", sentence, "note" if large else "ok")]


def _weightiest(problem: Problem, best: GlobalMinimum) -> np.ndarray:
    """The runs worth leaving out: all, or in a large table those that pull hardest on the linearised law."""
    if problem.runs**2 <= MOST:
        return np.arange(problem.runs)
    residual, slopes = problem.residuals(best.values_p), jacobian(problem, best.values_p)
    pull = residual if problem.loss == "squared" else np.clip(residual, -problem.delta, problem.delta)
    square = slopes.T @ slopes
    steps = np.linalg.lstsq(square, np.eye(len(square)), rcond=None)[0] @ (slopes.T * pull)
    moved = np.einsum("pn,pn->n", steps, square @ steps)  # the squared change of all predictions
    return np.argsort(-moved, kind="stable")[: max(20, MOST // problem.runs)]


def largest_budget(problem: Problem, runs: UsableRuns) -> list[Status]:
    """Fit without the largest budget and predict it: the error that a planner would have met."""
    column = next(
        (name for name in ("flops_budget", "flops") if name in runs.table and runs.table[name].notna().all()), None
    )
    if column is None:
        return []
    budget = runs.column(column)
    top = in_largest_group(budget)
    if top.sum() < 3:  # no budgets, a cloud of runs: the largest tenth of them
        top = budget >= np.sort(budget)[-max(3, len(budget) // 10)]
    rest = problem.without(top)
    values = minimise(rest).values_p if rest.runs > len(problem.free) else None
    if values is None or condition(rest, values) > UNIDENTIFIED:
        return [Status("largest budget left out", "the smaller budgets alone cannot identify the law", "note")]
    measured = problem.target_n[top]
    if not (measured > 0).all():  # a reward, say: errors in per cent mean nothing
        return []
    error = measured / problem.predicted(values)[top] - 1
    return [
        Status(
            "largest budget left out",
            f"fitted without the {int(top.sum())} runs from {budget[top].min():.3g} FLOPs up, the law "
            f"misses them by {100 * np.abs(error).mean():.2f} % on average (bias {100 * error.mean():+.2f} %, measured "
            f"minus predicted) and {100 * np.abs(error).max():.2f} % at worst",
        )
    ]


def sensitivity(problem: Problem, best: GlobalMinimum, compute: ComputeModel) -> list[Status]:
    """The same runs under other Huber thresholds and other loss functions."""
    name, mine = _headline(problem, best.values_p, compute)
    statuses = []
    if problem.loss == "huber":
        deltas = [problem.delta * factor for factor in (0.1, 10.0, 100.0)]
        values = [
            float(_headline(problem, minimise_near(problem.using(delta=delta), best.values_p), compute)[1])
            for delta in deltas
        ]
        others = ", ".join(f"{value:.4f} at {delta:g}" for value, delta in zip(values, deltas))
        statuses.append(Status("delta", f"{name} = {float(mine):.4f} at delta = {problem.delta:g}; {others}"))
    losses = [loss for loss in ("huber", "lad", "squared") if loss != problem.loss]
    values = [
        float(_headline(problem, minimise_near(problem.using(loss=loss), best.values_p), compute)[1]) for loss in losses
    ]
    by_others = ", ".join(f"{value:.4f} by {loss}" for value, loss in zip(values, losses))
    by_others += _other_residuals(problem, best, compute)
    statuses.append(
        Status(
            "loss function",
            f"{name} = {float(mine):.4f} by {problem.loss}; {by_others}",
        )
    )
    return statuses


def _other_residuals(problem: Problem, best: GlobalMinimum, compute: ComputeModel) -> str:
    """The headline number with residuals of L in place of ln L, or the other way; "" where ln L does not exist."""
    if not (problem.target_n > 0).all():
        return ""
    other = problem.using(residual="raw" if problem.residual == "log" else "log")
    try:
        value = float(_headline(problem, minimise_near(other, best.values_p), compute)[1])
    except UserError:  # the law is negative somewhere
        return ""
    return f"; {value:.4f} with {other.residual} residuals"


def conventions(problem: Problem, best: GlobalMinimum, runs: UsableRuns, compute: ComputeModel) -> list[Status]:
    """The same fit with every other count of N and C in the table: often a wider spread than any interval.

    A column params_* (or n_params_*, active_params where models have experts) is another N, fitted anew with C = 6ND; a
    column flops_* another C, whose own compute model splits the law as fitted.
    """
    if problem.form.INPUTS != ("params", "tokens"):
        return []
    name, mine = _headline(problem, best.values_p, compute)
    headlines: dict[str, float] = {}
    for column in map(str, runs.table.columns):
        stem = column.removeprefix("n_")
        if (
            not stem.startswith(("params_", "flops_", "active_params"))
            or column == "flops_budget"
            or runs.table[column].dtype.kind not in "if"
        ):
            continue
        values = np.asarray(runs.table[column], dtype=float)
        if not (np.isfinite(values).all() and (values > 0).all()) or _of_dense_models(runs, stem, values):
            continue
        if stem.startswith("flops_"):
            model, _ = compute_model(runs.table.assign(flops=values))
            headlines[f"C = {column}"] = float(_headline(problem, best.values_p, model)[1])
        elif not np.allclose(values, problem.inputs[0]):
            other = replace(problem, inputs=(values, problem.inputs[1]))
            headlines[f"N = {column} and C = 6ND"] = float(_headline(other, minimise(other).values_p, SIX_ND)[1])
    if not headlines:
        return []
    every = [*headlines.values(), float(mine)]
    others = ", ".join(f"{value:.4f} with {column}" for column, value in headlines.items())
    spread = f"spread {max(every) - min(every):.4f}"
    return [Status("counting conventions", f"{name} = {float(mine):.4f} as fitted; {others}; {spread}", "note")]


def _of_dense_models(runs: UsableRuns, column: str, values_n: np.ndarray) -> bool:
    """Whether a count of active parameters is the total of every run, which has a column of its own."""
    total = column.removeprefix("active_")
    return total != column and total in runs.table and np.array_equal(values_n, runs.column(total))
