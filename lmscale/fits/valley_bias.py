"""How far an interpolated valley lies from the true one, by the same sizes on a law whose answer is known.

A parabola in ln N is symmetric and a valley is not: its minimum is pulled to the flatter side, the more the wider the
sizes and the more alpha differs from beta (Czech 2026, arXiv 2603.22339). Noise draws cannot show this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.errors import UserError
from lmscale.fits import minima
from lmscale.fits.powerfit import regress
from lmscale.fits.result import Status, clean
from lmscale.fits.runs import Runs
from lmscale.fits.valley_noise import Valley
from lmscale.laws import HOFFMANN_2022, Chinchilla

if TYPE_CHECKING:
    from lmscale.fits.valleys import IsoFlop

NOTABLE = 0.01  # in a, or relative in N*


@dataclass(frozen=True)
class Bias:
    """Found less true, on a noiseless law: `a` of N* = G C^a, `log_G` of ln G, and the mean of ln N* at the budgets."""

    a: float
    log_G: float
    log_params: float
    law: str
    """Whose law it is."""

    def to_json(self) -> dict[str, Any]:
        return dict(clean(self.__dict__))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Bias":
        return cls(**{name: value[name] for name in ("a", "log_G", "log_params", "law")})

    def status(self, method: str) -> Status:
        said = (
            f"on {self.law} without noise, these sizes give N* off by {100 * np.expm1(self.log_params):+.2f} % "
            f"on average and a off by {self.a:+.4f} ({method}); noise draws do not show this; the "
            f"widened intervals hold it"
        )
        notable = max(abs(self.a), abs(self.log_params)) > NOTABLE
        return Status("bias of the interpolation", said, "note" if notable else "ok")


def of_valleys(
    fit: "IsoFlop",
    runs: Runs,
    valleys: Sequence[Valley],
    kept: Sequence[minima.Found],
    weights: np.ndarray,
) -> Bias | None:
    """The bias of `fit` at its own budgets and sizes; `weights` (k,) are its line's. None for fewer than two minima.

    The law is Approach 3's on the same runs, or Hoffmann's constants where that cannot be identified.
    """
    law, whose = _known_law(runs)
    rng = np.random.default_rng(0)
    x, gap, weight = [], [], []
    for valley, own, one in zip(valleys, kept, weights):
        params = np.exp(valley.log_params_n)
        loss = np.asarray(law.loss(params, fit.compute.tokens(valley.flops, params)))
        ideal = Valley(valley.flops, valley.log_params_n, loss, valley.names)
        found = minima.find(ideal, fit.method, noise_r=np.zeros(1), rng=rng, window=fit.window)
        if not isinstance(found, str):
            truth = float(law.optimum(own.flops, fit.compute).params)
            x.append(np.log(own.flops))
            gap.append(np.log(found.params / truth))
            weight.append(one)
    if len(x) < 2:
        return None
    slope, shift = regress(np.array(x), np.array(gap)[:, None], np.array(weight)[:, None])
    return Bias(float(slope[0]), float(shift[0]), float(np.mean(gap)), whose)


def _known_law(runs: Runs) -> tuple[Chinchilla, str]:
    from lmscale.fits.parametric import loss_law

    try:
        own = loss_law(runs.table, resamples=0, check=False)
    except UserError:
        return HOFFMANN_2022, "Hoffmann's published law"
    if isinstance(own.law, Chinchilla) and not any(status.name == "cannot be identified" for status in own.status):
        return own.law, "Approach 3's law of this table"
    return HOFFMANN_2022, "Hoffmann's published law"
