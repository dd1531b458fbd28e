"""A local minimum of any law from any start: Levenberg-Marquardt that follows curved valleys, then Newton's method.

Far away the step's matrix is that of reweighted least squares, which is safe; at the end it is the Hessian, which is
fast. First derivatives are exact (`laws.dual`), and so are the second ones (`derivatives.curvature`). Laws of
many parameters have long, curved valleys, along which a straight step soon leaves the floor: half the acceleration of
the geodesic is added to it (Transtrum and Sethna 2012, arXiv 1201.5885), which takes Farseer's nine parameters from
more than a thousand steps to sixty.

Axes: n runs, q free unknowns, b problems; the problem index last. Unknowns are logarithms where the form says so.
"""

import numpy as np

from lmscale.study.fits.solvers.derivatives import curvature, derivatives, residuals, search_scale
from lmscale.study.fits.solvers.loss_function import rho, total
from lmscale.study.fits.solvers.newton import solve_positive
from lmscale.study.fits.solvers.problem import Problem

MAX_STEPS = 300
RENEW = 6  # Newton steps between two evaluations of the law's second derivatives
FAR = 3.0  # no unknown moves by more in one step
PROBE = 0.1  # share of a step over which its acceleration is measured
MOST_ACCELERATION = 0.75  # of a step's length: beyond, the path is no parabola
SAFE_PIVOT = 1e-7
"""Smallest pivot of the normal equations that give an accurate step; below, an orthogonal factorisation does."""
HESSIAN_PIVOT = 1e-14


def newton_step(
    matrix: np.ndarray, gradient: np.ndarray, pinned: np.ndarray, ridge_qb: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step (q, b) of the unknowns that are not pinned to a bound, and whether its matrix is positive (b,).

    `ridge_qb` is added to the diagonal.
    """
    eye = np.eye(len(gradient))[:, :, None]
    free = ~pinned[:, None] & ~pinned[None]
    damped = np.where(free, matrix, 0) + eye * np.where(pinned, 1.0, ridge_qb)[None]
    return solve_positive(damped, -gradient, HESSIAN_PIVOT)


class _LeastSquares:
    """Damped least-squares steps for several right-hand sides: sqrt(weights) (slopes step + right) is to vanish."""

    def __init__(self, slopes_qnb: np.ndarray, weights_nb: np.ndarray, pinned_qb: np.ndarray, damping_b: np.ndarray):
        self.root_nb = np.sqrt(weights_nb)
        self.slopes_qnb = np.where(pinned_qb[:, None], 0.0, slopes_qnb) * self.root_nb
        self.scale_qb = np.sqrt(np.einsum("qnb,qnb->qb", self.slopes_qnb, self.slopes_qnb))
        self.scale_qb = np.where(self.scale_qb > 0, self.scale_qb, 1.0)
        self.slopes_qnb /= self.scale_qb[:, None]
        eye = np.eye(len(slopes_qnb))[:, :, None]
        self.matrix_qqb = np.einsum("inb,jnb->ijb", self.slopes_qnb, self.slopes_qnb) + eye * damping_b
        self.damping_b = damping_b

    def step(self, right_nb: np.ndarray) -> np.ndarray:
        """The step (q, b)."""
        right_nb = self.root_nb * right_nb
        gradient = np.einsum("qnb,nb->qb", self.slopes_qnb, right_nb)
        step, safe = solve_positive(self.matrix_qqb, -gradient, SAFE_PIVOT)
        if not safe.all():
            step[:, ~safe] = self._orthogonal(right_nb, ~safe)
        return step / self.scale_qb

    def _orthogonal(self, right_nb: np.ndarray, those_b: np.ndarray) -> np.ndarray:
        size = len(self.slopes_qnb)
        slopes = self.slopes_qnb[:, :, those_b].transpose(2, 1, 0)
        damping = np.sqrt(self.damping_b[those_b])[:, None, None] * np.eye(size)
        orthogonal, upper = np.linalg.qr(np.concatenate([slopes, damping], axis=1))
        right = np.concatenate([-right_nb[:, those_b].T, np.zeros((len(slopes), size))], axis=1)
        projected = np.einsum("bnq,bn->bq", orthogonal, right)
        upper = upper + np.eye(size) * np.where(np.abs(upper) > 0, 0.0, 1e-300)  # a law without some parameter
        return np.linalg.solve(upper, projected[..., None])[..., 0].T


def path_curvature(
    problem: Problem, theta: np.ndarray, residual: np.ndarray, slopes: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """The second derivative of the residuals along a step (n, b), 0 where they do not exist."""
    ahead = residuals(problem, theta + PROBE * step)
    bend = 2 / PROBE * ((ahead - residual) / PROBE - np.einsum("qnb,qb->nb", slopes, step))
    return np.where(np.isfinite(bend).all(axis=0), bend, 0.0)


def with_acceleration(step: np.ndarray, acceleration: np.ndarray, scale_qb: np.ndarray) -> np.ndarray:
    """The step with half the acceleration of the path that it begins, where that is short."""
    length, more = (np.linalg.norm(v * scale_qb, axis=0) for v in (step, acceleration))
    return step + np.where(more <= 2 * MOST_ACCELERATION * length, acceleration / 2, 0.0)


class Ends:
    """Where each of b problems ended; those that have ended leave the batch."""

    def __init__(self, theta_qb: np.ndarray):
        count = theta_qb.shape[1]
        self.theta, self.objective, self.steepest = theta_qb.copy(), np.full(count, np.inf), np.full(count, np.inf)
        self.converged = np.zeros(count, dtype=bool)
        self.active = np.arange(count)

    def record(
        self, leave: np.ndarray, theta: np.ndarray, objective: np.ndarray, gradient: np.ndarray, done: np.ndarray
    ) -> np.ndarray:
        """Note the ends of the problems that `leave`, and return which stay (b,)."""
        left = self.active[leave]
        self.theta[:, left], self.objective[left] = theta[:, leave], objective[leave]
        self.steepest[left], self.converged[left] = np.abs(gradient).max(axis=0)[leave], done[leave]
        self.active = self.active[~leave]
        return ~leave

    def every(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """theta (q, b), objective (b,), largest gradient component (b,), converged (b,)."""
        return self.theta, self.objective, self.steepest, self.converged


def safe_step(
    problem: Problem, theta: np.ndarray, residual: np.ndarray, slopes: np.ndarray, solver: _LeastSquares
) -> tuple[np.ndarray, np.ndarray]:
    """The accelerated step of reweighted least squares, and the straight one (q, b)."""
    straight = solver.step(residual)
    acceleration = solver.step(path_curvature(problem, theta, residual, slopes, straight))
    return with_acceleration(straight, acceleration, solver.scale_qb), straight


def hessian(weights_nb: np.ndarray, slopes_qnb: np.ndarray, bend_qqb: np.ndarray) -> np.ndarray:
    """The second derivatives of the objective (q, q, b); `weights_nb` include rho''."""
    return np.einsum("inb,jnb->ijb", weights_nb * slopes_qnb, slopes_qnb, optimize=True) + bend_qqb


def pinned_at(theta: np.ndarray, gradient: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which unknowns rest on a bound that they push against (q, b)."""
    return ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))


def shortened(step: np.ndarray) -> np.ndarray:
    """The step, none of whose parts is longer than `FAR`."""
    return step * np.minimum(1, FAR / np.maximum(np.abs(step).max(axis=0), 1e-300))


def _raised(damping: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """The damping after a step was refused: lower where only rounding refused it."""
    return np.where(flat, damping * 0.1, np.maximum(damping, 1e-12) * 4)


def refine(
    problem: Problem, weights_nb: np.ndarray, theta_qb: np.ndarray, max_steps: int = MAX_STEPS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """theta (q, b), objective (b,), largest gradient component (b,), converged (b,).

    Bounds are enforced by clipping; a component that rests on a bound it pushes against leaves the system.
    """
    _, low, high = (np.asarray(item)[:, None] for item in search_scale(problem))
    theta, weights = np.clip(theta_qb, low, high), weights_nb
    size, count = theta.shape
    ends = Ends(theta)
    damping, newton = np.full(count, 1e-3), np.zeros(count, dtype=bool)
    bend, age = np.zeros((size, size, count)), np.zeros(count)
    with np.errstate(all="ignore"):
        residual = residuals(problem, theta)
        value = total(problem, weights, residual)
        for number in range(max_steps):
            (_, first, second, reweighted), slopes = rho(problem, residual), derivatives(problem, theta)
            gradient = np.einsum("nb,qnb->qb", weights * first, slopes)
            pinned = pinned_at(theta, gradient, low, high)
            gradient = np.where(pinned, 0, gradient)
            # The law's own curvature hardly changes along the last steps: it is taken anew every few of them.
            if (stale := newton & (age <= 0)).any():
                which = np.flatnonzero(stale)
                part = problem.among(which)
                bend[:, :, which] = curvature(part, theta[:, which], (weights * first)[:, which])
            age = np.where(stale, RENEW, age - newton)
            solver = _LeastSquares(slopes, weights * reweighted, pinned, damping)
            step, straight = safe_step(problem, theta, residual, slopes, solver)
            positive = np.isfinite(step).all(axis=0)
            if newton.any():
                matrix = hessian(weights * second, slopes, bend)
                diagonal = np.abs(np.maximum(np.einsum("iib->ib", matrix), 1e-300))
                other, good = newton_step(matrix, gradient, pinned, damping * diagonal)
                step, positive = np.where(newton, other, step), np.where(newton, good, positive)
                straight = np.where(newton, other, straight)
            promised = -np.einsum("qb,qb->b", straight, gradient)
            trial = np.clip(theta + shortened(np.where(pinned, 0.0, step)), low, high)
            tried_residual = residuals(problem, trial)
            tried = total(problem, weights, tried_residual)
            accept = positive & (tried <= value * (1 + 2e-14))
            flat = positive & (promised <= 1e-14 * value + 1e-28 * weights.sum(axis=0))
            done = flat & (newton | (problem.loss == "squared")) & (damping < 1e-2)
            # The Hessian takes over once steps of the safe matrix gain little; a refusal hands back to it.
            newton = np.where(accept, newton | (value - tried < 0.02 * value) | flat, positive & newton)
            newton = np.where(~accept & (damping > 1e3), ~newton, newton) & (problem.loss != "squared")
            age = np.where(accept, age, 0.0)
            theta, value = np.where(accept, trial, theta), np.where(accept, tried, value)
            residual = np.where(accept, tried_residual, residual)
            damping = np.where(accept, np.maximum(damping * 0.2, 1e-16), _raised(damping, flat))
            leave = done | (damping > 1e10) | ~np.isfinite(value) | (number == max_steps - 1)
            if not leave.any():
                continue
            stay = ends.record(leave, theta, value, gradient, done)
            if not stay.any():
                break
            weights, problem = weights[:, stay], problem.among(stay)
            theta, bend, residual = theta[:, stay], bend[:, :, stay], residual[:, stay]
            value, damping, newton, age = value[stay], damping[stay], newton[stay], age[stay]
    return ends.every()
