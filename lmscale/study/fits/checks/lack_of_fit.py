"""Does the form fit? Residuals of a right form are noise: neither smooth in the inputs nor larger than seeds make them.

The law is linear in its parameters about the fit, so what they can still explain is projected out of the residuals r
and out of all monomials of second and third degree in the (logarithms of the) inputs. With q directions left, SS_s the
square of r along them and SS_all the whole, under a right form and normal noise (Fisher 1922; Draper and Smith 1998,
Applied Regression Analysis, section 2.1: pure error)

    noise from seeds, s^2 with v degrees of freedom:  SS_s / (q s^2) ~ F(q, v),   the rest of SS_all likewise
    noise given, s:                                   SS_s / s^2 ~ chi^2(q),      SS_all / s^2 ~ chi^2(n - p)
    neither:              (SS_s / q) / ((SS_all - SS_s) / (n - p - q)) ~ F(q, n - p - q).

The first two have two chances to accuse a form, and their smaller probability is doubled. Residuals count at most
`CLIPPED` robust standard deviations, so that one wrong run is no misfit of the form: `parametric.outliers` names it.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from lmscale.study.fits.results.common import Status
from lmscale.study.fits.results.lack_of_fit import NOT_TESTED, LackOfFit
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.fits.solvers.derivatives import jacobian
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem
from lmscale.study.fits.uncertainty.discrepancy import CLIPPED, robust_sd
from lmscale.study.fits.uncertainty.seed_noise import LEAST_FREEDOM, points_of_seeds
from lmscale.study.laws.discrepancy import coordinates

LEAST_LEFT = 4
"""Degrees of freedom that the smooth directions must leave for the noise, where nothing else tells it."""
SMALL = 1e-7
"""Share of a monomial outside of the law's own directions below which it is rounding."""
ROUNDING = 1e-6
"""Residuals of all runs below this, of ln L or over the largest target, come from how losses are written."""


def lack_of_fit(
    problem: Problem, best: GlobalMinimum, runs: UsableRuns, noise: float | None = None, clustered: bool = False
) -> tuple[LackOfFit | None, Status]:
    """The test of a fit and its status; None where the runs do not allow one.

    `noise` is one run's standard deviation in the unit of the target; `clustered` says that runs share their noise.
    """
    if clustered:
        return None, Status(NOT_TESTED, "runs that share their noise are smooth without any misfit of the form", "note")
    slopes = jacobian(problem, best.values_p)
    residual = -problem.residuals(best.values_p)
    if not (np.isfinite(slopes).all() and np.isfinite(residual).all()):
        return None, Status(NOT_TESTED, "the law has no derivative at the fit", "note")
    largest = 1.0 if problem.residual == "log" else float(np.abs(problem.target_n).max())
    if (np.abs(residual) < ROUNDING * largest).all():
        return None, Status(NOT_TESTED, "the law goes through all runs: there is no noise to hold it against", "note")
    limit = max(CLIPPED * robust_sd(residual, slopes.shape[1]), ROUNDING * largest)
    residual = np.clip(residual, -limit, limit)
    scale = problem.target_n if problem.residual == "log" and noise is not None else np.ones(problem.runs)
    residual, slopes = residual * scale, slopes * scale[:, None]
    own = _basis(slopes)
    free = problem.runs - own.shape[1]
    seeds = None if noise is not None else _pure_error(problem, runs, residual)
    known = noise is not None or seeds is not None
    smooth = _smooth(problem, own, scale, most=free if known else free - LEAST_LEFT)
    if not smooth.shape[1]:
        sentence = f"{problem.runs} runs at {int(problem.points.max()) + 1} points do not tell a misfit from noise"
        return None, Status(NOT_TESTED, f"{sentence} for a law of {len(problem.free)} parameters", "note")
    rest = residual - own @ (own.T @ residual)
    along = float(((smooth.T @ rest) ** 2).sum())
    p, sd, evidence = _probability(float(rest @ rest), along, smooth.shape[1], free, noise, seeds)
    unit, per = (" %", 100.0) if problem.residual == "log" else ("", 1.0)
    per = per / float(scale.mean())
    lack = LackOfFit(p, per * (along / problem.runs) ** 0.5, per * sd, unit, evidence)
    return lack, lack.status()


def _probability(
    whole: float, along: float, q: int, free: int, noise: float | None, seeds: tuple[float, int, int] | None
) -> tuple[float, float, str]:
    """The probability of such residuals, one run's scatter, and what it is known from."""
    from scipy.special import chdtrc, fdtrc  # `scipy.stats` has the same, and takes a second to import

    if noise is not None:
        both = (chdtrc(q, along / noise**2), chdtrc(free, whole / noise**2))
        return min(1.0, 2 * float(min(both))), noise, "given"
    if seeds is not None:
        square, freedom, points = seeds
        variance = square / freedom
        ratios = [(along / q, q)]
        if free > freedom:
            ratios.append(((whole - square) / (free - freedom), free - freedom))
        both = tuple(fdtrc(count, freedom, max(0.0, mean) / variance) for mean, count in ratios)
        evidence = f"the seeds of {points} points, {freedom} degrees of freedom"
        return min(1.0, len(both) * float(min(both))), variance**0.5, evidence
    left = free - q
    variance = max((whole - along) / left, 1e-300)
    return (
        float(fdtrc(q, left, along / q / variance)),
        variance**0.5,
        f"what is not smooth, {left} degrees of freedom",
    )


def _pure_error(problem: Problem, runs: UsableRuns, residual_n: np.ndarray) -> tuple[float, int, int] | None:
    """The square of the residuals about their point's mean, its degrees of freedom, and how many points have seeds."""
    point, own = points_of_seeds(runs, problem.form.INPUTS)
    point, residual_n = point[own], residual_n[own]
    counts = np.bincount(point)
    freedom = int((counts - 1).clip(0).sum())
    means = np.bincount(point, weights=residual_n) / np.maximum(counts, 1)
    square = float(((residual_n - means[point]) ** 2).sum())
    return (square, freedom, int((counts > 1).sum())) if freedom >= LEAST_FREEDOM and square > 0 else None


def _basis(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns (n, k)."""
    columns = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, sizes > SMALL * sizes[0]])


def _smooth(problem: Problem, own: np.ndarray, scale_n: np.ndarray, most: int) -> np.ndarray:
    """Directions that are smooth in the inputs and that no parameter of the law explains, an orthonormal basis (n, q).

    Of third degree where these are at most half of `most`, else of second; none where those are more than half too.
    """
    z = coordinates(problem.form, problem.inputs, problem.inputs)
    varied = z[:, np.ptp(z, axis=0) > 0]
    if not varied.shape[1]:
        return np.zeros((problem.runs, 0))
    varied = 2 * (varied - varied.min(axis=0)) / np.ptp(varied, axis=0) - 1
    for degree in (3, 2):
        monomials = np.stack(_monomials(varied, degree), axis=1) * scale_n[:, None]
        monomials /= np.linalg.norm(monomials, axis=0)
        left, sizes, _ = np.linalg.svd(monomials - own @ (own.T @ monomials), full_matrices=False)
        directions = left[:, sizes > SMALL]
        if 2 * directions.shape[1] <= most:
            return np.asarray(directions)
    return np.zeros((problem.runs, 0))


def _monomials(z_nd: np.ndarray, degree: int) -> Sequence[np.ndarray]:
    """All products of two to `degree` columns."""
    every = [
        np.prod(z_nd[:, list(chosen)], axis=1)
        for size in range(2, degree + 1)
        for chosen in itertools.combinations_with_replacement(range(z_nd.shape[1]), size)
    ]
    return [column for column in every if np.linalg.norm(column) > 0]
