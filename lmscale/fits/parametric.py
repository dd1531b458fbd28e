"""Approach 3: a parametric loss law through all runs (Hoffmann 2022, section 3.3; refit by Besiroglu 2024)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmscale.errors import UserError
from lmscale.fits import bootstrap as draw
from lmscale.fits import checks
from lmscale.fits.losslaw import LossLaw
from lmscale.fits.problem import Problem
from lmscale.fits.result import Status, counted
from lmscale.fits.runs import Runs, compute_model, usable
from lmscale.laws import ComputeModel, Law, form

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
    strata: str | None = None,
    clusters: str | None = None,
    fixed: Mapping[str, float] | None = None,
    rates: str = "inside",
    at: Sequence[float] | None = None,
    check: bool = True,
) -> LossLaw:
    """Fit a law to the rows of a canonical table (see `lmscale.tables`); rows marked `held_out` are left out.

    `loss` is "huber" (Hoffmann 2022, eq. 3; summed, not averaged), "lad" or "squared"; `residual` is "log" or "raw",
    None takes the form's own. `bootstrap` draws whole "runs", or gives every run exponential "weights"; "auto" takes
    weights for fewer than 100 runs under a loss that is nearer to absolute deviations than to squares (`bootstrap.py`
    says why). `strata` and `clusters` name columns whose groups keep their size, or are drawn whole (a column `trunk`
    with shared values is a cluster unless told otherwise). `fixed` holds parameters. `rates` says what enters of a cell
    run at several learning rates (see `runs.usable`). `at` are the budgets whose allocation is stated. `check` False
    leaves out the checks that fit again.

    Raises `UserError` for unknown columns, no usable run, or fewer runs than parameters.
    """
    shape = form(law) if isinstance(law, str) else law
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
    best = problem.best()
    compute, compute_status = compute_model(runs.table)
    status = [*runs.statuses, compute_status]
    notes = list(runs.notes)
    if clusters is None and "trunk" in runs.table and runs.table["trunk"].dropna().duplicated().any():
        if runs.table["trunk"].nunique(dropna=False) > 1:
            clusters = "trunk"
            notes.append("branches of one trunk share their noise: the bootstrap draws whole trunks")
        else:
            shared = "all runs are branches of one trunk and share its noise, which no bootstrap shows"
            status.append(Status("one trunk", f"{shared}: intervals are too narrow", "warning"))
    samples, converged = None, 0
    if resamples:
        weights, bootstrap, said = draw.resample(
            problem, best.values_p, runs, resamples, method=bootstrap, seed=seed, strata=strata, clusters=clusters
        )
        status += said
        values_pb, good = problem.many(weights, best.values_p)
        samples, converged = problem.law(values_pb), int(good.sum())
    fitted = shape(*[float(v) for v in best.values_p])
    largest = largest_flops(runs)
    wanted, without = _with_optimum(fitted, compute, tuple(at) if at is not None else decades(runs))
    status += without
    status += checks.of_loss_law(
        problem,
        best,
        runs,
        compute,
        samples=samples,
        converged=converged,
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
        samples=samples,
        loss_function=loss,
        delta=delta,
        residual=problem.residual,
        objective=best.objective,
        residuals=residuals,
        compute=compute,
        largest_flops=largest,
        status=tuple(status),
        dropped=runs.dropped,
        notes=tuple(notes),
        table_hash=runs.digest(),
        seed=seed,
        at=wanted,
        fixed=tuple(fixed or ()),
        rates=rates,
        bootstrap=bootstrap if resamples else "",
    )


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


def largest_flops(runs: Runs) -> float:
    """The FLOPs of the largest run; NaN where the table states none."""
    flops = runs.column("flops") if "flops" in runs.table else np.array([])
    flops = flops[np.isfinite(flops) & (flops > 0)]
    return float(flops.max()) if len(flops) else math.nan


def decades(runs: Runs) -> tuple[float, ...]:
    """Powers of ten from the smallest run's FLOPs to about ten times the largest's."""
    if math.isnan(largest_flops(runs)):
        return ()
    flops = runs.column("flops")
    log_flops = np.log10(flops[np.isfinite(flops) & (flops > 0)])
    return tuple(10.0**power for power in range(math.floor(log_flops.min()), math.ceil(log_flops.max()) + 2))
