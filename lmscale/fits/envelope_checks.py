"""The doubts a reader should have about an envelope, each answered by a named status."""

import math

import numpy as np

from lmscale.fits.curves import Curves
from lmscale.fits.powerfit import regress
from lmscale.fits.result import Status
from lmscale.fits.runs import Runs

NEAR_FLOPS = math.log(1.3)  # runs whose compute differs by less compete


def ends(curves: Curves, log_flops: np.ndarray, who: np.ndarray, on: np.ndarray, a: float) -> list[Status]:
    """Where the smallest or largest model holds the envelope, no better size was there to be chosen."""
    sizes = curves.log_params[who]
    inner = on & (sizes > curves.log_params.min()) & (sizes < curves.log_params.max())
    share = 1 - inner.sum() / on.sum()
    if inner.sum() < 3:
        return [
            Status(
                "envelope ends",
                "the envelope is held by the smallest and largest models alone: the exponent is arbitrary",
                "warning",
            )
        ]
    slope, _ = regress(log_flops[inner], sizes[inner][:, None], np.ones((int(inner.sum()), 1)))
    return [
        Status(
            "envelope ends",
            f"{100 * share:.0f} % of the envelope belongs to the smallest or largest model; without these "
            f"points a = {float(slope[0]):.4f} instead of {a:.4f}",
            "warning" if share > 0.3 else "note" if share > 0.1 else "ok",
        )
    ]


def contested(curves: Curves, log_flops: np.ndarray, who: np.ndarray, on: np.ndarray) -> list[Status]:
    """Where no other size was run at a point's compute, the envelope repeats the design, not the losses."""
    ends = [(x.min() - NEAR_FLOPS, x.max() + NEAR_FLOPS) for x in curves.log_flops]
    sizes = curves.log_params
    alone = 0
    for x, winner in zip(log_flops[on], who[on]):
        rivals = [low <= x <= high and abs(size - sizes[winner]) > 0.02 for (low, high), size in zip(ends, sizes)]
        alone += not any(rivals)
    said = f"at {alone} of {int(on.sum())} points of the envelope no other size was run within 30 % of their compute"
    if alone <= 0.5 * on.sum():
        return []
    return [Status("envelope not contested", f"{said}: a is that of the design, not of the losses", "warning")]


def schedules(runs: Runs, curves: Curves) -> list[Status]:
    columns = {"schedule", "fraction_of_schedule", "portion_steps_elapsed"} & set(map(str, runs.table.columns))
    if max(map(len, curves.loss)) > 1 and not columns:
        return [
            Status(
                "schedules unknown",
                "the curves have points inside a run, and the table does not say whether the learning rate was "
                "constant there: inside a decaying schedule the loss is too high for its compute",
                "warning",
            )
        ]
    return []
