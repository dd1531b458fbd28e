"""Least absolute deviations by vertices: a law through as many runs as it has unknowns, many weightings at once.

The minimum of a sum of absolute values lies where p residuals are zero, wherever the law is nearly linear over the
distance in question. So each problem is linearised, the linear one is solved exactly by exchanging one run at a time
(Barrodale and Roberts 1973, doi 10.1137/0710069), and both are repeated until the step vanishes, as in Osborne and
Watson 1971 (doi 10.1093/comjnl/14.2.184). Only the runs nearest to the law can change sides in one round: the exchange
sees `NEAR` of them, and the others as a constant pull.

What comes out is a start for `chinchilla.descend`, which judges every problem, those without a vertex included.
Axes: n runs, m near runs, p = 5 unknowns, k = 5 runs that the law goes through, b problems.
"""

import numpy as np
from numpy.typing import NDArray

from lmscale.study.fits.solvers.chinchilla_points import LOWEST, UNKNOWNS, Array, ChinchillaPoints

NEAR = 40
ROUNDS = 6
EXCHANGES = 60
HEAVY = 1e6  # times all runs together: what no pull of theirs moves
SINE = 0.05  # a run enters the first basis if its derivatives stand out of the others' plane by at least this


def through_runs(points: ChinchillaPoints, weights_nb: Array, theta_pb: Array) -> Array:
    """theta (5, b) from `theta_pb` down to a vertex of the weighted sum of absolute residuals, where there is one."""
    theta = theta_pb.copy()
    active = np.arange(theta.shape[1])
    with np.errstate(all="ignore"):
        for _ in range(ROUNDS):
            weights, those = weights_nb[:, active], points.among(active)
            step = _linear_minimum(*_with_bound(*_linearised(those, theta[:, active]), weights, theta[:, active]))
            before = height(those, weights, theta[:, active])
            better = np.zeros(len(active), dtype=bool)
            for shrink in (1.0, 0.3):
                trial = theta[:, active] + shrink * step
                trial[0] = np.maximum(trial[0], LOWEST)
                good = ~better & (height(those, weights, trial) < before)
                theta[:, active[good]] = trial[:, good]
                better |= good
            active = active[better & (np.abs(step).max(axis=0) > 1e-10)]
            if not len(active):
                break
    return theta


def height(points: ChinchillaPoints, weights_nb: Array, theta_pb: Array) -> Array:
    """The weighted sums of absolute residuals (b,)."""
    return np.asarray(np.einsum("nb,nb->b", weights_nb, np.abs(residual(points, theta_pb))))


def _terms(points: ChinchillaPoints, theta_pb: Array) -> tuple[Array, Array, Array]:
    e, a, b, alpha, beta = theta_pb
    first = np.exp((a - e) - alpha * points.x_m[:, None])
    second = np.exp((b - e) - beta * points.y_m[:, None])
    return first, second, e


def residual(points: ChinchillaPoints, theta_pb: Array) -> Array:
    """Predicted less measured loss of every run under every law, or their logarithms, (n, b)."""
    first, second, e = _terms(points, theta_pb)
    if points.log_residual:
        return np.asarray(points.of_runs(np.log(1 + first + second) + e) - points.log_loss_nb)
    return np.asarray(points.of_runs(np.exp(e) * (1 + first + second)) - points.loss_nb)


def _linearised(points: ChinchillaPoints, theta_pb: Array) -> tuple[Array, Array]:
    """Residuals (n, b) and their derivatives (5, n, b)."""
    first, second, e = _terms(points, theta_pb)
    first, second = points.of_runs(first), points.of_runs(second)
    total = 1 + first + second
    scale = 1 / total if points.log_residual else np.broadcast_to(np.exp(e), total.shape)
    residual = np.log(total) + e - points.log_loss_nb if points.log_residual else np.exp(e) * total - points.loss_nb
    share_1, share_2 = first * scale, second * scale
    x, y = points.x_n[:, None], points.y_n[:, None]
    return residual, np.stack([scale, share_1, share_2, -x * share_1, -y * share_2])


def _with_bound(
    residual_nb: Array, slopes_pnb: Array, weights_nb: Array, theta_pb: Array
) -> tuple[Array, Array, Array]:
    """The linear problems with one row more, which keeps ln E where it rests on its bound and weighs nothing elsewhere.

    The vertex then goes through that bound and through one run fewer.
    """
    problems = theta_pb.shape[1]
    slope_p = np.eye(UNKNOWNS)[0]
    weight_b = np.where(theta_pb[0] <= LOWEST, HEAVY * weights_nb.sum(axis=0), 0.0)
    slopes_p1b = np.broadcast_to(slope_p[:, None, None], (UNKNOWNS, 1, problems))
    return (
        np.concatenate([residual_nb, np.zeros((1, problems))]),
        np.concatenate([slopes_pnb, slopes_p1b], axis=1),
        np.concatenate([weights_nb, weight_b[None]]),
    )


def _linear_minimum(residual_nb: Array, slopes_pnb: Array, weights_nb: Array) -> Array:
    """The step (5, b) to the minimum of sum_i w_i |r_i + slopes_i . step| by exchanges."""
    near = min(NEAR, len(residual_nb))
    height = np.where(weights_nb > 0, np.abs(residual_nb), np.inf)
    chosen = np.argpartition(height, near - 1, axis=0)[:near]
    chosen = np.take_along_axis(chosen, np.argsort(np.take_along_axis(height, chosen, axis=0), axis=0), axis=0)
    residual = np.take_along_axis(residual_nb, chosen, axis=0)
    weights = np.take_along_axis(weights_nb, chosen, axis=0)
    slopes = np.take_along_axis(slopes_pnb, chosen[None], axis=1)
    pull = np.einsum("pnb,nb->pb", slopes_pnb, weights_nb * np.sign(residual_nb))
    pull -= np.einsum("pmb,mb->pb", slopes, weights * np.sign(residual))

    basis = _first_basis(slopes, weights)
    step, inverse = _at(residual, slopes, basis)
    result, active = step.copy(), np.arange(residual.shape[1])
    rest = residual + np.einsum("pmb,pb->mb", slopes, step)
    np.put_along_axis(rest, basis, 0.0, axis=0)
    for _ in range(EXCHANGES):
        columns = np.arange(len(active))
        gradient = pull + np.einsum("pmb,mb->pb", slopes, weights * np.sign(rest))
        along = np.einsum("pb,pkb->kb", gradient, inverse)
        gain = np.abs(along) - np.take_along_axis(weights, basis, axis=0)
        leaving = gain.argmax(axis=0)
        gain = gain[leaving, columns]
        going = gain > 1e-9
        if not going.all():
            result[:, active[~going]] = step[:, ~going]
            active, columns = active[going], np.arange(int(going.sum()))
            if not len(active):
                return result
            pull, slopes, weights, rest = pull[:, going], slopes[:, :, going], weights[:, going], rest[:, going]
            step, inverse, basis = step[:, going], inverse[:, :, going], basis[:, going]
            leaving, gain, along = leaving[going], gain[going], along[:, going]
        side = -np.sign(along[leaving, columns])
        direction = side * inverse[:, leaving, columns]
        rate = np.einsum("pmb,pb->mb", slopes, direction)
        np.put_along_axis(rate, basis, 0.0, axis=0)
        reach = np.where(rest * rate < 0, -rest / rate, np.inf)
        order = np.argsort(reach, axis=0)
        turned = np.cumsum(np.take_along_axis(2 * weights * np.abs(rate), order, axis=0), axis=0) >= gain
        last = np.isfinite(reach).sum(axis=0) - 1
        stop = np.where(turned.any(axis=0), turned.argmax(axis=0), last).clip(0, np.maximum(last, 0))
        entering = order[stop, columns]
        length = reach[entering, columns]
        length = np.where(np.isfinite(length), length, 0.0)
        step = step + length * direction
        rest = rest + length * rate
        rest[basis[leaving, columns], columns] = side * length
        rest[entering, columns] = 0.0
        inverse = _exchanged(inverse, slopes[:, entering, columns], leaving)
        basis[leaving, columns] = entering
    result[:, active] = step
    return result


def _first_basis(slopes_pmb: Array, weights_mb: Array) -> NDArray[np.intp]:
    """The nearest runs whose derivatives are independent, (k, b): near runs come in order."""
    rest = slopes_pmb.copy()
    size = np.einsum("pmb,pmb->mb", rest, rest)
    basis = np.empty((UNKNOWNS, slopes_pmb.shape[2]), dtype=np.intp)
    columns = np.arange(slopes_pmb.shape[2])
    for k in range(UNKNOWNS):
        share = np.einsum("pmb,pmb->mb", rest, rest) / size
        share = np.where(weights_mb > 0, share, -1.0)
        apart = share > SINE**2
        basis[k] = np.where(apart.any(axis=0), apart.argmax(axis=0), share.argmax(axis=0))
        unit = rest[:, basis[k], columns]
        unit = unit / np.sqrt(np.einsum("pb,pb->b", unit, unit))
        rest = rest - unit[:, None] * np.einsum("pb,pmb->mb", unit, rest)
    return basis


def _at(residual_mb: Array, slopes_pmb: Array, basis_kb: NDArray[np.intp]) -> tuple[Array, Array]:
    """The step through the basis (p, b), and the inverse of its derivatives (p, k, b)."""
    matrix = np.take_along_axis(slopes_pmb, basis_kb[None], axis=1)  # (p, k, b)
    matrix_bkp = matrix.transpose(2, 1, 0)
    singular = ~(np.abs(np.linalg.det(matrix_bkp)) > 1e-300)
    matrix_bkp = np.where(singular[:, None, None], np.eye(UNKNOWNS), matrix_bkp)
    inverse = np.ascontiguousarray(np.linalg.inv(matrix_bkp).transpose(1, 2, 0))
    return -np.einsum("pkb,kb->pb", inverse, np.take_along_axis(residual_mb, basis_kb, axis=0)), inverse


def _exchanged(inverse_pkb: Array, row_pb: Array, leaving_b: NDArray[np.intp]) -> Array:
    """The inverse after the leaving run's derivatives are replaced by `row`: one elimination step."""
    columns = np.arange(inverse_pkb.shape[2])
    along = np.einsum("pb,pkb->kb", row_pb, inverse_pkb)
    pivot = inverse_pkb[:, leaving_b, columns] / along[leaving_b, columns]
    out = inverse_pkb - pivot[:, None] * along[None]
    out[:, leaving_b, columns] = pivot
    return np.asarray(out)
