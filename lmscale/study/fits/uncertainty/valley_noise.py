"""The valleys of a table, one per budget, and the noise of one run that they betray.

Axes: k sizes of a budget, n runs of a budget, r noise draws; the draw index last. ln N is the abscissa throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmscale.study.fits.runs import Runs

MISFIT = 3.0  # parabolas that miss the runs by more than this many noises describe no valley
SAME_SIZE = 0.02  # sizes closer than 2 % are one: interpolation between them would amplify noise


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


def parabola_noise(of: Sequence[Valley], ideal: Sequence[Valley] = ()) -> Noise:
    """The noise by the scatter about the parabolas: where they fit, the estimate with the most degrees of freedom.

    `ideal` holds the same runs with a law's losses: what a parabola misses of those is not noise, and comes off.
    """
    scatter, freedom = about_parabolas(of)
    if ideal:
        less = [replace(valley, loss_n=valley.loss_n - other.loss_n) for valley, other in zip(of, ideal)]
        scatter = min(scatter, about_parabolas(less)[0])
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
        f"{noise_nats:.4f}: the valleys are too wide for them, or a run is wrong"
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
