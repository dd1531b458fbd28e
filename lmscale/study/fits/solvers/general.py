"""Minima for any law: multi-start Levenberg-Marquardt with exact derivatives.

First derivatives are exact (`dual.py`), so a form states only its loss. The step's matrix is, as in `chinchilla.py`,
the reweighted least-squares matrix far away (safe) and the Hessian at the end (fast); the law's own second derivatives
come from differences of the exact first ones.

Axes: n runs, q free unknowns, b problems; the problem index last. Unknowns are logarithms where the form says so.
"""

import concurrent.futures
import itertools

import numpy as np

from lmscale.core.errors import UserError
from lmscale.core.host import usable_cores
from lmscale.study.fits.solvers.chinchilla_points import LAD_DELTA
from lmscale.study.fits.solvers.derivatives import derivatives, residuals, search_scale, to_theta, to_values
from lmscale.study.fits.solvers.newton import solve_positive
from lmscale.study.fits.solvers.problem import GlobalMinimum, Problem

MAX_STARTS = 4096
KEEP = 24
MAX_STEPS = 300
RENEW = 6  # Newton steps between two evaluations of the law's second derivatives
CHUNK = 128


def _rho(problem: Problem, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """rho, rho', rho'' and rho'(r)/r."""
    if problem.loss == "squared":
        two = np.full_like(residual, 2.0)
        return residual**2, 2 * residual, two, two
    delta = LAD_DELTA if problem.loss == "lad" else problem.delta
    size, slope = np.abs(residual), np.clip(residual, -delta, delta)
    return slope * (residual - 0.5 * slope), slope, (size <= delta).astype(float), delta / np.maximum(size, delta)


def _bend(problem: Problem, theta_qb: np.ndarray, slope_nb: np.ndarray) -> np.ndarray:
    """sum_i slope_i d2 r_i / d theta2, (q, q, b), from central differences of exact first derivatives."""
    size = len(theta_qb)
    out = np.empty((size, size, theta_qb.shape[1]))
    for index in range(size):
        step = 1e-5
        ahead, behind = theta_qb.copy(), theta_qb.copy()
        ahead[index] += step
        behind[index] -= step
        difference = derivatives(problem, ahead) - derivatives(problem, behind)
        out[index] = np.einsum("nb,qnb->qb", slope_nb, difference) / (2 * step)
    return (out + out.transpose(1, 0, 2)) / 2


def _free_step(
    matrix: np.ndarray, gradient: np.ndarray, pinned: np.ndarray, damping: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The damped step of the unknowns that are not pinned to a bound, the fall it promises, and whether it is safe."""
    eye = np.eye(len(gradient))[:, :, None]
    diagonal = np.where(pinned, 1.0, np.abs(np.maximum(np.einsum("iib->ib", matrix), 1e-300)))
    free = (~pinned[:, None] & ~pinned[None]) | (eye > 0)
    damped = np.where(free, matrix, 0) + eye * np.where(pinned, 1.0, 0) + eye * (damping * diagonal)[None]
    step, positive = solve_positive(damped, -gradient)
    promised = -np.einsum("qb,qb->b", step, gradient)
    return step * np.minimum(1, 3 / np.maximum(np.abs(step).max(axis=0), 1e-300)), promised, positive


def refine(
    problem: Problem, weights_nb: np.ndarray, theta_qb: np.ndarray, max_steps: int = MAX_STEPS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """theta (q, b), objective (b,), largest gradient component (b,), converged (b,).

    Bounds are enforced by clipping; a component that rests on a bound it pushes against leaves the system.
    """
    _, low, high = (np.asarray(item)[:, None] for item in search_scale(problem))
    theta = np.clip(theta_qb, low, high)
    size, count = theta.shape
    final, objective, steepest = theta.copy(), np.full(count, np.inf), np.full(count, np.inf)
    converged = np.zeros(count, dtype=bool)
    active, weights = np.arange(count), weights_nb
    damping, newton = np.full(count, 1e-3), np.zeros(count, dtype=bool)
    bend, age = np.zeros((size, size, count)), np.zeros(count)
    with np.errstate(all="ignore"):
        value = np.einsum("nb,nb->b", weights, _rho(problem, residuals(problem, theta))[0])
        value = np.where(np.isfinite(value), value, np.inf)
        for number in range(max_steps):
            _, first, second, reweighted = _rho(problem, residuals(problem, theta))
            slopes = derivatives(problem, theta)
            gradient = np.einsum("nb,qnb->qb", weights * first, slopes)
            matrix = np.einsum("inb,jnb->ijb", weights * np.where(newton, second, reweighted) * slopes, slopes)
            # The law's own curvature hardly changes along the last steps: it is taken anew every few of them.
            if (stale := newton & (age <= 0)).any():
                which = np.flatnonzero(stale)
                bend[:, :, which] = _bend(problem, theta[:, which], (weights * first)[:, which])
            age = np.where(stale, RENEW, age - newton)
            matrix += np.where(newton, bend, 0.0)
            pinned = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
            gradient = np.where(pinned, 0, gradient)
            step, promised, positive = _free_step(matrix, gradient, pinned, damping)
            trial = np.clip(theta + step, low, high)
            tried = np.einsum("nb,nb->b", weights, _rho(problem, residuals(problem, trial))[0])
            accept = positive & (tried <= value * (1 + 2e-14))
            flat = positive & (promised <= 1e-14 * value + 1e-28 * weights.sum(axis=0))
            done = flat & (newton | (problem.loss == "squared")) & (damping < 1e-2)
            # The Hessian takes over once steps of the safe matrix gain little; a refusal hands back to it.
            slow = value - tried < 0.02 * value
            newton = np.where(accept, newton | slow | flat, positive & newton)
            newton = np.where(~accept & (damping > 1e3), ~newton, newton)
            age = np.where(accept, age, 0.0)
            theta, value = np.where(accept, trial, theta), np.where(accept, tried, value)
            raised = np.where(flat, damping * 0.1, np.maximum(damping, 1e-8) * 6)
            damping = np.where(accept, np.maximum(damping * 0.2, 1e-12), raised)
            leave = done | (damping > 1e10) | ~np.isfinite(value) | (number == max_steps - 1)
            if not leave.any():
                continue
            left, stay = active[leave], ~leave
            final[:, left], objective[left] = theta[:, leave], value[leave]
            steepest[left], converged[left] = np.abs(gradient).max(axis=0)[leave], done[leave]
            if not stay.any():
                break
            active, weights, problem = active[stay], weights[:, stay], problem.among(stay)
            theta, bend = theta[:, stay], bend[:, :, stay]
            value, damping, newton, age = value[stay], damping[stay], newton[stay], age[stay]
    return final, objective, steepest, converged


def starts(problem: Problem) -> np.ndarray:
    """The form's start grid (q, s), thinned evenly where it has more than `MAX_STARTS` points."""
    chosen = [p for p in problem.form.PARAMETERS if p.name in problem.free]
    axes = [p.starts or (p.middle,) for p in chosen]
    grid = np.array(list(itertools.product(*axes)), dtype=float)
    if len(grid) > MAX_STARTS:
        grid = grid[np.linspace(0, len(grid) - 1, MAX_STARTS).astype(int)]
    return np.stack([np.log(column) if p.log else column for column, p in zip(grid.T, chosen)])


def best(problem: Problem, weights_n: np.ndarray) -> GlobalMinimum:
    """The lowest of the start grid's best points, each refined: a few safe steps for all, exact ones for the best."""
    theta = starts(problem)
    with np.errstate(all="ignore"):
        values = np.einsum("n,nb->b", weights_n, _rho(problem, residuals(problem, theta))[0])
    if not np.isfinite(values).any():
        # ln L of no start exists (the law is negative somewhere): least squares on L itself leads to where it does.
        easier = problem.using(residual="raw", loss="squared")
        theta, _, _, _ = refine(easier, np.repeat(weights_n[:, None], theta.shape[1], axis=1), theta, max_steps=60)
        with np.errstate(all="ignore"):
            values = np.einsum("n,nb->b", weights_n, _rho(problem, residuals(problem, theta))[0])
        if not np.isfinite(values).any():
            raise UserError(
                f"no start of the law {problem.form.NAME!r} gives a positive loss at every run: "
                f"add starts to its parameters, or fit with residual 'raw'"
            )
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")[: 8 * KEEP]
    some = theta[:, order]
    some, values, _, _ = refine(problem, np.repeat(weights_n[:, None], some.shape[1], axis=1), some, max_steps=12)
    order = np.argsort(values, kind="stable")[:KEEP]
    some, values, sizes, _ = refine(problem, np.repeat(weights_n[:, None], len(order), axis=1), some[:, order])
    index = int(values.argmin())
    best_values = np.array([float(value[0]) for value in to_values(problem, some[:, [index]])])
    agreeing = int((values <= values[index] * (1 + 1e-6) + 1e-25).sum())
    return GlobalMinimum(
        best_values, problem.objective(best_values, weights_n), float(sizes[index]), len(order), agreeing
    )


def _first(problem: Problem, weights_nb: np.ndarray) -> np.ndarray:
    """Each problem's best point of the start grid (q, b).

    Objectives of the whole grid under every weighting are one matrix product. Where every problem has targets of its
    own, they choose among the `KEEP` points that are best for the mean targets.
    """
    theta, own = starts(problem), problem.target_n.ndim == 2
    central = problem.using(target_n=problem.target_n.mean(axis=1)) if own else problem
    with np.errstate(all="ignore"):
        heights = _rho(problem, residuals(central, theta))[0]
        heights = np.where(np.isfinite(heights), heights, 1e30)
        if not own:
            return theta[:, (heights.T @ weights_nb).argmin(axis=0)]
        theta = theta[:, np.argsort(heights.T @ weights_nb.mean(axis=1), kind="stable")[:KEEP]]
        values = [
            np.einsum("nb,nb->b", weights_nb, _rho(problem, residuals(problem, theta[:, [index]]))[0])
            for index in range(theta.shape[1])
        ]
    return theta[:, np.argmin(np.where(np.isfinite(values), values, np.inf), axis=0)]


def many(problem: Problem, weights_nb: np.ndarray, around_p: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Minima (p, b) of b weightings and whether each converged (b,).

    Each goes from the point of the start grid that is best for its own weights, and from `around_p`, and keeps the
    lower end.
    """
    count = weights_nb.shape[1]
    first = _first(problem, weights_nb)
    around = None if around_p is None else to_theta(problem, np.asarray(around_p, dtype=float)[:, None])

    def one(chunk: slice) -> tuple[np.ndarray, np.ndarray]:
        weights, those = weights_nb[:, chunk], problem.among(chunk)
        ends = [refine(those, weights, first[:, chunk])]
        if around is not None:
            ends.append(refine(those, weights, np.repeat(around, weights.shape[1], axis=1)))
        lowest = np.argmin([end[1] for end in ends], axis=0)
        columns = np.arange(weights.shape[1])
        theta_qb = np.stack([end[0] for end in ends])[lowest, :, columns].T
        values = [np.broadcast_to(v, (weights.shape[1],)) for v in to_values(problem, theta_qb)]
        return np.stack(values), np.stack([end[3] for end in ends])[lowest, columns]

    with concurrent.futures.ThreadPoolExecutor(len(usable_cores())) as pool:
        parts = list(pool.map(one, [slice(begin, begin + CHUNK) for begin in range(0, count, CHUNK)]))
    return np.concatenate([p[0] for p in parts], axis=1), np.concatenate([p[1] for p in parts])
