"""The exact minimum of absolute deviations of any law, by a linear program for each step, solved by exchanges.

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
EXCHANGES = 1000
"""Exchanges of one program at most; 400 programs of up to 14 unknowns and 1,000 runs took 54 or fewer."""
ROUNDING = 1e-12
"""Share of a direction's pull, or of its largest rate, below which a gain or a rate is rounding."""
TIES = 1e-12
"""Share of the largest residual by which rows are moved apart at most: rounding is some thousand times less."""


def serves(problem: Problem) -> bool:
    """Whether these are absolute deviations of few enough runs: programs of more are slow."""
    return problem.loss == "lad" and problem.runs <= MOST_RUNS


class Descent(NamedTuple):
    """Where a search ended."""

    theta_q: np.ndarray
    value: float
    """sum_i w_i |r_i|."""
    gain: float
    """What one more step promises; infinity where that is not known, since its program was cut short."""

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
            step, ended = best_step(residual, slopes, weights_n, least, most)
            gain = value - float(weights_n @ np.abs(residual + step @ slopes))
            promised = gain if ended else np.inf
            if gain <= GAIN * value:
                break
            trial = np.clip(theta + step, low, high)
            tried_residual = residuals(problem, trial[:, None])[:, 0]
            tried = float(weights_n @ np.abs(tried_residual))
            gained = (value - tried) / gain
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


def best_step(
    residual_n: np.ndarray, slopes_qn: np.ndarray, weights_n: np.ndarray, least_q: np.ndarray, most_q: np.ndarray
) -> tuple[np.ndarray, bool]:
    """The step (q,) that minimises sum_i w_i |r_i + slopes step|, each part between `least_q` <= 0 and `most_q` >= 0.

    By exchanges (Barrodale and Roberts 1973, doi 10.1137/0710069): the step goes through q rows that vanish, runs or
    ends of its parts, and leaves the one that gains most for the row at which the sum rises again. Where more rows than
    that vanish at once, as of repeated runs, exchanges would go round in a circle: each row is moved by an amount of
    its own while they go on, and the step is computed from the rows they end at as those are. Also, whether they ended.
    """
    size, runs = len(slopes_qn), len(residual_n)
    scale_q = np.abs(slopes_qn).mean(axis=1)
    scale_q = np.where(scale_q > 0, scale_q, 1.0)
    eye, nothing = np.eye(size), np.zeros(size)
    # Rows are runs, distances to the two ends, and last the parts themselves, whose zeros cost nothing to leave.
    exact_m = np.concatenate([residual_n, -least_q * scale_q, most_q * scale_q, nothing])
    rows_qm = np.concatenate([slopes_qn / scale_q[:, None], eye, -eye, eye], axis=1)
    above_m = np.concatenate([weights_n, nothing, nothing, nothing])
    below_m = np.concatenate([weights_n, nothing + np.inf, nothing + np.inf, nothing])
    ends = slice(runs, runs + 2 * size)
    basis, step = np.arange(runs + 2 * size, runs + 3 * size), np.zeros(size)
    apart_m = np.random.default_rng(0).uniform(0.1, 1.0, runs + 3 * size) * TIES * np.abs(residual_n).max(initial=0.0)
    apart_m[basis] = 0.0
    offset_m, ended = exact_m + apart_m, False
    for _ in range(EXCHANGES):
        height_m = offset_m + step @ rows_qm
        height_m[basis] = 0.0
        over_m = height_m >= 0
        over_m[ends] = True
        pull_m = np.where(over_m, above_m, -below_m)
        pull_m[basis] = 0.0
        directions_qk = np.linalg.pinv(rows_qm[:, basis].T)
        along_k = (rows_qm @ pull_m) @ directions_qk
        gain_2k = np.stack([-along_k - above_m[basis], along_k - below_m[basis]])
        side, leaving = np.unravel_index(int(gain_2k.argmax()), gain_2k.shape)
        gain = float(gain_2k[side, leaving])
        if not gain > ROUNDING * float(weights_n @ np.abs(directions_qk[:, leaving] @ rows_qm[:, :runs])):
            ended = True
            break
        direction_q = (1 - 2 * side) * directions_qk[:, leaving]
        rate_m = direction_q @ rows_qm
        rate_m[basis] = 0.0
        rate_m[np.abs(rate_m) < ROUNDING * np.abs(rate_m).max()] = 0.0  # of a row that depends on those of the basis
        crossed = np.flatnonzero(np.where(over_m, rate_m < 0, rate_m > 0) & (above_m + below_m > 0))
        if not len(crossed):
            break
        reach = np.abs(np.where(over_m, height_m.clip(0), height_m)[crossed] / rate_m[crossed])
        order = np.argsort(reach, kind="stable")
        risen = np.cumsum(((above_m + below_m)[crossed] * np.abs(rate_m[crossed]))[order]) >= gain
        stop = order[int(risen.argmax()) if risen.any() else -1]
        basis[leaving] = crossed[stop]
        step = step + reach[stop] * direction_q
    step = -np.linalg.pinv(rows_qm[:, basis].T) @ exact_m[basis]
    return np.clip(step / scale_q, least_q, most_q), ended
