"""Approach 3: a parametric loss law through all runs (Hoffmann 2022, section 3.3; refit by Besiroglu 2024)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError
from lmscale.core.quantities import counted
from lmscale.study.fits.checks import parametric
from lmscale.study.fits.checks.lack_of_fit import lack_of_fit
from lmscale.study.fits.options import FitOptions, chosen
from lmscale.study.fits.results.common import Status, enough, too_few
from lmscale.study.fits.results.loss_law import LossLaw
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.runs import UsableRuns, compute_model, usable
from lmscale.study.fits.solvers.minimise import minimise, minimise_many
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem
from lmscale.study.fits.uncertainty import bootstrap, seed_noise
from lmscale.study.fits.uncertainty.noise_split import noise_split
from lmscale.study.laws import ComputeModel, Law, form
from lmscale.study.tables import TableSource

ALL_BUT_FEW = 0.99
"""Share of converged resamples below which their number is a warning."""
SHARED = ("shared noise", "one trunk", "checkpoints of one run")
"""Statuses of runs that share their noise."""


@checked
def loss_law(
    table: TableSource,
    law: str | type[Law] | None = None,
    options: FitOptions | None = None,
    **changes: Any,
) -> LossLaw:
    """Fit a law to the rows of a table, or of what `read_table` reads; rows marked `held_out` are left out.

    `law` is a name, a class or an import path (mine.py:MyLaw); None takes that of `options`, Chinchilla's. `changes`
    are fields of `FitOptions`: loss, delta, residual, resamples, seed, bootstrap, noise_nats, shared_noise, strata,
    clusters, fixed, rates, at, check, columns, where.

    `loss` is "huber" (Hoffmann 2022, eq. 3; summed, not averaged), "lad" or "squared"; `residual` is "log" or "raw",
    None takes the form's own. `bootstrap` draws whole "runs", or gives every run exponential "weights"; "auto" takes
    weights for fewer than 100 runs under a loss that is nearer to absolute deviations than to squares (`bootstrap.py`
    says why). `strata` and `clusters` name columns whose groups keep their size, or are drawn whole (a column `trunk`
    with shared values is a cluster unless another is named). "noise" keeps every run and draws its loss about the law
    (`seed_noise.py`): with a standard deviation of `noise_nats` (in the target's unit), None for that of the table's
    seeds, and with `shared_noise` as the share of its variance that the runs of a cluster have in common. Given,
    `noise_nats` also is what residuals are held against in the test of the form (`checks/lack_of_fit.py`).

    Raises `UserError` for unknown columns, no usable run, fewer runs than parameters, or a noise that is not known.
    """
    changes = changes if law is None else {**changes, "law": law}
    rows, options = chosen("loss_law", options, changes).read(table)
    shape = form(options.law)
    logs = (options.residual or shape.RESIDUAL) == "log"
    runs = usable(rows, shape.INPUTS, shape.TARGET, options.rates, law=shape, positive_target=logs)
    problem = _problem(shape, runs, options)
    best = minimise(problem)
    compute, compute_status = compute_model(runs.table)
    clusters, notes, doubts = _trunks(runs, options)
    drawn = _draw(problem, best, runs, options, clusters)
    status = [*runs.statuses, compute_status, *doubts, *drawn.statuses]
    fitted = shape(*[float(v) for v in best.values_p])
    largest = largest_flops(runs)
    at, without = _with_optimum(fitted, compute, decades(runs) if options.budgets is None else options.budgets, options)
    status += without
    status += parametric.of_loss_law(
        problem,
        best,
        runs,
        compute,
        samples=drawn.samples,
        at=at,
        largest_flops=largest,
        refit=options.check,
        given=options.given or {},
    )
    shares_noise = bool(clusters) or any(one.name in SHARED for one in doubts)
    given = RunNoise(options.noise_nats, "given", None) if options.noise_nats else None
    fit_test, verdict = lack_of_fit(problem, best, runs, options.noise_nats or None, shares_noise)
    split = noise_split(runs, shape.INPUTS, shape.TARGET)
    status += [verdict, split.status("nats" if shape.TARGET == "loss_nats" else "")]
    grouped = drawn.bootstrap != ""
    return LossLaw(
        law=fitted,
        samples=drawn.samples,
        loss_function=options.loss,
        delta=options.delta,
        residual=problem.residual,
        objective=best.objective,
        residuals=_residuals(problem, best, runs),
        compute=compute,
        largest_flops=largest,
        status=tuple(status),
        dropped=runs.dropped,
        notes=(*runs.notes, *notes),
        table_hash=runs.digest(),
        size_column=runs.size_column,
        seed=options.seed,
        at=at,
        fixed=tuple(options.fixed or ()),
        tied=dict(options.tied or {}),
        bounds=dict(options.bounds or {}),
        given=dict(options.given or {}),
        rates=options.rates,
        bootstrap=drawn.bootstrap,
        noise=drawn.noise or given,
        shared_noise=options.shared_noise,
        clusters=(clusters or "") if grouped and (options.bootstrap != "noise" or options.shared_noise) else "",
        strata=(options.strata or "") if grouped else "",
        lack_of_fit=fit_test,
        noise_split=split,
    )


def _problem(shape: type[Law], runs: UsableRuns, options: FitOptions) -> Problem:
    """Raises `UserError` where the runs cannot fix the law."""
    problem = Problem(
        shape,
        tuple(runs.column(name) for name in shape.INPUTS),
        runs.column(shape.TARGET),
        options.loss,
        options.delta,
        options.residual or shape.RESIDUAL,
        options.fixed,
        options.bounds,
        options.tied,
    )
    distinct = int(problem.points.max()) + 1
    if distinct < len(problem.free):
        count = f"{counted(len(runs), 'run')} at {counted(distinct, 'distinct point')}"
        raise UserError(
            f"{count} cannot fix the {len(problem.free)} parameters of the law {shape.NAME!r}: "
            f"add runs, or fix or tie parameters with `fixed` or `tied`"
        )
    if np.ptp(problem.target_n) == 0:
        raise UserError(
            f"all {len(runs)} runs have the same {shape.TARGET}, {problem.target_n[0]:g}: there is nothing to fit; "
            f"check `columns`"
        )
    return problem


def _residuals(problem: Problem, best: GlobalMinimum, runs: UsableRuns) -> dict[str, Any]:
    """The columns of `LossLaw.residuals`."""
    return {
        "run": runs.names,
        **dict(zip(problem.form.INPUTS, problem.inputs)),
        "measured": problem.target_n,
        "predicted": problem.predicted(best.values_p),
        "residual": problem.residuals(best.values_p),
    }


@dataclass(frozen=True)
class _Resamples:
    """The law of the resamples, None where too few converged, the bootstrap they come from, its noise and statuses."""

    samples: Law | None
    bootstrap: str
    noise: RunNoise | None
    statuses: tuple[Status, ...]


def _draw(
    problem: Problem, best: GlobalMinimum, runs: UsableRuns, options: FitOptions, clusters: str | None
) -> _Resamples:
    """The resamples that the options ask for. Raises `UserError` for a bootstrap that the table does not allow."""
    resamples = options.count("3")
    if options.bootstrap == "noise":
        seed_noise.check(options.noise_nats, options.shared_noise, options.strata, clusters is not None)
    if not resamples:
        return _Resamples(None, "", None, ())
    if options.bootstrap == "noise":
        return _by_noise(problem, best, runs, resamples, options, bootstrap.labels(runs, clusters))
    drawn = bootstrap.resample(
        problem,
        best.values_p,
        runs,
        resamples,
        method=options.bootstrap,
        seed=options.seed,
        strata=options.strata,
        clusters=clusters,
    )
    parts, rich = [], []
    for weights in drawn.weights():
        rich.append(good := drawn.rich_enough(weights))
        if good.any():
            parts.append(minimise_many(problem, weights if good.all() else weights[:, good], best.values_p))
    statuses = [*drawn.statuses, *bootstrap.thin(np.concatenate(rich), len(problem.free))]
    values_pb, converged = (np.concatenate(ends, axis=-1) for ends in zip(*parts))
    return _judged(problem.law(values_pb), int(converged.sum()), resamples, drawn.method, None, statuses)


def _by_noise(
    problem: Problem,
    best: GlobalMinimum,
    runs: UsableRuns,
    resamples: int,
    options: FitOptions,
    clusters_n: np.ndarray | None,
) -> _Resamples:
    """Resamples of the losses, with the given noise or that of the table's seeds."""
    if options.noise_nats is None:
        noise = seed_noise.estimate(runs, problem.form.INPUTS, problem.form.TARGET)
    else:
        noise = RunNoise(options.noise_nats, "given", None)
    targets, statuses = seed_noise.draw(
        problem,
        best.values_p,
        noise,
        resamples,
        seed=options.seed,
        shared=options.shared_noise,
        clusters_n=clusters_n,
    )
    values_pb, good = minimise_many(problem.using(target_n=targets), np.ones_like(targets), best.values_p)
    return _judged(problem.law(values_pb), int(good.sum()), resamples, "noise", noise, statuses)


def _judged(
    samples: Law, converged: int, resamples: int, method: str, noise: RunNoise | None, statuses: Sequence[Status]
) -> _Resamples:
    """The resamples with the share that converged, without them where that is too small for an interval."""
    if not enough(converged, resamples):
        return _Resamples(None, method, noise, (*statuses, too_few(converged, resamples, "converged")))
    sentence = f"{converged} of {resamples} resamples converged"
    severity: Literal["ok", "warning"] = "ok" if converged >= ALL_BUT_FEW * resamples else "warning"
    return _Resamples(samples, method, noise, (*statuses, Status("bootstrap", sentence, severity)))


def _trunks(runs: UsableRuns, options: FitOptions) -> tuple[str | None, list[str], list[Status]]:
    """The column of clusters, trunks unless another is named, with what a reader should know of trunks."""
    trunks = runs.table.get("trunk")
    if options.clusters is not None or trunks is None or not trunks.dropna().duplicated().any():
        return options.clusters, [], [] if options.clusters else _checkpoints(runs)
    if options.bootstrap == "noise" and options.shared_noise:
        return "trunk", [], []
    if options.bootstrap == "noise":
        sentence = (
            "branches of one trunk share noise, and the bootstrap takes theirs as independent: say which share of its "
            "variance they have in common with `shared_noise`"
        )
        return "trunk", [], [Status("shared noise", sentence, "warning")]
    if trunks.nunique(dropna=False) > 1:
        return "trunk", ["branches of one trunk share their noise: the bootstrap draws whole trunks"], []
    sentence = "all runs are branches of one trunk and share its noise, which no bootstrap shows: intervals are too "
    return None, [], [Status("one trunk", f"{sentence}narrow", "warning")]


def _checkpoints(runs: UsableRuns) -> list[Status]:
    """A warning where rows are checkpoints of one run, which share its noise: several inputs under one name."""
    names = np.array(runs.names)
    rows = runs.table.assign(run=names).drop_duplicates(["run", *runs.fitted[:-1]])
    several = int(rows["run"].duplicated(keep=False).sum())
    if not several:
        return []
    count = int(rows["run"][rows["run"].duplicated(keep=False)].nunique())
    sentence = (
        f"{several} rows are of {counted(count, 'run')} at several points and share its noise, which the bootstrap "
        f"takes for independent: draw whole runs with `clusters='run'`, or keep final losses with `where`"
    )
    return [Status("checkpoints of one run", sentence, "warning")]


def _with_optimum(
    law: Law, compute: ComputeModel, at: Sequence[float], options: FitOptions
) -> tuple[tuple[float, ...], list[Status]]:
    """The budgets at which the law has an optimum, and a status for the others; none for a law without model sizes.

    Raises `UserError` where `given` names an input that the law has not.
    """
    given = options.given or {}
    for name, value in given.items():
        if name in law.INPUTS:
            law.input(name).check(value, "`given`")
    if not law.splits_compute():
        if given:
            law.check_given(given)
        return (), []
    if lacking := [name for name in law.further_inputs() if name not in given]:
        values = ",".join(f"{name}=..." for name in lacking)
        sentence = f"the optimal size depends on {' and '.join(lacking)}: `given='{values}'` states it at a value"
        return (), [Status("allocation", sentence, "note")]
    law.check_given(given)
    good, sentence = [], ""
    for flops in at:
        try:
            with np.errstate(all="ignore"):
                optimum = law.optimum(flops, compute, **given)
        except UserError as error:
            sentence = str(error)
            continue
        if np.isfinite(optimum.params):
            good.append(flops)
        else:
            sentence = f"the fitted law has no finite optimum at {flops:.3g} FLOPs"
    return tuple(good), [Status("no optimum", sentence, "warning")] if sentence else []


def largest_flops(runs: UsableRuns) -> float:
    """The FLOPs of the largest run; NaN where the table states none."""
    flops = runs.column("flops") if "flops" in runs.table else np.array([])
    flops = flops[np.isfinite(flops) & (flops > 0)]
    return float(flops.max()) if len(flops) else math.nan


def decades(runs: UsableRuns) -> tuple[float, ...]:
    """Powers of ten from the smallest run's FLOPs to about ten times the largest's."""
    if math.isnan(largest_flops(runs)):
        return ()
    flops = runs.column("flops")
    log_flops = np.log10(flops[np.isfinite(flops) & (flops > 0)])
    return tuple(10.0**power for power in range(math.floor(log_flops.min()), math.ceil(log_flops.max()) + 2))
