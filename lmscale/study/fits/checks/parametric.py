"""Checks of a loss law: each is a status with a name and one sentence."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lmscale.core.quantities import counted
from lmscale.study.design import UNIDENTIFIED, line_through
from lmscale.study.fits import missing_cells
from lmscale.study.fits.checks import refits
from lmscale.study.fits.results.common import Status
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.fits.solvers import absolute
from lmscale.study.fits.solvers.constraints import outside_own_ranges
from lmscale.study.fits.solvers.derivatives import condition
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem
from lmscale.study.fits.uncertainty.new_runs import far_away
from lmscale.study.laws import CHINCHILLA_REFIT, Chinchilla, ComputeModel, Law
from lmscale.study.laws.parameter import Parameter
from lmscale.study.tables.states import inside_schedule

IDENTIFIED, PARTIAL = "identified", "partial answer"
SAME = 0.05  # relative: runs that lie this near to a line lie on it
OUTLYING = 10.0  # robust standard deviations: what no normal noise does
FAR_OUT = 100.0  # what no run does: a wrong number
MAX_EPOCHS = 4  # repeats are nearly as good as new data up to here (Muennighoff 2023)
MAX_NATS = 15  # ln V of any vocabulary in use is below
MAX_WARMUP = 0.2  # above this share of a run, warmup itself bends the law (Porian 2024)


def of_loss_law(
    problem: Problem,
    best: GlobalMinimum,
    runs: UsableRuns,
    compute: ComputeModel,
    *,
    samples: Law | None,
    at: Sequence[float],
    largest_flops: float,
    refit: bool,
    given: Mapping[str, float],
) -> list[Status]:
    """Every check of an Approach 3 fit.

    `refit` includes the checks that fit again (influence, largest budget, sensitivity, conventions).
    """
    statuses = [*search(problem, best), in_full(identified(problem, best), problem, best, runs)]
    statuses += [*outside_ranges(problem, best), *at_bounds(problem, best, samples)]
    statuses += [*one_budget(problem), *outliers(problem, best, runs)]
    if problem.form.splits_compute() and set(problem.form.further_inputs()) <= set(given):
        statuses += [*inside(problem, best, compute, largest_flops, given), *extrapolation(at, largest_flops)]
    statuses += of_training(runs)
    known = {name: value for name, value in given.items() if name in problem.form.INPUTS}
    if doubt := far_away(known, {name: problem.column(name) for name in known}):
        statuses.append(Status("far from the runs", f"of `given`, {doubt}", "warning"))
    if refit and problem.runs > len(problem.free) + 1:
        statuses += [
            *refits.influence(problem, best, runs, compute),
            *refits.largest_budget(problem, runs),
            *refits.sensitivity(problem, best, compute),
            *refits.conventions(problem, best, runs, compute),
        ]
    return statuses


def outside_ranges(problem: Problem, best: GlobalMinimum) -> list[Status]:
    """A warning for each parameter that a constraint puts where the law's own range does not reach."""
    values = problem.law(best.values_p).values()
    tied = {name: float(values[name]) for name in problem.tied or {}}
    sentences = outside_own_ranges(problem.form, problem.fixed or {}, problem.bounds or {}, tied)
    return [Status("outside of its range", sentence, "warning") for sentence in sentences]


def search(problem: Problem, best: GlobalMinimum) -> list[Status]:
    sentence = f"{best.agreeing} of {best.starts} refined starts end within 1e-6 of the lowest objective"
    return [
        Status("starts", sentence, "ok" if best.agreeing > 1 or best.starts == 1 else "warning"),
        _stationary(problem, best),
    ]


def _stationary(problem: Problem, best: GlobalMinimum) -> Status:
    """Whether nothing more is to be gained where the search ended."""
    if math.isinf(best.gradient):
        return Status(
            "minimum not proved",
            "the search for the corner of absolute deviations was cut short: a lower one may be near; "
            "compare with a fit by Huber's loss",
            "warning",
        )
    corner = absolute.serves(problem)
    sentence = f"one more step gains {best.gradient:.1e}" if corner else f"largest component {best.gradient:.1e}"
    small = best.gradient < 1e-6 * max(1.0, best.objective)
    return Status("gradient", f"{sentence} at the minimum", "ok" if small else "note")


def identified(problem: Problem, best: GlobalMinimum) -> Status:
    """Whether the runs identify the law: by cond(J), never by a pseudo-inverse, which would look harmless.

    Noise alone sets alpha and beta of a D = 20 N line apart, and cond(J) at the fit then looks better than the design
    is. So Chinchilla's form is judged at the published refit too, and any form by whether its runs lie on one line.
    """
    cond = condition(problem, best.values_p)
    if problem.form is Chinchilla and not problem.constrained:
        cond = max(cond, condition(problem, np.array(list(CHINCHILLA_REFIT.values().values()))))
    line = "" if problem.constrained else _one_line(problem)
    if line or not cond < UNIDENTIFIED:
        return Status(
            "cannot be identified",
            f"cond(J) = {cond:.1e}{line or '; the runs do not tell the parameters apart'}: "
            f"the parameters and any allocation are arbitrary; add runs that vary D at fixed N, and N at fixed D",
            "warning",
        )
    return Status(IDENTIFIED, f"cond(J) = {cond:.1e} (trouble starts at {UNIDENTIFIED:.0e})")


def in_full(status: Status, problem: Problem, best: GlobalMinimum, runs: UsableRuns) -> Status:
    """`status`, unless the law is identified and its design is not whole or a parameter rests on its bound.

    Points that are missing and a parameter at its bound together leave nothing to trust.
    """
    if status.name != IDENTIFIED:
        return status
    missing = next((one.sentence for one in runs.statuses if one.name == missing_cells.NAME), "")
    bounded = [name for name in problem.law(best.values_p).at_bounds(problem.bounds) if name in problem.free]
    at_bound = f"{' and '.join(bounded)} {'rest' if len(bounded) > 1 else 'rests'} on the end of the range"
    if missing and bounded:
        sentence = f"{at_bound}, and {missing}: parameters and allocations are arbitrary; finish the missing runs"
        return Status("cannot be identified", sentence, "warning")
    if missing:
        return Status(PARTIAL, f"{missing}; the runs that are there give {status.sentence}", "warning")
    if bounded:
        return Status(PARTIAL, f"{at_bound}; of the other parameters {status.sentence}", "warning")
    return status


def _one_line(problem: Problem) -> str:
    """The line in (ln N, ln D) that all runs lie on, along which the terms of N and D look alike; "" without one."""
    if not problem.form.splits_compute() or not (problem.column("tokens") > 0).all():
        return ""
    line = line_through(problem.column("params"), problem.column("tokens"), same=SAME)
    return "" if line is None else f", and {line}{line.theorem}"


def one_budget(problem: Problem) -> list[Status]:
    """Runs of one compute budget show one valley; how it moves with compute is then assumed by the form."""
    if not problem.form.splits_compute() or not (problem.column("tokens") > 0).all():
        return []
    product = np.log(problem.column("params")) + np.log(problem.column("tokens"))
    if np.ptp(product) >= 2 * SAME:
        return []
    sentence = f"all {problem.runs} runs have one N D, {math.exp(float(product.mean())):.3g}"
    return [Status("one budget", f"{sentence}: they do not show how the optimum moves with compute", "warning")]


def at_bounds(problem: Problem, best: GlobalMinimum, samples: Law | None) -> list[Status]:
    """Parameters that the data push to the end of their range: limited, not estimated."""
    at_bound = problem.law(best.values_p).at_bounds(problem.bounds)
    statuses = (
        _at_bound(parameter, float(value), parameter.name in at_bound, samples)
        for parameter, value in zip(problem.parameters, best.values_p)
        if parameter.name in problem.free
    )
    return [status for status in statuses if status is not None]


def _at_bound(parameter: Parameter, value: float, at_bound: bool, samples: Law | None) -> Status | None:
    """What is in doubt about one parameter: it is beyond its range, at its end, or there in many resamples."""
    ends = (parameter.low, parameter.high)
    slack = 1e-6 * np.abs(ends)
    if not parameter.low - slack[0] <= value <= parameter.high + slack[1]:
        sentence = f"{parameter.name} = {value:.4g} is outside {parameter.low:g} to {parameter.high:g}"
        sentence += ": the data do not follow this form (does the loss fall with size and tokens?)"
        return Status("outside its range", sentence, "warning")
    if at_bound:
        sentence = f"{parameter.name} = {value:.4g} rests on the end of its range: the data do not determine it"
        return Status("at a bound", sentence, "warning")
    if samples is None:
        return None
    drawn = np.asarray(getattr(samples, parameter.name))
    share = max(float(np.mean(np.isclose(drawn, end, rtol=1e-6, atol=0))) for end in ends)
    if share <= 0.025:
        return None
    sentence = f"{parameter.name} runs to the end of its range in {share:.0%} of resamples: its interval is open"
    return Status("open interval", sentence, "warning")


def outliers(problem: Problem, best: GlobalMinimum, runs: UsableRuns) -> list[Status]:
    """Runs that the law misses by far more than the others: a typing error, a diverged run, another recipe."""
    residual = problem.residuals(best.values_p)
    usual = 1.4826 * float(np.median(np.abs(residual)))  # a normal standard deviation, by the median
    far = np.flatnonzero(np.abs(residual) > max(OUTLYING * usual, 1e-6))
    if not len(far):
        return []
    far = far[np.argsort(-np.abs(residual[far]), kind="stable")]
    of = "ln L" if problem.residual == "log" else "L"
    worst = ", ".join(f"{runs.names[i]} by {-residual[i]:+.3g}" for i in far[:3])
    limit = f"{OUTLYING:g} times the usual {usual:.2g} in {of} (measured minus predicted)"
    sentence = f"the law misses {counted(len(far), 'run')} by more than {limit}: {worst}"
    harmless = problem.loss != "squared" and np.abs(residual[far[0]]) < FAR_OUT * usual
    return [Status("outliers", sentence, "note" if harmless else "warning")]


def inside(
    problem: Problem, best: GlobalMinimum, compute: ComputeModel, largest_flops: float, given: Mapping[str, float]
) -> list[Status]:
    """Is the optimum of the largest fitted budget inside the sizes and token counts that were run?"""
    if not math.isfinite(largest_flops):
        return []
    try:
        with np.errstate(all="ignore"):
            optimum = problem.law(best.values_p).optimum(largest_flops, compute, **given)
    except ValueError as error:
        return [Status("optimum outside the data", str(error), "warning")]
    for name, value, column in (
        ("N*", optimum.params, problem.column("params")),
        ("D*", optimum.tokens, problem.column("tokens")),
    ):
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


def of_training(runs: UsableRuns) -> list[Status]:
    """What in the training of the runs would bend a law, as far as the table states it."""
    table, statuses = runs.table, []
    has = set(map(str, table.columns))

    def warn(name: str, bad: np.ndarray, sentence: str) -> None:
        if bad.any():
            first = ", ".join(map(str, table["run"][bad][:3]))
            statuses.append(
                Status(name, f"{int(bad.sum())} of {len(table)} runs {sentence} (first: {first})", "warning")
            )

    repeats = None
    if "epochs" in has:
        repeats = runs.column("epochs")
    elif "unique_tokens" in has and "tokens" in has:
        repeats = runs.column("tokens") / runs.column("unique_tokens")
    if repeats is not None and "unique_tokens" not in runs.fitted:  # of a law that takes it, repeats are what it is for
        warn(
            "repeated data",
            repeats > MAX_EPOCHS,
            f"saw their data more than {MAX_EPOCHS} times: not plain Chinchilla runs; fit the law 'data-constrained'",
        )
    if "loss_nats" in has:
        warn(
            "very large losses",
            runs.column("loss_nats") > MAX_NATS,
            f"have a loss above {MAX_NATS} nats, ln of a vocabulary of {math.exp(MAX_NATS):.0e}: is it a perplexity?",
        )
    if "warmup_fraction" in has:
        warn(
            "long warmup",
            runs.column("warmup_fraction") > MAX_WARMUP,
            f"spent more than {MAX_WARMUP:.0%} of their tokens in warmup",
        )
    warn(
        "unfinished schedules",
        inside_schedule(table),
        "are points inside a decaying schedule, where the loss is higher than at a schedule that ended there",
    )
    return statuses
