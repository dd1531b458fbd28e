"""Was the prediction right? Held-out runs against the fits that did not see them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import Level, checked
from lmscale.core.errors import UserError
from lmscale.core.numerals import significant
from lmscale.study.fits import sizes
from lmscale.study.fits.checks.stages import one_stage
from lmscale.study.fits.options import read
from lmscale.study.fits.results.common import Dropped, Prediction, clean, dropped_lines, percentiles, span
from lmscale.study.fits.results.notebook import Printed
from lmscale.study.tables import TableSource, flags

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits.results.isoflop import IsoFlop
    from lmscale.study.fits.results.loss_law import LossLaw


RARE = 0.05
"""Probability below which so few runs inside their intervals are called a miss."""


@dataclass(frozen=True)
class HeldOutRun:
    """One run that was not fitted. Losses in nats per token; `error` is measured / predicted - 1, as in figures."""

    run: str
    prediction: Prediction
    measured: float

    @property
    def error(self) -> float:
        return self.measured / self.prediction.loss_nats - 1

    @property
    def has_interval(self) -> bool:
        """Whether the prediction states where one new run would land: not without resamples."""
        return all(map(math.isfinite, self.prediction.interval))

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
class HeldOut(Printed):
    """The verdict on one fit: runs (Approach 3) or budgets (Approach 2)."""

    approach: str
    level: float
    runs: tuple[HeldOutRun, ...] = ()
    budgets: tuple[HeldOutBudget, ...] = ()
    size_column: str = "params"
    """Which N this is, as the fit counts it."""
    dropped: tuple[Dropped, ...] = ()
    """Held-out rows that are no result: of a run that did not finish, at a worse learning rate, there twice."""

    @property
    def coverage(self) -> float:
        """Share of held-out runs whose loss lies inside its prediction interval; NaN without runs."""
        return sum(run.inside for run in self.runs) / len(self.runs) if self.runs else math.nan

    @property
    def mean_absolute_error(self) -> float:
        """Mean of |measured / predicted - 1| over the runs; NaN without runs."""
        return sum(abs(run.error) for run in self.runs) / len(self.runs) if self.runs else math.nan

    @property
    def bias(self) -> float:
        """Mean of measured / predicted - 1 over the runs: above 0 the law predicts too low; NaN without runs."""
        return sum(run.error for run in self.runs) / len(self.runs) if self.runs else math.nan

    @property
    def chance(self) -> float:
        """Probability of so few runs inside, or fewer, if each is inside at the stated level: binomial."""
        from scipy.special import bdtr

        known = [run.inside for run in self.runs if run.has_interval]
        return float(bdtr(sum(known), len(known), self.level)) if known else math.nan

    @property
    def missed(self) -> bool:
        """Whether the intervals missed: so few runs lie inside that `chance` is below `RARE`."""
        return self.chance < RARE

    def counted_inside(self) -> str:
        """How many losses lie inside, and whether that is fewer than chance explains; "" without intervals."""
        known = [run.inside for run in self.runs if run.has_interval]
        if not known:
            return ""
        sentence = f"{sum(known)} of {len(known)} measured losses lie inside the {100 * self.level:g} % interval"
        sentence += " of one new run"
        if self.missed:
            sentence += (
                f", a miss: so few have a probability of {100 * self.chance:.2g} % (binomial; below {100 * RARE:g} % "
                f"is a miss)"
            )
        return sentence

    def to_json(self) -> dict[str, Any]:
        return clean(
            {
                "approach": self.approach,
                "level": self.level,
                "coverage": self.coverage,
                "mean_absolute_error": self.mean_absolute_error,
                "bias": self.bias,
                "chance": self.chance,
                "missed": self.missed,
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
                "dropped": [one.to_json() for one in self.dropped],
            }
        )

    def __str__(self) -> str:
        lines = []
        if self.runs:
            largest = max(abs(run.error) for run in self.runs)
            lines.append(
                f"Held-out runs, Approach {self.approach}: {self.counted_inside() or 'no intervals'}; mean absolute "
                f"error {100 * self.mean_absolute_error:.2f} %, bias {100 * self.bias:+.2f} %, largest "
                f"{100 * largest:.2f} % (errors are measured minus predicted)"
            )
            for run in self.runs:
                inputs = ", ".join(f"{name} {value:.4g}" for name, value in run.prediction.inputs.items())
                lines.append(
                    f"  {run.run}: {inputs}: predicted {run.prediction.loss_nats:.4f} "
                    f"{span(run.prediction.interval, '.4f')}, "
                    f"measured {run.measured:.4f} ({100 * run.error:+.2f} %)"
                    f"{'  OUTSIDE' if run.has_interval and not run.inside else ''}"
                )
        for budget in self.budgets:
            line = f"  {budget.flops:.4g} FLOPs: extrapolated N* = {significant(budget.predicted_params, 4)} "
            line += span(budget.predicted_interval)
            if budget.measured_params is None:
                line += f"; its own runs give no minimum ({budget.reason})"
            else:
                line += (
                    f", its own runs {significant(budget.measured_params, 4)} {span(budget.measured_interval)} "
                    f"({100 * (budget.predicted_params / budget.measured_params - 1):+.1f} %): "
                    f"the intervals {'overlap' if budget.agree else 'DO NOT overlap'}"
                )
            lines.append(line)
        return "\n".join([*lines, *dropped_lines(self.dropped)])


@checked
def held_out_check(
    fit: "LossLaw | IsoFlop", table: TableSource, level: Level = 0.95, *, stage: str | None = None
) -> HeldOut:
    """Check a fit on the rows of `table` marked `held_out` (on every row where none is marked).

    Of a table of several stages of training those of `stage` alone are taken, pretraining unless another is given.

    A loss law predicts each run's loss, with the interval of one new run. An IsoFLOP fit extrapolates N* to each
    held-out budget, where the budget's own minimum is estimated by the same method. Raises `UserError` where no row can
    be checked.
    """
    from lmscale.study.fits.results.loss_law import LossLaw

    rows = sizes.counted_by(one_stage(read(table), stage), fit.size_column)
    if "held_out" in rows and (marked := flags(rows, "held_out")).any():
        rows = rows[marked]
    if isinstance(fit, LossLaw):
        return _runs(fit, rows, level)
    return _budgets(fit, rows, level)


def _runs(fit: "LossLaw", table: "pd.DataFrame", level: float) -> HeldOut:
    from lmscale.study.fits.runs import check_columns, results_of

    target = fit.law.TARGET
    check_columns(table, (*fit.law.INPUTS, target))
    if not table[[*fit.law.INPUTS, target]].notna().all(axis=1).any():
        raise UserError("no held-out run has a measured loss: run the held-out points first")
    measured = results_of(table, fit.law.INPUTS, target, fit.rates, type(fit.law), fit.residual == "log")
    rows = measured.table
    points = [{name: float(row[name]) for name in fit.law.INPUTS} for _, row in rows.iterrows()]
    runs = tuple(
        HeldOutRun(str(name), prediction, float(loss))
        for name, prediction, loss in zip(rows["run"], fit.predict_many(points, level), rows[target])
    )
    return HeldOut(fit.approach, level, runs, size_column=fit.size_column, dropped=measured.dropped)


def _budgets(fit: "IsoFlop", table: "pd.DataFrame", level: float) -> HeldOut:
    from lmscale.study.fits.approaches import isoflop_minima
    from lmscale.study.fits.approaches.isoflop_valleys import valleys_of
    from lmscale.study.fits.results.run_noise import RunNoise
    from lmscale.study.fits.runs import usable

    table = table.drop(columns="held_out", errors="ignore")
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
    return HeldOut(fit.approach, level, (), tuple(budgets), fit.size_column)
