"""Was the prediction right? Held-out runs against the fits that did not see them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.fits.options import read
from lmscale.study.fits.results.common import Prediction, clean, percentiles, span
from lmscale.study.tables import flags

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits.options import TableSource
    from lmscale.study.fits.results.isoflop import IsoFlop
    from lmscale.study.fits.results.loss_law import LossLaw


@dataclass(frozen=True)
class HeldOutRun:
    """One run that was not fitted. Losses in nats per token; `error` is predicted / measured - 1."""

    run: str
    prediction: Prediction
    measured: float

    @property
    def error(self) -> float:
        return self.prediction.loss_nats / self.measured - 1

    @property
    def inside(self) -> bool:
        low, high = self.prediction.interval
        return low <= self.measured <= high


@dataclass(frozen=True)
class HeldOutBudget:
    """A held-out budget's own minimum beside the one extrapolated to it."""

    flops: float
    predicted_params: float
    predicted_interval: tuple[float, float]
    measured_params: float | None
    """None where the budget has no minimum that can be trusted; `reason` says why."""
    measured_interval: tuple[float, float]
    predicted_loss_nats: float
    measured_loss_nats: float | None
    reason: str = ""

    @property
    def agree(self) -> bool | None:
        """Whether the two intervals overlap; None where the budget has no minimum."""
        if self.measured_params is None:
            return None
        return (
            self.predicted_interval[0] <= self.measured_interval[1]
            and self.measured_interval[0] <= self.predicted_interval[1]
        )


@dataclass(frozen=True)
class HeldOut:
    """The verdict on one fit: runs (Approach 3) or budgets (Approach 2)."""

    approach: str
    level: float
    runs: tuple[HeldOutRun, ...] = ()
    budgets: tuple[HeldOutBudget, ...] = ()

    @property
    def coverage(self) -> float:
        """Share of held-out runs whose loss lies inside its prediction interval; NaN without runs."""
        return sum(run.inside for run in self.runs) / len(self.runs) if self.runs else math.nan

    def to_json(self) -> dict[str, Any]:
        return clean(
            {
                "approach": self.approach,
                "level": self.level,
                "coverage": self.coverage,
                "runs": [
                    {
                        "run": r.run,
                        "measured": r.measured,
                        "error": r.error,
                        "inside": r.inside,
                        **r.prediction.to_json(),
                    }
                    for r in self.runs
                ],
                "budgets": [{**b.__dict__, "agree": b.agree} for b in self.budgets],
            }
        )

    def __str__(self) -> str:
        lines = []
        if self.runs:
            errors = np.array([run.error for run in self.runs])
            lines.append(
                f"Held-out runs, Approach {self.approach}: {sum(r.inside for r in self.runs)} of {len(self.runs)} "
                f"losses inside "
                f"their {100 * self.level:g} % prediction interval; mean error {100 * errors.mean():+.2f} %, "
                f"largest {100 * np.abs(errors).max():.2f} %"
            )
            for run in self.runs:
                inputs = ", ".join(f"{name} {value:.4g}" for name, value in run.prediction.inputs.items())
                lines.append(
                    f"  {run.run}: {inputs}: predicted {run.prediction.loss_nats:.4f} "
                    f"{span(run.prediction.interval, '.4f')}, "
                    f"measured {run.measured:.4f} ({100 * run.error:+.2f} %){'' if run.inside else '  OUTSIDE'}"
                )
        for budget in self.budgets:
            line = f"  {budget.flops:.4g} FLOPs: extrapolated N* = {budget.predicted_params:.4g} "
            line += span(budget.predicted_interval)
            if budget.measured_params is None:
                line += f"; its own runs give no minimum ({budget.reason})"
            else:
                line += (
                    f", its own runs {budget.measured_params:.4g} {span(budget.measured_interval)} "
                    f"({100 * (budget.predicted_params / budget.measured_params - 1):+.1f} %): "
                    f"the intervals {'overlap' if budget.agree else 'DO NOT overlap'}"
                )
            lines.append(line)
        return "\n".join(lines)


def held_out_check(fit: "LossLaw | IsoFlop", table: "TableSource", level: float = 0.95) -> HeldOut:
    """Check a fit on the rows of `table` marked `held_out` (on every row where none is marked).

    A loss law predicts each run's loss, with the interval of one new run. An IsoFLOP fit extrapolates N* to each
    held-out budget, where the budget's own minimum is estimated by the same method. Raises `UserError` where no row can
    be checked.
    """
    from lmscale.study.fits.results.loss_law import LossLaw

    rows = read(table)
    if "held_out" in rows and (marked := flags(rows, "held_out")).any():
        rows = rows[marked]
    if isinstance(fit, LossLaw):
        return _runs(fit, rows, level)
    return _budgets(fit, rows, level)


def _runs(fit: "LossLaw", table: "pd.DataFrame", level: float) -> HeldOut:
    target = fit.law.TARGET
    table = table[table[[*fit.law.INPUTS, target]].notna().all(axis=1)]
    if not len(table):
        raise UserError("no held-out run has a measured loss: run the held-out points first")
    runs = tuple(
        HeldOutRun(
            str(row["run"]),
            fit.predict(level, **{name: float(row[name]) for name in fit.law.INPUTS}),
            float(row[target]),
        )
        for _, row in table.iterrows()
    )
    return HeldOut(fit.approach, level, runs)


def _budgets(fit: "IsoFlop", table: "pd.DataFrame", level: float) -> HeldOut:
    from lmscale.study.fits.approaches import isoflop_minima
    from lmscale.study.fits.approaches.isoflop_valleys import valleys_of
    from lmscale.study.fits.results.run_noise import RunNoise
    from lmscale.study.fits.runs import usable

    table = table.drop(columns=[name for name in ("held_out",) if name in table])
    if "flops_budget" not in table or not table["flops_budget"].notna().any():
        raise UserError("no held-out run states its compute budget: an IsoFLOP fit is checked at budgets")
    runs = usable(table, ("params",), rates=fit.rates)
    draws = fit.resamples
    budgets = []
    rng = np.random.default_rng(0)
    noise_r = RunNoise(fit.noise_nats, "", fit.noise_freedom).draws(draws, rng) if draws else np.zeros(1)
    for valley in valleys_of(runs, runs.column("flops_budget")):
        optimum = fit.optimum(valley.flops)
        predicted = percentiles(fit.resample().optimum(valley.flops).params, level) if draws else (math.nan, math.nan)
        own = isoflop_minima.valley_minimum(
            valley,
            fit.method,
            noise_r=noise_r,
            rng=rng,
            window=fit.window,
        )
        if isinstance(own, str):
            budgets.append(
                HeldOutBudget(
                    valley.flops,
                    float(optimum.params),
                    predicted,
                    None,
                    (math.nan, math.nan),
                    float(optimum.loss_nats),
                    None,
                    own,
                )
            )
            continue
        interval = percentiles(np.exp(own.log_params_r), level) if draws else (math.nan, math.nan)
        budgets.append(
            HeldOutBudget(
                valley.flops,
                float(optimum.params),
                predicted,
                own.params,
                interval,
                float(optimum.loss_nats),
                own.loss_nats,
            )
        )
    return HeldOut(fit.approach, level, (), tuple(budgets))
