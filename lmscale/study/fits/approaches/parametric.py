"""Approach 3: a parametric loss law through all runs (Hoffmann 2022, section 3.3; refit by Besiroglu 2024)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.checks import parametric
from lmscale.study.fits.results.common import Status, counted
from lmscale.study.fits.results.loss_law import LossLaw
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.runs import UsableRuns, compute_model, usable
from lmscale.study.fits.solvers.minimise import minimise, minimise_many
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem
from lmscale.study.fits.uncertainty import bootstrap as draw
from lmscale.study.fits.uncertainty import seed_noise
from lmscale.study.laws import ComputeModel, Law, form

if TYPE_CHECKING:
    import pandas as pd


def loss_law(
    table: "pd.DataFrame",
    law: str | type[Law] = "chinchilla",
    *,
    loss: str = "huber",
    delta: float = 1e-3,
    residual: str | None = None,
    resamples: int = 4000,
    seed: int = 0,
    bootstrap: str = "auto",
    noise_nats: float | None = None,
    shared_noise: float = 0.0,
    strata: str | None = None,
    clusters: str | None = None,
    fixed: Mapping[str, float] | None = None,
    rates: str = "inside",
    at: Sequence[float] | None = None,
    check: bool = True,
) -> LossLaw:
    """Fit a law to the rows of a canonical table (see `lmscale.study.tables`); rows marked `held_out` are left out.

    `loss` is "huber" (Hoffmann 2022, eq. 3; summed, not averaged), "lad" or "squared"; `residual` is "log" or "raw",
    None takes the form's own. `bootstrap` draws whole "runs", or gives every run exponential "weights"; "auto" takes
    weights for fewer than 100 runs under a loss that is nearer to absolute deviations than to squares (`bootstrap.py`
    says why). `strata` and `clusters` name columns whose groups keep their size, or are drawn whole (a column `trunk`
    with shared values is a cluster unless told otherwise). "noise" keeps every run and draws its loss about the law
    (`seed_noise.py`): with a standard deviation of `noise_nats` (in the target's unit), None for that of the table's
    seeds, and with `shared_noise` as the share of its variance that the runs of a cluster have in common. `fixed` holds
    parameters. `rates` says what enters of a cell run at several learning rates (see `runs.usable`). `at` are the
    budgets whose allocation is stated. `check` False leaves out the checks that fit again.

    Raises `UserError` for unknown columns, no usable run, fewer runs than parameters, or a noise that is not known.
    """
    draw.known(bootstrap)
    if bootstrap != "noise" and (noise_nats is not None or shared_noise):
        raise UserError(f"bootstrap = {bootstrap!r} draws no noise: give noise and shared noise with bootstrap 'noise'")
    shape = form(law)
    runs = usable(table, shape.INPUTS, shape.TARGET, rates)
    problem = Problem(
        shape,
        tuple(runs.column(name) for name in shape.INPUTS),
        runs.column(shape.TARGET),
        loss,
        delta,
        residual or shape.RESIDUAL,
        fixed,
    )
    distinct = len(runs.table.drop_duplicates(list(shape.INPUTS)))
    if distinct < len(problem.free):
        count = f"{counted(len(runs), 'run')} at {counted(distinct, 'distinct point')}"
        raise UserError(
            f"{count} cannot fix the {len(problem.free)} parameters of the law {shape.NAME!r}: "
            f"add runs, or hold parameters with fixed"
        )
    if np.ptp(problem.target_n) == 0:
        raise UserError(
            f"all {len(runs)} runs have the same {shape.TARGET}, {problem.target_n[0]:g}: there is nothing to fit; "
            f"check --columns"
        )
    best = minimise(problem)
    compute, compute_status = compute_model(runs.table)
    clusters, notes, doubts = _trunks(runs, clusters, bootstrap, shared_noise)
    drawn = _Drawn(None, 0, "", None, ())
    if bootstrap == "noise":
        seed_noise.check(noise_nats, shared_noise, strata, clusters is not None)
        noise = RunNoise(noise_nats, "given", None) if noise_nats is not None else None
        if resamples:
            drawn = _by_noise(problem, best, runs, resamples, noise, seed, shared_noise, draw.labels(runs, clusters))
    elif resamples:
        drawn = _by_runs(problem, best, runs, resamples, bootstrap, seed, strata, clusters)
    status = [*runs.statuses, compute_status, *doubts, *drawn.said]
    fitted = shape(*[float(v) for v in best.values_p])
    largest = largest_flops(runs)
    wanted, without = _with_optimum(fitted, compute, tuple(at) if at is not None else decades(runs))
    status += without
    status += parametric.of_loss_law(
        problem,
        best,
        runs,
        compute,
        samples=drawn.samples,
        converged=drawn.converged,
        at=wanted,
        largest_flops=largest,
        refit=check,
    )
    measured = problem.target_n
    predicted = np.asarray(fitted.loss(*problem.inputs))
    residuals = {
        "run": runs.names,
        **dict(zip(shape.INPUTS, problem.inputs)),
        "measured": measured,
        "predicted": predicted,
        "residual": problem.residuals(best.values_p),
    }
    return LossLaw(
        law=fitted,
        samples=drawn.samples,
        loss_function=loss,
        delta=delta,
        residual=problem.residual,
        objective=best.objective,
        residuals=residuals,
        compute=compute,
        largest_flops=largest,
        status=tuple(status),
        dropped=runs.dropped,
        notes=(*runs.notes, *notes),
        table_hash=runs.digest(),
        seed=seed,
        at=wanted,
        fixed=tuple(fixed or ()),
        rates=rates,
        bootstrap=drawn.bootstrap,
        noise=drawn.noise,
        shared_noise=shared_noise,
        clusters=(clusters or "") if resamples and (bootstrap != "noise" or shared_noise) else "",
        strata=(strata or "") if resamples else "",
    )


@dataclass(frozen=True)
class _Drawn:
    """The law of the resamples, how many of them converged, the bootstrap they come from, its noise and its doubts."""

    samples: Law | None
    converged: int
    bootstrap: str
    noise: RunNoise | None
    said: tuple[Status, ...]


def _by_runs(
    problem: Problem,
    best: GlobalMinimum,
    runs: UsableRuns,
    resamples: int,
    method: str,
    seed: int,
    strata: str | None,
    clusters: str | None,
) -> _Drawn:
    weights, method, said = draw.resample(
        problem, best.values_p, runs, resamples, method=method, seed=seed, strata=strata, clusters=clusters
    )
    values_pb, good = minimise_many(problem, weights, best.values_p)
    return _Drawn(problem.law(values_pb), int(good.sum()), method, None, tuple(said))


def _by_noise(
    problem: Problem,
    best: GlobalMinimum,
    runs: UsableRuns,
    resamples: int,
    noise: RunNoise | None,
    seed: int,
    shared: float,
    clusters_n: np.ndarray | None,
) -> _Drawn:
    """`noise` None is that of the table's seeds."""
    noise = noise or seed_noise.estimate(runs, problem.form.INPUTS, problem.form.TARGET)
    targets, said = seed_noise.draw(
        problem, best.values_p, noise, resamples, seed=seed, shared=shared, clusters_n=clusters_n
    )
    values_pb, good = minimise_many(problem.using(target_n=targets), np.ones_like(targets), best.values_p)
    return _Drawn(problem.law(values_pb), int(good.sum()), "noise", noise, tuple(said))


def _trunks(
    runs: UsableRuns, clusters: str | None, bootstrap: str, shared_noise: float
) -> tuple[str | None, list[str], list[Status]]:
    """The clusters, trunks unless told otherwise, with what a reader should know of trunks."""
    if clusters is not None or "trunk" not in runs.table or not runs.table["trunk"].dropna().duplicated().any():
        return clusters, [], []
    if bootstrap == "noise" and shared_noise:
        return "trunk", [], []
    if bootstrap == "noise":
        said = (
            "branches of one trunk share noise, and the bootstrap takes theirs as independent: say which share of its "
        )
        return "trunk", [], [Status("shared noise", f"{said}variance they have in common (--shared-noise)", "warning")]
    if runs.table["trunk"].nunique(dropna=False) > 1:
        return "trunk", ["branches of one trunk share their noise: the bootstrap draws whole trunks"], []
    said = "all runs are branches of one trunk and share its noise, which no bootstrap shows: intervals are too narrow"
    return None, [], [Status("one trunk", said, "warning")]


def _with_optimum(law: Law, compute: ComputeModel, at: Sequence[float]) -> tuple[tuple[float, ...], list[Status]]:
    """The budgets at which the law has an optimum, and a status for the others; none for a law without model sizes."""
    if law.INPUTS[:2] != ("params", "tokens"):
        return (), []
    good, said = [], ""
    for flops in at:
        try:
            with np.errstate(all="ignore"):
                found = law.optimum(flops, compute)
        except UserError as error:
            said = str(error)
            continue
        if np.isfinite(found.params):
            good.append(flops)
        else:
            said = f"the fitted law has no optimum at {flops:.3g} FLOPs: it does not trade model size against data"
    return tuple(good), [Status("no optimum", said, "warning")] if said else []


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
