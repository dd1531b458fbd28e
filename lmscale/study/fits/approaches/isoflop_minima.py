"""Where each IsoFLOP valley is lowest, in the data and in noise draws, and the power law through the minima.

Axes: k sizes of a budget, r noise draws; the draw index last. ln N is the abscissa throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmscale.core.quantities import counted
from lmscale.study.fits.approaches.isoflop_valleys import IsoFlopValley
from lmscale.study.fits.solvers.power_law import loss_through, regress

GRID_PER_SIZE = 25  # Akima's minimum is looked for on 25 (k - 1) points (Porian 2024)
GRID_FLOOR = 0.33 * GRID_PER_SIZE  # Porian's floor of a minimum's s.d., in grid steps: a third of the spacing of sizes
DIP = 0.25  # an interpolated minimum may lie below the lowest run by this share of the valley's depth
FLAT = 1e-9  # a valley that is less deep than this share of its loss is rounding
LEAST_USABLE = 0.5  # a budget that loses more of its draws has no reliable minimum


@dataclass(frozen=True)
class ValleyMinimum:
    """One budget's minimum; `log_params_r` and `loss_r` are those of the draws that have one."""

    flops: float
    params: float
    loss_nats: float
    n_runs: int
    log_params_r: np.ndarray
    loss_r: np.ndarray
    log_params_sd: float


@dataclass(frozen=True)
class MinimaLine:
    """ln N* = ln G + a ln C with its draws, and L*(C)."""

    G: float
    a: float
    loss_curve: tuple[float, float, float]
    samples: dict[str, np.ndarray] | None
    objective: float
    unweighted: float
    residual_sd: float
    """Scatter of ln N* about the line, per degree of freedom."""
    expected_sd: float
    """The scatter that one run's noise alone would give."""
    unexplained_sd: float
    """tau: the rest of the scatter, which the weights and the draws include."""
    weights: np.ndarray
    """Weights of the minima in the line (k,)."""


def valley_minimum(
    valley: IsoFlopValley, method: str, *, noise_r: np.ndarray, rng: np.random.Generator, window: float | None
) -> ValleyMinimum | str:
    """The minimum of a valley, or the sentence that says why it has none that can be trusted."""
    mean = valley.by_size(valley.loss_n[:, None])[:, 0]
    if len(mean) < 3 or np.ptp(mean) <= FLAT * mean.mean():
        few = f"{counted(len(mean), 'model size')}; a minimum needs at least 3"
        return few if len(mean) < 3 else "flat: every size has the same loss"
    draws, noisy = len(noise_r), bool(noise_r.any())
    drawn = valley.loss_n[:, None] + noise_r * rng.standard_normal((len(valley.loss_n), draws))
    both = np.concatenate([valley.loss_n[:, None], drawn], axis=1)
    spacing = 0.0
    if method == "parabola":
        log_params, loss, why = _parabola(valley, both, window, mean)
    else:
        log_params, loss, why, spacing = _akima(valley, both)
    if not np.isfinite(log_params[0]):
        return why
    dip = float(mean.min() - loss[0])
    if dip > DIP * float(np.ptp(mean)):
        return f"overshoot: the interpolated minimum lies {dip:.3g} nats below every run"
    lowest = int(mean.argmin())
    beyond = log_params[0] < valley.sizes[1] if lowest == 0 else log_params[0] > valley.sizes[-2]
    if method == "parabola" and lowest in (0, len(mean) - 1) and beyond:
        end = "smallest" if lowest == 0 else "largest"
        return f"edge: lowest at the {end} size, with the parabola's minimum beyond the next: nothing brackets it"
    good = np.isfinite(log_params[1:])
    usable = int(good.sum())
    if usable < LEAST_USABLE * draws:
        return f"unstable: only {usable} of {draws} noise draws have a minimum inside the sizes"
    spread = float(log_params[1:][good].std())
    sd = max(spread, GRID_FLOOR * spacing) * draws / usable
    # Akima's grid minimum jumps; the median of the draws is the steadier centre (Porian 2024).
    centre = float(np.median(log_params[1:][good])) if method == "akima" and noisy else float(log_params[0])
    return ValleyMinimum(
        valley.flops,
        float(np.exp(centre)),
        float(loss[0]),
        len(valley.loss_n),
        log_params[1:][good],
        loss[1:][good],
        sd,
    )


def _parabola(
    valley: IsoFlopValley, loss_nr: np.ndarray, window: float | None, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Vertices (r,) and losses there (r,), NaN where a draw has none, and why the first has none."""
    x = valley.log_params_n
    near = np.ones(len(x), dtype=bool)
    if window is not None:
        centre = valley.sizes[mean.argmin()]
        near = np.abs(x - centre) <= np.log(window) + 1e-9
        if len(np.unique(valley.size_of[near])) < 3:
            near = np.isin(valley.size_of, np.argsort(np.abs(valley.sizes - centre), kind="stable")[:3])
    shift, x, loss_nr = x[near].mean(), x[near] - x[near].mean(), loss_nr[near]
    curve, tilt, level = np.linalg.pinv(np.vander(x, 3)) @ loss_nr
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -tilt / (2 * curve)
        lowest = level - tilt**2 / (4 * curve)
    inside = (vertex > x.min()) & (vertex < x.max())
    why = (
        "non-convex: the parabola opens downward"
        if curve[0] <= 0
        else f"out of range: the parabola's minimum, {np.exp(min(vertex[0] + shift, 700.0)):.3g}, is no size in between"
    )
    good = (curve > 0) & inside
    return np.where(good, vertex + shift, np.nan), np.where(good, lowest, np.nan), why


def akima_slopes(x: np.ndarray, y_kr: np.ndarray) -> np.ndarray:
    """Akima's derivative at every point (k, r): neighbouring slopes weighted by the change beyond each (Akima 1970)."""
    slopes = np.diff(y_kr, axis=0) / np.diff(x)[:, None]
    before = 2 * slopes[:1] - slopes[1:2] if len(slopes) > 1 else slopes[:1]
    earlier = 2 * before - slopes[:1]
    after = 2 * slopes[-1:] - slopes[-2:-1] if len(slopes) > 1 else slopes[-1:]
    later = 2 * after - slopes[-1:]
    m = np.concatenate([earlier, before, slopes, after, later])
    change = np.abs(np.diff(m, axis=0))
    left, right = change[2:], change[:-2]
    total = left + right
    flat = total <= 1e-9 * total.max(initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed = (left * m[1:-2] + right * m[2:-1]) / total
    return np.where(flat, (m[1:-2] + m[2:-1]) / 2, mixed)


def _akima(valley: IsoFlopValley, loss_nr: np.ndarray) -> tuple[np.ndarray, np.ndarray, str, float]:
    """What `_parabola` returns, by Akima interpolation of ln L on a fine grid, and the grid's spacing."""
    x = valley.sizes
    with np.errstate(invalid="ignore", divide="ignore"):  # a noise as large as the loss: such a draw has no minimum
        y = np.log(valley.by_size(loss_nr))
    grid = np.linspace(x[0], x[-1], GRID_PER_SIZE * (len(x) - 1))
    cell = np.clip(np.searchsorted(x, grid, side="right") - 1, 0, len(x) - 2)
    width = np.diff(x)[cell]
    t = (grid - x[cell]) / width
    # Hermite's cubic as one matrix: values and slopes of the sizes -> values on the grid.
    from_values, from_slopes = np.zeros((2, len(grid), len(x)))
    rows = np.arange(len(grid))
    from_values[rows, cell], from_values[rows, cell + 1] = (1 + 2 * t) * (1 - t) ** 2, t**2 * (3 - 2 * t)
    from_slopes[rows, cell], from_slopes[rows, cell + 1] = t * (1 - t) ** 2 * width, t**2 * (t - 1) * width
    with np.errstate(invalid="ignore"):
        curve = from_values @ y + from_slopes @ akima_slopes(x, y)  # all of it NaN where a loss is not positive
    lowest = curve.argmin(axis=0)
    good = (lowest > 0) & (lowest < len(grid) - 1)
    loss = np.exp(curve[lowest, np.arange(curve.shape[1])])
    why = "edge: the interpolated curve is lowest at its smallest or largest size"
    return np.where(good, grid[lowest], np.nan), np.where(good, loss, np.nan), why, float(grid[1] - grid[0])


def power_law(
    flops: np.ndarray,
    minima: Sequence[ValleyMinimum],
    draws: int,
    between: bool = True,
    seed: int = 0,
    equal: bool = False,
) -> MinimaLine:
    """Weighted regression of ln N* on ln C, in the data and in every draw that all budgets share.

    Weights are 1 / (sd^2 + tau^2). tau is the scatter of the minima that one run's noise does not explain, estimated so
    that chi^2 equals its degrees of freedom (Paule and Mandel 1982, doi 10.6028/jres.087.022), and added to the draws;
    `between` False adds none (tau = 0), as Porian 2024 does. `equal` gives every budget the weight 1.
    """
    x, y = np.log(flops), np.log([minimum.params for minimum in minima])
    a, shift, tau, weights = weighted_line(flops, minima, bool(draws), between, equal)
    residual = y - shift - a * x
    level, scale, gamma = loss_through(flops, np.array([[minimum.loss_nats] for minimum in minima]))
    samples = None
    if draws:
        shared = min(len(minimum.log_params_r) for minimum in minima)
        drawn = np.stack([minimum.log_params_r[:shared] for minimum in minima])
        drawn = drawn + tau * np.random.default_rng(seed).standard_normal(drawn.shape)
        a_r, shift_r = regress(x, drawn, weights[:, None])
        curve = loss_through(flops, np.stack([minimum.loss_r[:shared] for minimum in minima]))
        samples = {"G": np.exp(shift_r), "a": a_r, **dict(zip(("E", "A", "gamma"), curve))}
    unweighted, _ = regress(x, y[:, None], np.ones((len(x), 1)))
    return MinimaLine(
        G=float(np.exp(shift)),
        a=a,
        loss_curve=(float(level[0]), float(scale[0]), float(gamma[0])),
        samples=samples,
        objective=float(weights @ residual**2),
        unweighted=float(unweighted[0]),
        residual_sd=float(np.sqrt(residual @ residual / max(1, len(x) - 2))),
        expected_sd=float(np.sqrt(np.mean(_deviations(minima) ** 2))),
        unexplained_sd=tau,
        weights=weights,
    )


def weighted_line(
    flops: np.ndarray, minima: Sequence[ValleyMinimum], noisy: bool, between: bool = True, equal: bool = False
) -> tuple[float, float, float, np.ndarray]:
    """Slope and intercept of ln N* on ln C, tau, and the weights of the minima; all 1 where there are no draws."""
    x, y, sd = np.log(flops), np.log([minimum.params for minimum in minima]), _deviations(minima)
    noisy = noisy and bool((sd > 0).all())
    tau = _unexplained(x, y, sd) if noisy and between else 0.0
    weights = 1 / (sd**2 + tau**2) if noisy and not equal else np.ones(len(x))
    a, shift = regress(x, y[:, None], weights[:, None])
    return float(a[0]), float(shift[0]), tau, weights


def _deviations(minima: Sequence[ValleyMinimum]) -> np.ndarray:
    return np.array([minimum.log_params_sd for minimum in minima])


def _unexplained(x: np.ndarray, y: np.ndarray, sd: np.ndarray) -> float:
    """tau: 0 where chi^2 about the line is no larger than its k - 2 degrees of freedom."""

    def excess(tau: float) -> float:
        weights = 1 / (sd**2 + tau**2)
        slope, shift = regress(x, y[:, None], weights[:, None])
        return float(weights @ (y - shift[0] - slope[0] * x) ** 2) - (len(x) - 2)

    if len(x) < 3 or excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, 10 * float(np.std(y)) + 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2
