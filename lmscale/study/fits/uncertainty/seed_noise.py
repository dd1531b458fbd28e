"""The bootstrap over the noise of the losses: the design stays, and every run is trained again with another seed.

A resample keeps every run at its N and D. Its losses are those of the fitted law plus normal noise,
`y*_i = L(x_i) + s (sqrt(rho) u_c(i) + sqrt(1 - rho) z_i)`, with u and z standard normal, u shared by the runs of a
cluster c (the branches of a trunk), and rho the share of the noise's variance that those have in common. This is the
parametric bootstrap (Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 6.5) with a normal error of
known size. The law's losses are its centre, not the measured ones: those hold one draw of the noise already, and by
absolute deviations a second draw on top of it makes intervals about 15 % too wide (by squares the two are alike).

s is given, or pooled from the seeds of a table, `s^2 = sum_g sum_i (y_gi - mean_g)^2 / sum_g (n_g - 1)` over groups g
of runs that differ in nothing but the seed. A pooled s is itself uncertain: each resample draws its own, as Student's t
does.

What the law misses of the runs is no noise, so these intervals leave it out; a status states how large it is. A
bootstrap over runs includes it.
"""

import math
from collections.abc import Sequence

import numpy as np

from lmscale.core.errors import UserError
from lmscale.core.quantities import counted
from lmscale.study.fits.results.common import Status
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.grouping import RATES, point_index

LEAST_FREEDOM = 3  # degrees of freedom from which on the seeds of a table determine the noise, as in Approach 2
MISFIT = 2.0  # runs that scatter about the law by more than this many noises follow another one
ALIKE = ("params", "tokens", "unique_tokens", "flops_budget", "batch_tokens", "schedule", "source", *RATES)
"""What runs that are seeds of each other have in common, besides the law's inputs."""


def points_of_seeds(runs: UsableRuns, inputs: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The point of every run (n,), by the inputs and `ALIKE`, and whether it is the first of its point and seed (n,).

    Of rows that state a seed, those of one point with the same seed are one run; others are all of their own.
    """
    table = runs.table
    by = [name for name in dict.fromkeys((*inputs, *ALIKE)) if name in table]
    point = point_index({name: table[name] for name in by})
    own = np.ones(len(table), dtype=bool)
    if "seed" in table and table["seed"].notna().all():
        own = ~table[["seed"]].assign(point=point).duplicated().to_numpy()
    return point, own


def estimate(runs: UsableRuns, inputs: Sequence[str], target: str) -> RunNoise:
    """The pooled standard deviation of runs of one point, in the unit of `target`.

    Raises `UserError` where fewer than
    `LEAST_FREEDOM` degrees of freedom are left, or all seeds of a point have one loss.
    """
    point, own = points_of_seeds(runs, inputs)
    table = runs.table[own]
    losses = table.groupby(point[own], sort=False)[target]
    freedom = int((losses.count() - 1).sum())
    if freedom < LEAST_FREEDOM:
        raise UserError(
            f"this table does not determine one run's noise: its seeds leave {counted(freedom, 'degree')} of freedom; "
            f"{LEAST_FREEDOM} are needed (two seeds at three points, or four at one): add seeds or give `noise_nats`"
        )
    sd = math.sqrt(float(((table[target] - losses.transform("mean")) ** 2).sum()) / freedom)
    if sd == 0:
        raise UserError(
            "the seeds of every point have the same loss to the last digit, so they are no seeds: give `noise_nats`"
        )
    groups = int((losses.count() > 1).sum())
    return RunNoise(sd, f"the seeds of {groups} points, {freedom} degrees of freedom", freedom)


def check(noise_nats: float | None, shared: float, strata: str | None, has_clusters: bool) -> None:
    """Raises `UserError` for a noise that is not positive, a share without clusters, or strata (of drawn runs)."""
    if noise_nats is not None and not 0 < noise_nats < math.inf:
        raise UserError(f"noise = {noise_nats} nats: it must be positive; leave it out to take it from the seeds")
    if shared and not has_clusters:
        raise UserError(
            f"shared noise = {shared}, and no runs of the table share a trunk: name their column with `clusters`"
        )
    if strata is not None:
        raise UserError(f"strata = {strata!r}: the noise bootstrap draws no runs, so it has no strata; leave it out")


def draw(
    problem: Problem,
    values_p: np.ndarray,
    noise: RunNoise,
    resamples: int,
    *,
    seed: int,
    shared: float = 0.0,
    clusters_n: np.ndarray | None = None,
) -> tuple[np.ndarray, list[Status]]:
    """Targets (n, R) about the law with the parameters `values_p`, and the statuses that a reader should know.

    Resamples in which a loss is not positive are left out. Raises `UserError` where these are more than half.
    """
    rng = np.random.default_rng(seed)
    size = noise.draws(resamples, rng)
    own = rng.standard_normal((problem.runs, resamples))
    if shared and clusters_n is not None:
        _, of = np.unique(clusters_n, return_inverse=True)
        together = rng.standard_normal((int(of.max()) + 1, resamples))[of]
        own = math.sqrt(shared) * together + math.sqrt(1 - shared) * own
    fitted = problem.predicted(values_p)
    targets = fitted[:, None] + size * own
    statuses = [_kind(noise, shared), *_misfit(problem, values_p, fitted, noise)]
    good = (targets > 0).all(axis=0) if problem.residual == "log" else np.ones(targets.shape[1], dtype=bool)
    if good.all():
        return targets, statuses
    lost = f"{int((~good).sum())} of {resamples} resamples have a loss that is not positive"
    if good.sum() < resamples / 2:
        raise UserError(
            f"a noise of {noise.sd:.3g} nats is as large as the losses: {lost}; give a smaller `noise_nats`"
        )
    return targets[:, good], [*statuses, Status("thin resamples", f"{lost} and are left out", "warning")]


def _kind(noise: RunNoise, shared: float) -> Status:
    sentence = f"every run is kept, and its loss drawn about the law with a noise of {noise.sd:.3g} nats"
    sentence += f" ({noise.source}){f', {shared:.0%} of its variance shared inside a cluster' if shared else ''}"
    return Status("kind of bootstrap", sentence)


def _misfit(problem: Problem, values_p: np.ndarray, fitted_n: np.ndarray, noise: RunNoise) -> list[Status]:
    """Do the runs scatter about the law by more than their noise? By the median, which a few wrong runs do not move."""
    residual = np.abs(fitted_n - problem.target_n)
    widen = math.sqrt(problem.runs / max(1, problem.runs - len(problem.free)))
    scatter = 1.4826 * float(np.median(residual)) * widen
    if scatter <= MISFIT * noise.sd:
        return []
    sentence = f"the runs scatter about the law by {scatter:.3g} nats, {scatter / noise.sd:.1f} times one run's noise"
    return [Status("misfit", f"{sentence}: what the law misses is not in the intervals; draw runs instead", "warning")]
