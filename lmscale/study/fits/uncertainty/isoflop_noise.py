"""The noise of one run, as the IsoFLOP valleys of a table show it.

Axes: k sizes of a budget, n runs of a budget, r noise draws; the draw index last. ln N is the abscissa throughout.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmscale.study.fits.approaches.isoflop_valleys import IsoFlopValley
from lmscale.study.fits.results.run_noise import RunNoise

MISFIT = 3.0  # parabolas that miss the runs by more than this many noises describe no valley


def noise(valleys: Sequence[IsoFlopValley]) -> RunNoise:
    """The standard deviation of one run's loss in nats, and where it comes from."""
    squares, freedom = 0.0, 0
    for valley in valleys:
        mean = valley.by_size(valley.loss_n[:, None])[:, 0]
        squares += float(np.sum((valley.loss_n - mean[valley.size_of]) ** 2))
        freedom += len(valley.loss_n) - len(valley.sizes)
    if freedom >= 3:
        return RunNoise(float(np.sqrt(squares / freedom)), f"equal runs, {freedom} degrees of freedom", freedom)
    contrasts = np.concatenate([third_differences(valley) for valley in valleys])
    if len(contrasts) >= 5:
        sd = float(np.median(np.abs(contrasts)) / 0.6745)
        source = f"third differences of neighbouring sizes, {len(contrasts)} of them, by their median"
        return RunNoise(sd, source, max(2.0, 0.37 * len(contrasts)))  # 0.37: the efficiency of a median absolute value
    return parabola_noise(valleys)


def parabola_noise(valleys: Sequence[IsoFlopValley], noiseless: Sequence[IsoFlopValley] = ()) -> RunNoise:
    """The noise by the scatter about the parabolas: where they fit, the estimate with the most degrees of freedom.

    `noiseless` holds the same runs with a law's losses: what a parabola misses of those is no noise, and is subtracted.
    """
    scatter, freedom = about_parabolas(valleys)
    if noiseless:
        less = [replace(valley, loss_n=valley.loss_n - other.loss_n) for valley, other in zip(valleys, noiseless)]
        scatter = min(scatter, about_parabolas(less)[0])
    if freedom < 1:
        return RunNoise(0.0, "unknown: three sizes per budget and no repeated run do not determine it", None)
    return RunNoise(scatter, f"scatter about the parabolas, {freedom} degrees of freedom", freedom)


def about_parabolas(valleys: Sequence[IsoFlopValley]) -> tuple[float, int]:
    """The runs' scatter about one parabola per budget over all its sizes, in nats, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for valley in valleys:
        if len(valley.sizes) > 3:
            design = np.vander(valley.log_params_n - valley.log_params_n.mean(), 3)
            squares += float(
                np.sum((valley.loss_n - design @ np.linalg.lstsq(design, valley.loss_n, rcond=None)[0]) ** 2)
            )
            freedom += len(valley.loss_n) - 3
    return float(np.sqrt(squares / max(freedom, 1))), freedom


def choose(valleys: Sequence[IsoFlopValley], noise_nats: float) -> tuple[str, str]:
    """Parabolas where they describe the valleys as well as one run's noise allows, Akima where they do not; and why.

    Wide valleys are steeper on one side: a parabola through all of them is pulled to the flatter one.
    """
    scatter, freedom = about_parabolas(valleys)
    if freedom < 1 or noise_nats <= 0 or scatter <= MISFIT * noise_nats:
        return (
            "parabola",
            f"runs scatter by {scatter:.4f} nats about the parabolas, and by {noise_nats:.4f} from run to run",
        )
    return "akima", (
        f"parabolas miss the runs by {scatter:.4f} nats, {scatter / noise_nats:.1f} times one run's noise of "
        f"{noise_nats:.4f}: the valleys are too wide for them, or a run is wrong"
    )


def third_differences(valley: IsoFlopValley) -> np.ndarray:
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
