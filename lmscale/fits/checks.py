"""The doubts a reader should have about a loss law, each answered by a named status in one sentence."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmscale.fits.problem import Best, Problem
from lmscale.fits.result import Status
from lmscale.fits.runs import Runs, compute_model
from lmscale.laws import SIX_ND, ComputeModel, Law

UNIDENTIFIED = 1e6  # cond(J) of a good design is near 1e3, of a D = 20 N line above 1e9 (Cramer-Rao table)
MAX_EPOCHS = 4  # repeats are nearly as good as new data up to here (Muennighoff 2023)
MAX_WARMUP = 0.2  # above this share of a run, warmup itself bends the law (Porian 2024)


def of_loss_law(
    problem: Problem,
    best: Best,
    runs: Runs,
    compute: ComputeModel,
    *,
    samples: Law | None,
    converged: int,
    at: Sequence[float],
    largest_flops: float,
    refit: bool,
) -> list[Status]:
    """Every check of an Approach 3 fit.

    `converged` of the `samples` reached their minimum; `refit` includes the checks that fit again (influence, largest
    budget, sensitivity, conventions).
    """
    statuses = [*search(best), identified(problem, best), *at_bounds(problem, best, samples)]
    if samples is not None:
        count = len(next(iter(samples.values().values())))
        statuses.append(
            Status(
                "bootstrap",
                f"{converged} of {count} resamples converged, each from its own grid",
                "ok" if converged >= 0.99 * count else "warning",
            )
        )
    if problem.form.INPUTS[:2] == ("params", "tokens"):
        statuses += [*inside(problem, best, compute, largest_flops), *extrapolation(at, largest_flops)]
    statuses += of_training(runs)
    if refit and problem.runs > len(problem.free) + 1:
        statuses += [
            *influence(problem, best, runs, compute),
            *largest_budget(problem, runs),
            *sensitivity(problem, best, compute),
        ]
        statuses += conventions(problem, best, runs, compute)
    return statuses


def search(best: Best) -> list[Status]:
    said = f"{best.agreeing} of {best.starts} refined starts end within 1e-6 of the lowest objective"
    return [
        Status("starts", said, "ok" if best.agreeing > 1 else "warning"),
        Status(
            "gradient",
            f"largest component {best.gradient:.1e} at the minimum",
            "ok" if best.gradient < 1e-6 * max(1.0, best.objective) else "note",
        ),
    ]


def identified(problem: Problem, best: Best) -> Status:
    """By cond(J), never by a pseudo-inverse, which would print a harmless-looking number."""
    condition = problem.condition(best.values_p)
    if not condition < UNIDENTIFIED:
        reason = ""
        if problem.form.INPUTS[:2] == ("params", "tokens"):
            ratio = np.log(problem.inputs[1]) - np.log(problem.inputs[0])
            if np.ptp(ratio) < 0.05:
                line = f"D = {math.exp(float(ratio.mean())):.3g} N"
                reason = f": all runs lie on the line {line}, which cannot tell N's term from D's"
        return Status(
            "cannot be identified",
            f"cond(J) = {condition:.1e}{reason}; the parameters and any allocation are arbitrary: "
            f"add runs that vary D at fixed N",
            "warning",
        )
    return Status("identified", f"cond(J) = {condition:.1e} (trouble starts at {UNIDENTIFIED:.0e})")


def at_bounds(problem: Problem, best: Best, samples: Law | None) -> list[Status]:
    """Parameters that the data push to the end of their range: they are not estimated, only limited."""
    statuses = []
    for parameter, value in zip(problem.form.PARAMETERS, best.values_p):
        if parameter.name not in problem.free:
            continue
        ends = (parameter.low, parameter.high)
        if any(math.isclose(value, end, rel_tol=1e-6) for end in ends):
            said = f"{parameter.name} = {value:.4g} rests on the end of its range: the data give it no value"
            statuses.append(Status("at a bound", said, "warning"))
        elif samples is not None:
            drawn = np.asarray(getattr(samples, parameter.name))
            share = max(float(np.mean(np.isclose(drawn, end, rtol=1e-6, atol=0))) for end in ends)
            if share > 0.025:
                said = (
                    f"{parameter.name} runs to the end of its range in {share:.0%} of resamples: its interval is open"
                )
                statuses.append(Status("open interval", said, "warning"))
    return statuses


def inside(problem: Problem, best: Best, compute: ComputeModel, largest_flops: float) -> list[Status]:
    """Is the optimum of the largest fitted budget inside the sizes and token counts that were run?"""
    if not math.isfinite(largest_flops):
        return []
    try:
        optimum = problem.law(best.values_p).optimum(largest_flops, compute)
    except ValueError as error:
        return [Status("optimum outside the data", str(error), "warning")]
    for name, value, column in (("N*", optimum.params, problem.inputs[0]), ("D*", optimum.tokens, problem.inputs[1])):
        if not column.min() <= value <= column.max():
            return [
                Status(
                    "optimum outside the data",
                    f"at the largest budget, {largest_flops:.3g} FLOPs, {name} = {float(value):.3g} "
                    f"lies outside the runs' {column.min():.3g} to {column.max():.3g}",
                    "warning",
                )
            ]
    return [
        Status(
            "optimum inside the data",
            f"at the largest budget, {largest_flops:.3g} FLOPs, N* = {float(optimum.params):.3g} and "
            f"D* = {float(optimum.tokens):.3g} lie inside the runs' range",
        )
    ]


def extrapolation(at: Sequence[float], largest_flops: float) -> list[Status]:
    if not at or not math.isfinite(largest_flops):
        return []
    factor = max(at) / largest_flops
    if factor <= 1:
        return [Status("extrapolation", "every stated budget lies within the runs'")]
    return [
        Status(
            "extrapolation",
            f"the largest stated budget is {factor:.3g} times the largest run's {largest_flops:.3g} FLOPs",
            "note" if factor <= 100 else "warning",
        )
    ]


def _exponent(problem: Problem, values_p: np.ndarray, compute: ComputeModel) -> np.ndarray | None:
    exponents = problem.law(values_p).exponents(compute)
    return np.asarray(exponents["params"], dtype=float) if exponents else None


def _headline(problem: Problem, values_p: np.ndarray, compute: ComputeModel) -> tuple[str, np.ndarray]:
    """The number whose stability is watched: a of N* ~ C^a, else the first parameter."""
    exponent = _exponent(problem, values_p, compute)
    return ("a", exponent) if exponent is not None else (problem.form.names()[0], np.asarray(values_p[0], dtype=float))


def influence(problem: Problem, best: Best, runs: Runs, compute: ComputeModel) -> list[Status]:
    """Leave-one-out: which single run moves the exponent most."""
    values_pb, _ = problem.many(1 - np.eye(problem.runs), best.values_p, thorough=False)
    name, left_out = _headline(problem, values_pb, compute)
    _, full = _headline(problem, best.values_p, compute)
    moved = left_out - full
    if not np.isfinite(moved).any():
        return []
    worst = int(np.nanargmax(np.abs(moved)))
    spread = math.sqrt((problem.runs - 1) / problem.runs * float(np.nansum((moved - np.nanmean(moved)) ** 2)))
    large = abs(moved[worst]) > max(0.5 * spread, 1e-9)
    return [
        Status(
            "influence",
            f"leaving out one run moves {name} by at most {moved[worst]:+.4f} ({runs.names[worst]}); "
            f"jackknife s.e. {spread:.4f}",
            "note" if large else "ok",
        )
    ]


def largest_budget(problem: Problem, runs: Runs) -> list[Status]:
    """Fit without the largest budget, predict it: the error a planner would have met."""
    column = next(
        (name for name in ("flops_budget", "flops") if name in runs.table and runs.table[name].notna().all()), None
    )
    if column is None:
        return []
    budget = runs.column(column)
    top = budget >= 0.999 * budget.max()
    if top.sum() < 3:  # no budgets, a cloud of runs: the largest tenth of them
        top = budget >= np.sort(budget)[-max(3, len(budget) // 10)]
    rest = problem.without(top)
    if rest.runs <= len(problem.free) or rest.condition(rest.best().values_p) > UNIDENTIFIED:
        return [Status("largest budget left out", "the smaller budgets alone cannot identify the law", "note")]
    values = rest.best().values_p
    measured = problem.target_n[top]
    error = np.asarray(problem.law(values).loss(*[column[top] for column in problem.inputs])) / measured - 1
    return [
        Status(
            "largest budget left out",
            f"fitted without the {int(top.sum())} runs from {budget[top].min():.3g} FLOPs up, the law "
            f"misses them by {100 * error.mean():+.2f} % on average, {100 * np.abs(error).max():.2f} % at worst",
        )
    ]


def sensitivity(problem: Problem, best: Best, compute: ComputeModel) -> list[Status]:
    """The same runs under other Huber thresholds and other loss functions."""
    name, mine = _headline(problem, best.values_p, compute)
    statuses = []
    if problem.loss == "huber":
        deltas = [problem.delta * factor for factor in (0.1, 10.0, 100.0)]
        found = [float(_headline(problem, problem.using(delta=delta).best().values_p, compute)[1]) for delta in deltas]
        said = ", ".join(f"{value:.4f} at {delta:g}" for value, delta in zip(found, deltas))
        statuses.append(Status("delta", f"{name} = {float(mine):.4f} at delta = {problem.delta:g}; {said}"))
    others = [loss for loss in ("huber", "lad", "squared") if loss != problem.loss]
    found = [float(_headline(problem, problem.using(loss=loss).best().values_p, compute)[1]) for loss in others]
    raw = problem.using(residual="raw" if problem.residual == "log" else "log")
    said = ", ".join(f"{value:.4f} by {loss}" for value, loss in zip(found, others))
    other = float(_headline(problem, raw.best().values_p, compute)[1])
    statuses.append(
        Status(
            "loss function",
            f"{name} = {float(mine):.4f} by {problem.loss}; {said}; {other:.4f} with {raw.residual} residuals",
        )
    )
    return statuses


def conventions(problem: Problem, best: Best, runs: Runs, compute: ComputeModel) -> list[Status]:
    """The same fit with every other count of N and C in the table: often a wider spread than any interval.

    A column params_* (or n_params_*) is another N, fitted anew with C = 6ND; a column flops_* another C, whose own
    compute model splits the law as fitted.
    """
    if problem.form.INPUTS != ("params", "tokens"):
        return []
    name, mine = _headline(problem, best.values_p, compute)
    found: dict[str, float] = {}
    for column in map(str, runs.table.columns):
        stem = column.removeprefix("n_")
        if (
            not stem.startswith(("params_", "flops_"))
            or column == "flops_budget"
            or runs.table[column].dtype.kind not in "if"
        ):
            continue
        values = np.asarray(runs.table[column], dtype=float)
        if not (np.isfinite(values).all() and (values > 0).all()):
            continue
        if stem.startswith("flops_"):
            model, _ = compute_model(runs.table.assign(flops=values))
            found[f"C = {column}"] = float(_headline(problem, best.values_p, model)[1])
        elif not np.allclose(values, problem.inputs[0]):
            other = replace(problem, inputs=(values, problem.inputs[1]))
            found[f"N = {column} and C = 6ND"] = float(_headline(other, other.best().values_p, SIX_ND)[1])
    if not found:
        return []
    every = [*found.values(), float(mine)]
    said = ", ".join(f"{value:.4f} with {column}" for column, value in found.items())
    spread = f"spread {max(every) - min(every):.4f}"
    return [Status("counting conventions", f"{name} = {float(mine):.4f} as fitted; {said}; {spread}", "note")]


def of_training(runs: Runs) -> list[Status]:
    """What the table says about how the runs were trained, where it says it."""
    table, statuses = runs.table, []
    has = set(map(str, table.columns))

    def warn(name: str, bad: np.ndarray, sentence: str) -> None:
        if bad.any():
            first = ", ".join(map(str, table["run"][bad][:3]))
            statuses.append(
                Status(name, f"{int(bad.sum())} of {len(table)} runs {sentence} (first: {first})", "warning")
            )

    if "epochs" in has:
        warn(
            "repeated data",
            runs.column("epochs") > MAX_EPOCHS,
            f"saw their data more than {MAX_EPOCHS} times: not plain Chinchilla runs; fit the law 'data-constrained'",
        )
    elif "unique_tokens" in has and "tokens" in has:
        warn(
            "repeated data",
            runs.column("tokens") > MAX_EPOCHS * runs.column("unique_tokens"),
            f"saw their data more than {MAX_EPOCHS} times: not plain Chinchilla runs; fit the law 'data-constrained'",
        )
    if "warmup_fraction" in has:
        warn(
            "long warmup",
            runs.column("warmup_fraction") > MAX_WARMUP,
            f"spent more than {MAX_WARMUP:.0%} of their tokens in warmup",
        )
    elapsed = next((name for name in ("fraction_of_schedule", "portion_steps_elapsed") if name in has), None)
    constant = (
        table["schedule"].astype(str).eq("constant").to_numpy()
        if "schedule" in has
        else np.zeros(len(table), dtype=bool)
    )
    if elapsed is not None:
        warn(
            "unfinished schedules",
            (runs.column(elapsed) < 0.999) & ~constant,
            "are points inside a decaying schedule, where the loss is higher than at a schedule that ended there",
        )
    statuses += learning_rate_edges(runs)
    return statuses


def learning_rate_edges(runs: Runs) -> list[Status]:
    """Cells (same N and D) run at several learning rates whose best is the smallest or the largest tried."""
    rate = next((name for name in ("learning_rate", "peak_lr", "lr") if name in runs.table), None)
    if rate is None or not {"params", "tokens", "loss_nats"} <= set(runs.table):
        return []
    edge, cells = [], 0
    for _, cell in runs.table.groupby(["params", "tokens"]):
        if cell[rate].nunique() < 3:
            continue
        cells += 1
        rates, best = np.asarray(cell[rate], dtype=float), int(np.argmin(cell["loss_nats"]))
        if rates[best] in (rates.min(), rates.max()):
            edge.append(f"N = {cell['params'].iloc[0]:.3g}, D = {cell['tokens'].iloc[0]:.3g}")
    if not edge:
        return []
    return [
        Status(
            "learning rate on the edge",
            f"in {len(edge)} of {cells} cells the best learning rate is the smallest or largest tried "
            f"({'; '.join(edge[:3])}): their loss is not the size's best, and bends the exponent",
            "warning",
        )
    ]
