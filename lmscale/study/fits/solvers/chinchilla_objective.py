"""The objective of a Chinchilla fit, its gradient and its Hessian, for many weightings of the runs at once.

Axes: n runs, p = 5 unknowns, b problems; the problem index comes last.
"""

import numpy as np

from lmscale.study.fits.solvers.chinchilla_points import UNKNOWNS, Array, ChinchillaPoints
from lmscale.study.fits.solvers.chinchilla_vertex import residual


def evaluate(points: ChinchillaPoints, weights_nb: Array, theta_pb: Array, mix_b: Array) -> tuple[Array, Array, Array]:
    """Objective (b,), gradient (5, b) and the matrix of the next step (5, 5, b).

    The matrix is `(1 - mix) * Hessian + mix * M`, where M is the positive semidefinite matrix of iteratively
    reweighted least squares (each residual weighted by rho'(r)/r). Where M alone steps, the objective falls for any
    nearly linear law; where the Hessian alone steps, convergence is quadratic once the set |r| <= delta is right.
    Axis m: cells of runs with the same N and D, or the runs themselves.
    """
    e, a, b, alpha, beta = theta_pb
    x_m, y_m = points.x_m, points.y_m
    first = np.exp((a - e) - alpha * x_m[:, None])
    second = np.exp((b - e) - beta * y_m[:, None])
    total = 1 + first + second
    if points.log_residual:
        misfit = points.of_runs(np.log(total))
        misfit += e - points.log_loss_nb
        share_1, share_2 = first / total, second / total
        share_0 = 1 / total
    else:
        level = np.exp(e)
        misfit = points.of_runs(level * total) - points.loss_nb
        share_1, share_2, share_0 = level * first, level * second, np.broadcast_to(level, first.shape)
    value, outer, slope = _weighted(points, weights_nb, misfit, mix_b)
    diagonal = (1 - mix_b) * slope if mix_b.any() else slope

    design = points.design_km
    gradient_1, gradient_2 = slope * share_1, slope * share_2
    q00 = outer * share_0
    q01, q02 = q00 * share_1, q00 * share_2
    outer_1 = outer * share_1
    q12 = outer_1 * share_2
    q11 = outer_1 * share_1 + diagonal * share_1
    q22 = outer * share_2**2 + diagonal * share_2
    q00 = q00 * share_0 + diagonal * share_0

    g0 = np.einsum("nb,nb->b", slope, share_0)
    g1 = design[:2] @ gradient_1
    g2 = design[[0, 2]] @ gradient_2
    gradient = np.stack([g0, g1[0], g2[0], -g1[1], -g2[1]])
    m00 = q00.sum(axis=0)
    m01, m02 = design[:2] @ q01, design[[0, 2]] @ q02
    m11, m22 = design[[0, 1, 3]] @ q11, design[[0, 2, 4]] @ q22
    m12 = design[[0, 1, 2, 5]] @ q12
    matrix = np.empty((UNKNOWNS, UNKNOWNS, theta_pb.shape[1]))
    upper = {
        (0, 0): m00,
        (0, 1): m01[0],
        (0, 2): m02[0],
        (0, 3): -m01[1],
        (0, 4): -m02[1],
        (1, 1): m11[0],
        (1, 2): m12[0],
        (1, 3): -m11[1],
        (1, 4): -m12[2],
        (2, 2): m22[0],
        (2, 3): -m12[1],
        (2, 4): -m22[1],
        (3, 3): m11[2],
        (3, 4): m12[3],
        (4, 4): m22[2],
    }
    for (i, j), entry in upper.items():
        matrix[i, j] = matrix[j, i] = entry
    return value, gradient, matrix


def _weighted(points: ChinchillaPoints, weights_nb: Array, misfit: Array, mix_b: Array) -> tuple[Array, Array, Array]:
    """The objective (b,), and what products and second derivatives of residuals are weighted by, (m, b) each."""
    if points.squared:
        slope = 2 * misfit
        value = np.einsum("nb,nb->b", weights_nb, misfit**2)
        curvature = reweighted = np.full_like(misfit, 2.0)
    else:
        size = np.abs(misfit)
        delta = points.delta
        slope = np.clip(misfit, -delta, delta)
        value = np.einsum("nb,nb->b", weights_nb, slope * (misfit - 0.5 * slope))
        curvature = (size <= delta).astype(float)
        reweighted = delta / np.maximum(size, delta) if mix_b.any() else curvature

    # Second derivatives of a residual: of ln L, Z^T (diag(share) - share share^T) Z; of L, Z^T diag(share) Z.
    exact = curvature - slope if points.log_residual else curvature
    outer = weights_nb * (exact + mix_b * (reweighted - exact) if mix_b.any() else exact)
    return value, points.sums(outer), points.sums(weights_nb * slope)


def summands_at_one(points: ChinchillaPoints, theta_p: Array) -> Array:
    """What each run adds to the objective, the gradient and the Hessian at one theta (5,), before weights (31, n).

    The runs share their losses.
    """
    theta_pb = theta_p[:, None]
    e, a, b, alpha, beta = theta_p
    first_n, second_n = np.exp((a - e) - alpha * points.x_n), np.exp((b - e) - beta * points.y_n)
    terms_tn = np.stack([np.ones_like(first_n), first_n, second_n])
    shares_tn = terms_tn / terms_tn.sum(axis=0) if points.log_residual else np.exp(e) * terms_tn
    misfit_n = residual(points, theta_pb)[:, 0]
    if points.squared:
        value_n, slope_n, curvature_n = misfit_n**2, 2 * misfit_n, np.full_like(misfit_n, 2.0)
    else:
        slope_n = np.clip(misfit_n, -points.delta, points.delta)
        value_n = slope_n * (misfit_n - 0.5 * slope_n)
        curvature_n = (np.abs(misfit_n) <= points.delta).astype(float)
    ones, zeros = np.ones_like(points.x_n), np.zeros_like(points.x_n)
    logs_tpn = np.stack(
        [
            np.stack([ones, zeros, zeros, zeros, zeros]),
            np.stack([zeros, ones, zeros, -points.x_n, zeros]),
            np.stack([zeros, zeros, ones, zeros, -points.y_n]),
        ]
    )  # derivatives of the logarithm of each term
    slopes_pn = np.einsum("tn,tpn->pn", shares_tn, logs_tpn)
    exact_n = curvature_n - slope_n if points.log_residual else curvature_n
    hessian_ppn = exact_n * slopes_pn[:, None] * slopes_pn
    hessian_ppn += slope_n * np.einsum("tn,tpn,tqn->pqn", shares_tn, logs_tpn, logs_tpn)
    return np.concatenate([value_n[None], slope_n * slopes_pn, hessian_ppn.reshape(-1, len(misfit_n))])


def evaluate_at_one(summands_kn: Array, weights_nb: Array) -> tuple[Array, Array, Array]:
    """`evaluate` of b weightings where `summands_at_one` are known, with the Hessian alone (mix 0): one matrix product.

    It takes a thirtieth of the time.
    """
    sums = summands_kn @ weights_nb
    return sums[0], sums[1 : 1 + UNKNOWNS], sums[1 + UNKNOWNS :].reshape(UNKNOWNS, UNKNOWNS, -1)


def objective(points: ChinchillaPoints, weights_nb: Array, theta_pb: Array) -> Array:
    """The objective of `evaluate` alone, (b,)."""
    size = residual(points, theta_pb)
    if points.squared:
        return np.asarray(np.einsum("nb,nb->b", weights_nb, size**2))
    np.abs(size, out=size)
    inside = np.minimum(size, points.delta)
    size -= 0.5 * inside
    size *= inside
    return np.asarray(np.einsum("nb,nb->b", weights_nb, size))
