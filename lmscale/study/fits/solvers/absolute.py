"""The exact minimum of absolute deviations of any law, by a linear program for each step.

The objective has a corner wherever a residual vanishes, and its minimum lies in as many corners as there are unknowns:
Newton's method on a smoothed objective creeps there. With residuals that are linear in the step, the best step is a
linear program; a trust region holds it where they nearly are.

Axes: n runs, q free unknowns. Unknowns are logarithms where the form says so.
"""

from typing import NamedTuple

import numpy as np

from lmscale.study.fits.solvers.derivatives import derivatives, residuals, search_scale, to_theta, to_values
from lmscale.study.fits.solvers.problem import Problem

MAX_STEPS = 100
MOST_RUNS = 1000
GAIN = 1e-11
"""Share of the objective below which the next step's gain ends the search."""
SMALLEST_STEP = 1e-13
TOLERANCE = 1e-10


def serves(problem: Problem) -> bool:
    """Whether these are absolute deviations of few enough runs: programs of more are slow."""
    return problem.loss == "lad" and problem.runs <= MOST_RUNS


class Descent(NamedTuple):
    """Where a search ended."""

    theta_q: np.ndarray
    value: float
    """sum_i w_i |r_i|."""
    gain: float
    """What one more step promises."""

    @property
    def converged(self) -> bool:
        """Whether no step gains anything more."""
        return self.gain <= GAIN * self.value


def descend(problem: Problem, theta_q: np.ndarray, weights_n: np.ndarray) -> Descent:
    """The minimum near `theta_q`."""
    _, low, high = search_scale(problem)
    theta, reach, promised = np.clip(theta_q, low, high), 1.0, np.inf
    with np.errstate(all="ignore"):
        residual = residuals(problem, theta[:, None])[:, 0]
        value = float(weights_n @ np.abs(residual))
        for _ in range(MAX_STEPS):
            slopes = derivatives(problem, theta[:, None])[:, :, 0]
            if not (np.isfinite(value) and np.isfinite(slopes).all()):
                break
            least, most = np.maximum(low - theta, -reach), np.minimum(high - theta, reach)
            promised = np.inf
            if (step := _best_step(residual, slopes, weights_n, least, most)) is None:
                break
            promised = value - float(weights_n @ np.abs(residual + step @ slopes))
            if promised <= GAIN * value:
                break
            trial = np.clip(theta + step, low, high)
            tried_residual = residuals(problem, trial[:, None])[:, 0]
            tried = float(weights_n @ np.abs(tried_residual))
            gained = (value - tried) / promised
            if gained > 0:
                theta, residual, value = trial, tried_residual, tried
            longest = float(np.abs(step).max())
            if not gained > 0.25:  # also where no loss exists there
                reach = longest / 4
            elif gained > 0.75:
                reach = max(reach, 2 * longest)
            if reach < SMALLEST_STEP:
                break
    return Descent(theta, value, promised)


def exact(problem: Problem, values_p: np.ndarray, weights_n: np.ndarray) -> tuple[np.ndarray, float]:
    """The parameters (p,) of the minimum near `values_p`, and what one more step would gain."""
    end = descend(problem, to_theta(problem, values_p[:, None])[:, 0], weights_n)
    return np.concatenate(to_values(problem, end.theta_q[:, None])), end.gain


def _best_step(
    residual_n: np.ndarray, slopes_qn: np.ndarray, weights_n: np.ndarray, least_q: np.ndarray, most_q: np.ndarray
) -> np.ndarray | None:
    """The step (q,) that minimises sum_i w_i |r_i + slopes step|, each part between `least_q` and `most_q`; None where
    the program has no solution in floating point.

    Its tolerances are absolute: residuals are counted in their mean, unknowns in steps that change them by as much.
    """
    unit = float(weights_n @ np.abs(residual_n) / weights_n.sum()) or 1.0
    slopes_qn = slopes_qn / unit
    scale_q = np.abs(slopes_qn).mean(axis=1)
    scale_q = np.where(scale_q > 0, scale_q, 1.0)
    runs = len(residual_n)
    from scipy import sparse  # a fit by another loss need not load them
    from scipy.optimize import linprog

    eye = sparse.identity(runs, format="csc")
    answer = linprog(
        np.concatenate([np.zeros(len(slopes_qn)), weights_n, weights_n]),
        A_eq=sparse.hstack([sparse.csc_matrix((slopes_qn / scale_q[:, None]).T), -eye, eye], format="csc"),
        b_eq=-residual_n / unit,
        bounds=[*zip(least_q * scale_q, most_q * scale_q), *[(0, None)] * (2 * runs)],
        method="highs",
        options={"primal_feasibility_tolerance": TOLERANCE, "dual_feasibility_tolerance": TOLERANCE},
    )
    return None if answer.x is None else np.asarray(answer.x[: len(slopes_qn)]) / scale_q
