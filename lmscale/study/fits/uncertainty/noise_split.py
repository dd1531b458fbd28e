"""Seed, evaluation and search noise of a table's runs, each from the rows or columns that tell it alone.

Runs that differ in their seed alone share evaluation and tuning: they tell the seed's noise (with that of the sample of
text, where every run draws its own). Standard errors of the losses tell the sample's. Runs of one cell at several
learning rates tell how far the best rate tried lies above the valley's minimum, which differs from cell to cell.
"""

import math
from collections.abc import Sequence

import numpy as np

from lmscale.core.errors import UserError
from lmscale.core.quantities import Z_95, counted
from lmscale.study.fits.results.noise_split import NoiseSplit
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.fits.uncertainty import seed_noise


def noise_split(runs: UsableRuns, inputs: Sequence[str], target: str) -> NoiseSplit:
    """The parts of one run's noise that the table tells."""
    return NoiseSplit(_seed(runs, inputs, target), _evaluation(runs, target), runs.search_noise)


def _seed(runs: UsableRuns, inputs: Sequence[str], target: str) -> RunNoise | None:
    try:
        return seed_noise.estimate(runs, inputs, target)
    except UserError:
        return None


def _evaluation(runs: UsableRuns, target: str) -> RunNoise | None:
    """From the standard errors of the losses, or their 95 % intervals."""
    stem = target.removesuffix("_nats")
    ends = [f"{stem}_lo95", f"{stem}_hi95"]
    if f"{stem}_stderr" in runs.table:
        errors, what = runs.column(f"{stem}_stderr"), "standard errors"
    elif set(ends) <= set(runs.table):
        errors, what = (runs.column(ends[1]) - runs.column(ends[0])) / (2 * Z_95), "95 % intervals"
    else:
        return None
    errors = errors[np.isfinite(errors) & (errors > 0)]
    if not len(errors):
        return None
    source = f"the {what} of {counted(len(errors), 'run')}; common to runs scored on one sample"
    return RunNoise(math.sqrt(float((errors**2).mean())), source, None)
