"""The bias of an interpolated minimum: that of the same sizes on a noiseless law, whose minimum is known.

A parabola in ln N is symmetric and a valley is not: its minimum is pulled to the flatter side, the more the wider the
sizes and the more alpha differs from beta (Czech 2026, arXiv 2603.22339). Noise draws cannot show this. The gap is
known only as well as the law that it is computed on, so it is not subtracted from the estimate, but from every second
draw. Where the gap is small beside the noise, intervals hardly change; where it is large, they reach from one answer to
the other and cover a truth at either end at their stated rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.approaches import isoflop_minima
from lmscale.study.fits.approaches.isoflop_valleys import IsoFlopValley
from lmscale.study.fits.results.isoflop import InterpolationBias
from lmscale.study.fits.runs import UsableRuns
from lmscale.study.fits.solvers.power_law import regress
from lmscale.study.laws import HOFFMANN_2022, Chinchilla, ComputeModel


@dataclass(frozen=True)
class InterpolationGaps:
    """Interpolated minus true at every minimum (k,), in ln N* and in nats; zero where the law's valley has none."""

    flops: np.ndarray
    log_params: np.ndarray
    loss_nats: np.ndarray
    known: np.ndarray
    law: str

    def in_half_the_draws(self, minima: Sequence[isoflop_minima.ValleyMinimum]) -> list[isoflop_minima.ValleyMinimum]:
        """The minima with every second draw less its gap: the same draws at every budget."""
        out = []
        for minimum, log_params, loss in zip(minima, self.log_params, self.loss_nats):
            half = np.arange(len(minimum.loss_r)) % 2
            less = {"log_params_r": minimum.log_params_r - half * log_params, "loss_r": minimum.loss_r - half * loss}
            out.append(replace(minimum, **less))
        return out

    def along(self, weights: np.ndarray, in_draws: bool) -> InterpolationBias | None:
        """What the gaps do to the line whose minima have these `weights` (k,). None for fewer than two."""
        if self.known.sum() < 2:
            return None
        x, gap = np.log(self.flops[self.known]), self.log_params[self.known]
        slope, shift = regress(x, gap[:, None], weights[self.known][:, None])
        return InterpolationBias(float(slope[0]), float(shift[0]), float(np.mean(gap)), self.law, in_draws)


@dataclass(frozen=True)
class NoiselessValleys:
    """The same sizes and budgets on a law whose optimum is known."""

    law: Chinchilla
    whose: str
    valleys: list[IsoFlopValley]


def noiseless_valleys(runs: UsableRuns, valleys: Sequence[IsoFlopValley], compute: ComputeModel) -> NoiselessValleys:
    """On Approach 3's law of the same runs, or on Hoffmann's where that cannot be identified."""
    law, whose = _known_law(runs)
    exact = []
    for valley in valleys:
        params = np.exp(valley.log_params_n)
        loss = np.asarray(law.loss(params, compute.tokens(valley.flops, params)))
        exact.append(replace(valley, loss_n=loss))
    return NoiselessValleys(law, whose, exact)


def gaps(
    noiseless: NoiselessValleys,
    minima: Sequence[isoflop_minima.ValleyMinimum],
    *,
    method: str,
    window: float | None,
    compute: ComputeModel,
) -> InterpolationGaps:
    """The gaps of `method` at the budgets of the minima `kept`."""
    rng = np.random.default_rng(0)
    valleys = {valley.flops: valley for valley in noiseless.valleys}
    flops = np.array([own.flops for own in minima])
    log_params, loss_nats = np.full((2, len(minima)), np.nan)
    for index, budget in enumerate(flops):
        minimum = isoflop_minima.valley_minimum(valleys[budget], method, noise_r=np.zeros(1), rng=rng, window=window)
        if not isinstance(minimum, str):
            truth = noiseless.law.optimum(budget, compute)
            log_params[index] = np.log(minimum.params / truth.params)
            loss_nats[index] = minimum.loss_nats - truth.loss_nats
    known = np.isfinite(log_params)
    return InterpolationGaps(
        flops, np.where(known, log_params, 0.0), np.where(known, loss_nats, 0.0), known, noiseless.whose
    )


def _known_law(runs: UsableRuns) -> tuple[Chinchilla, str]:
    from lmscale.study.fits.approaches.parametric import loss_law

    try:
        own = loss_law(runs.table, resamples=0, check=False)
    except UserError:
        return HOFFMANN_2022, "Hoffmann's published law"
    if isinstance(own.law, Chinchilla) and not any(status.name == "cannot be identified" for status in own.status):
        return own.law, "Approach 3's law of this table"
    return HOFFMANN_2022, "Hoffmann's published law"
