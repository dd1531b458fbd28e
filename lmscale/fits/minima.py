"""Where each IsoFLOP valley is lowest, in the data and in noise draws, and the power law through the minima.

Axes: k sizes of a budget, r noise draws; the draw index last. ln N is the abscissa throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmscale.fits.powerfit import loss_through, regress
from lmscale.fits.runs import Runs

METHODS = ("auto", "parabola", "akima")
GRID_PER_SIZE = 25  # Akima's minimum is looked for on 25 (k - 1) points (Porian 2024)
GRID_FLOOR = 0.33 * GRID_PER_SIZE  # Porian's floor of a minimum's s.d., in grid steps: a third of the spacing of sizes
MISFIT = 3.0  # parabolas that miss the runs by more than this many noises describe no valley
SAME_SIZE = 0.02  # sizes closer than 2 % are one: interpolation between them would amplify noise
DIP = 0.25  # an interpolated minimum may lie below the lowest run by this share of the valley's depth
LEAST_KEPT = 0.5  # a budget that loses more of its draws has no reliable minimum


@dataclass(frozen=True)
class Valley:
    """The runs of one budget, sorted by size: ln N (k,) and loss (k,), equal sizes side by side."""

    flops: float
    log_params_n: np.ndarray
    loss_n: np.ndarray
    names: tuple[str, ...]

    @property
    def size_of(self) -> np.ndarray:
        """Which size each run has (n,): runs whose N differ by less than `SAME_SIZE` in ln N count as one size."""
        return np.concatenate([[0], np.cumsum(np.diff(self.log_params_n) > SAME_SIZE)])

    @property
    def sizes(self) -> np.ndarray:
        """ln N of every size (k,)."""
        return self.by_size(self.log_params_n[:, None])[:, 0]

    def by_size(self, values_nr: np.ndarray) -> np.ndarray:
        """Means over the runs of one size, (k, r)."""
        where = self.size_of
        total = np.zeros((where[-1] + 1, values_nr.shape[1]))
        np.add.at(total, where, values_nr)
        return total / np.bincount(where)[:, None]


@dataclass(frozen=True)
class Found:
    """One budget's minimum; `log_params_r` and `loss_r` hold the draws that have one."""

    flops: float
    params: float
    loss_nats: float
    n_runs: int
    log_params_r: np.ndarray
    loss_r: np.ndarray
    log_params_sd: float


@dataclass(frozen=True)
class Line:
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
    """What one run's noise alone would give."""
    unexplained_sd: float
    """tau: the rest, which the weights and the draws include."""


def valleys(runs: Runs, budgets: np.ndarray) -> list[Valley]:
    """One valley per distinct budget, smallest first."""
    log_params, loss = np.log(runs.column("params")), runs.column("loss_nats")
    out = []
    for flops in np.unique(budgets[np.isfinite(budgets)]):
        member = np.flatnonzero(budgets == flops)
        order = member[np.argsort(log_params[member], kind="stable")]
        out.append(Valley(float(flops), log_params[order], loss[order], tuple(runs.names[i] for i in order)))
    return out


@dataclass(frozen=True)
class Noise:
    """The standard deviation of one run's loss in nats, its source, and how many degrees of freedom tell it."""

    sd: float
    source: str
    freedom: float | None
    """None where it is given and so certain."""

    def draws(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """One standard deviation per draw, (count,): an estimated one is itself uncertain, as Student's t knows."""
        if self.freedom is None or self.sd == 0:
            return np.full(count, self.sd)
        return np.asarray(self.sd * np.sqrt(self.freedom / rng.chisquare(self.freedom, size=count)))


def noise(of: Sequence[Valley]) -> Noise:
    """The standard deviation of one run's loss in nats, and where it comes from."""
    squares, freedom = 0.0, 0
    for valley in of:
        mean = valley.by_size(valley.loss_n[:, None])[:, 0]
        squares += float(np.sum((valley.loss_n - mean[valley.size_of]) ** 2))
        freedom += len(valley.loss_n) - len(valley.sizes)
    if freedom >= 3:
        return Noise(float(np.sqrt(squares / freedom)), f"equal runs, {freedom} degrees of freedom", freedom)
    contrasts = np.concatenate([third_differences(valley) for valley in of])
    if len(contrasts) >= 5:
        sd = float(np.median(np.abs(contrasts)) / 0.6745)
        said = f"third differences of neighbouring sizes, {len(contrasts)} of them, by their median"
        return Noise(sd, said, max(2.0, 0.37 * len(contrasts)))  # 0.37: the efficiency of a median absolute value
    return parabola_noise(of)


def parabola_noise(of: Sequence[Valley]) -> Noise:
    """The noise by the scatter about the parabolas: where they fit, the estimate with the most degrees of freedom."""
    scatter, freedom = about_parabolas(of)
    if freedom < 1:
        return Noise(0.0, "unknown: three sizes per budget and no repeated run leave nothing to judge it by", None)
    return Noise(scatter, f"scatter about the parabolas, {freedom} degrees of freedom", freedom)


def about_parabolas(of: Sequence[Valley]) -> tuple[float, int]:
    """The runs' scatter about one parabola per budget over all its sizes, in nats, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for valley in of:
        if len(valley.sizes) > 3:
            design = np.vander(valley.log_params_n - valley.log_params_n.mean(), 3)
            squares += float(
                np.sum((valley.loss_n - design @ np.linalg.lstsq(design, valley.loss_n, rcond=None)[0]) ** 2)
            )
            freedom += len(valley.loss_n) - 3
    return float(np.sqrt(squares / max(freedom, 1))), freedom


def choose(of: Sequence[Valley], noise_nats: float) -> tuple[str, str]:
    """Parabolas where they describe the valleys as well as one run's noise allows, Akima where they do not; and why.

    Wide valleys are steeper on one side: a parabola through all of them is pulled to the flatter one.
    """
    scatter, freedom = about_parabolas(of)
    if freedom < 1 or noise_nats <= 0 or scatter <= MISFIT * noise_nats:
        return (
            "parabola",
            f"runs scatter by {scatter:.4f} nats about the parabolas, and by {noise_nats:.4f} by themselves",
        )
    return "akima", (
        f"parabolas miss the runs by {scatter:.4f} nats, {scatter / noise_nats:.1f} times one run's noise of "
        f"{noise_nats:.4f}: the valleys are too wide for them"
    )


def third_differences(valley: Valley) -> np.ndarray:
    """What no parabola through four neighbouring sizes explains, scaled to one run's noise: (k - 3,).

    Unlike the scatter about one parabola over all sizes, it does not take the valley's own asymmetry for noise.
    """
    x, y = valley.sizes, valley.by_size(valley.loss_n[:, None])[:, 0]
    out = []
    for start in range(len(x) - 3):
        four = x[start : start + 4]
        weight = np.array([1 / np.prod(np.delete(value - four, index)) for index, value in enumerate(four)])
        out.append(float(weight @ y[start : start + 4] / np.linalg.norm(weight)))
    return np.array(out)


def find(
    valley: Valley, method: str, *, noise_r: np.ndarray, rng: np.random.Generator, window: float | None
) -> Found | str:
    """The minimum of a valley, or the sentence that says why it has none that can be trusted."""
    if len(valley.sizes) < 3:
        return f"{len(valley.sizes)} model sizes; a minimum needs at least 3"
    mean = valley.by_size(valley.loss_n[:, None])[:, 0]
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
    kept = int(good.sum())
    if kept < LEAST_KEPT * draws:
        return f"unstable: only {kept} of {draws} noise draws have a minimum inside the sizes"
    spread = float(log_params[1:][good].std())
    sd = max(spread, GRID_FLOOR * spacing) * draws / kept
    # Akima's grid minimum jumps; the median of the draws is the steadier centre (Porian 2024).
    centre = float(np.median(log_params[1:][good])) if method == "akima" and noisy else float(log_params[0])
    return Found(
        valley.flops,
        float(np.exp(centre)),
        float(loss[0]),
        len(valley.loss_n),
        log_params[1:][good],
        loss[1:][good],
        sd,
    )


def _parabola(
    valley: Valley, loss_nr: np.ndarray, window: float | None, mean: np.ndarray
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


def _akima(valley: Valley, loss_nr: np.ndarray) -> tuple[np.ndarray, np.ndarray, str, float]:
    """As `_parabola`, by Akima interpolation of ln L on a fine grid, and the grid's spacing."""
    x = valley.sizes
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
    curve = from_values @ y + from_slopes @ akima_slopes(x, y)
    lowest = curve.argmin(axis=0)
    good = (lowest > 0) & (lowest < len(grid) - 1)
    loss = np.exp(curve[lowest, np.arange(curve.shape[1])])
    why = "edge: the interpolated curve is lowest at its smallest or largest size"
    return np.where(good, grid[lowest], np.nan), np.where(good, loss, np.nan), why, float(grid[1] - grid[0])


def power_law(flops: np.ndarray, kept: Sequence[Found], draws: int, between: bool = True, seed: int = 0) -> Line:
    """Weighted regression of ln N* on ln C, in the data and in every draw that all budgets share.

    Weights are 1 / (sd^2 + tau^2). tau is the scatter of the minima that one run's noise does not explain, estimated so
    that chi^2 equals its degrees of freedom (Paule and Mandel 1982, doi 10.6028/jres.087.022), and added to the draws;
    `between` False takes the noise at its word (tau = 0), as Porian 2024 does.
    """
    x, sd = np.log(flops), np.array([found.log_params_sd for found in kept])
    y = np.log([found.params for found in kept])
    noisy = bool(draws) and bool((sd > 0).all())
    tau = _unexplained(x, y, sd) if noisy and between else 0.0
    weights = 1 / (sd**2 + tau**2) if noisy else np.ones(len(x))
    a, shift = regress(x, y[:, None], weights[:, None])
    residual = y - shift[0] - a[0] * x
    level, scale, gamma = loss_through(flops, np.array([[found.loss_nats] for found in kept]))
    samples = None
    if draws:
        shared = min(len(found.log_params_r) for found in kept)
        drawn = np.stack([found.log_params_r[:shared] for found in kept])
        drawn = drawn + tau * np.random.default_rng(seed).standard_normal(drawn.shape)
        a_r, shift_r = regress(x, drawn, weights[:, None])
        curve = loss_through(flops, np.stack([found.loss_r[:shared] for found in kept]))
        samples = {"G": np.exp(shift_r), "a": a_r, **dict(zip(("E", "A", "gamma"), curve))}
    unweighted, _ = regress(x, y[:, None], np.ones((len(x), 1)))
    return Line(
        G=float(np.exp(shift[0])),
        a=float(a[0]),
        loss_curve=(float(level[0]), float(scale[0]), float(gamma[0])),
        samples=samples,
        objective=float(weights @ residual**2),
        unweighted=float(unweighted[0]),
        residual_sd=float(np.sqrt(residual @ residual / max(1, len(x) - 2))),
        expected_sd=float(np.sqrt(np.mean(sd**2))),
        unexplained_sd=tau,
    )


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
