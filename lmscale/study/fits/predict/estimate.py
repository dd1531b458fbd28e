"""One number for the loss of a new run where a wrong number costs more on one side than on the other."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmscale.core.arguments import Level, Number, checked
from lmscale.core.errors import UserError
from lmscale.study.fits.results.common import Prediction
from lmscale.study.fits.results.notebook import Printed

if TYPE_CHECKING:
    from lmscale.study.fits.results.loss_law import LossLaw


@dataclass(frozen=True)
class Estimate(Printed):
    """The loss to state for a new run, in nats per token or the law's own target, and how it was chosen."""

    loss_nats: float
    share: float
    """The probability, by the fit, that the run comes out below it."""
    over: float
    under: float
    """What each nat costs that the estimate lies above the run, and below it."""
    prediction: Prediction
    """The loss by the law, with its intervals."""

    def to_json(self) -> dict[str, object]:
        return {
            **self.prediction.to_json(),
            "estimate": {"loss_nats": self.loss_nats, "share": self.share, "over": self.over, "under": self.under},
        }

    def __str__(self) -> str:
        return (
            f"{self.prediction}; the estimate that costs least, where a nat too high costs {self.over:g} and a nat too "
            f"low {self.under:g}: {self.loss_nats:.4f}, below which {100 * self.share:.3g} % of such runs come out"
        )


@checked
def estimate(fit: "LossLaw", over: Number, under: Number, level: Level = 0.95, **inputs: float) -> Estimate:
    """The loss of least expected cost at `inputs`: each nat above what the run then has costs `over`, below it `under`.

    It is the under / (over + under) quantile of one new run (Koenker and Bassett 1978), by the
    distribution whose central intervals `LossLaw.predict` states; equal costs give its median. Raises `UserError` for
    costs that are not positive, for a fit without intervals, and as `predict` does.
    """
    for name, cost in (("over", over), ("under", under)):
        if not 0 < cost < math.inf:
            raise UserError(f"a nat {name} costs {cost:g}: give a positive number, of any unit that both costs share")
    share = under / (over + under)
    low, high = fit.predict(abs(2 * share - 1), **inputs).interval  # whose ends are the quantile and its mirror
    loss = high if share >= 0.5 else low
    if math.isnan(loss):
        raise UserError(
            "the fit states no interval of one new run, of which the estimate is a quantile; fit with resamples=4000"
        )
    return Estimate(loss, share, over, under, fit.predict(level, **inputs))
