"""A table of an IsoFLOP sweep whose losses follow a known law."""

import numpy as np
import pandas as pd

from lmscale.study.fits.results.loss_law import LossLaw
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT

BUDGETS = (1e17, 1e18, 1e19)


def isoflop_table(noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Seven sizes at each of three budgets; `noise` is the standard deviation of ln L."""
    return simulate(CHINCHILLA_REFIT, isoflop_design(CHINCHILLA_REFIT, BUDGETS), noise, np.random.default_rng(seed))


def named(fit: LossLaw) -> dict[str, str]:
    """The sentences of a fit's statuses, by name."""
    return {status.name: status.sentence for status in fit.status}


def sentences(runs: UsableRuns) -> dict[str, str]:
    """The same of the runs that a fit may use."""
    return {status.name: status.sentence for status in runs.statuses}
