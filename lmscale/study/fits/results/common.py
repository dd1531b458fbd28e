"""The vocabulary of every fit: statuses, left-out runs, intervals, predictions, and numbers that JSON can hold."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lmscale.core.errors import UserError
from lmscale.core.numerals import significant
from lmscale.core.text import one_line
from lmscale.core.user_code import called
from lmscale.study.fits.results.notebook import Printed
from lmscale.study.laws import Allocation

LEVELS = (0.8, 0.95)
LEAST_CONVERGED = 0.8
"""Share of the resamples that must have a fit for an interval: those without one are not lost at random."""
NO_INTERVALS = "no intervals"
"""The status of a fit that was asked for intervals and states none."""


@dataclass(frozen=True)
class Status:
    """One finding about a fit, with a name and in a sentence; a `warning` must be known before the number is used."""

    name: str
    sentence: str
    severity: Literal["ok", "note", "warning"] = "ok"

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "sentence": self.sentence, "severity": self.severity}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Status":
        """The inverse of `to_json`. Raises `ValueError` for a severity that is none."""
        if value["severity"] not in ("ok", "note", "warning"):
            raise ValueError("the severity of a status is ok, note or warning")
        return cls(str(value["name"]), str(value["sentence"]), value["severity"])


@dataclass(frozen=True)
class Dropped:
    """A run, or a whole budget, that a fit left out."""

    run: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"run": self.run, "reason": self.reason}


MEASURED_TO = 100.0
"""Times the fitted compute up to which intervals were held against known truths."""
MEASURED = (
    "at up to 100 times the compute of the runs, 95 % intervals of the mean by Chinchilla's law held 99 % of simulated "
    "truths, and in the worst of 240 cases 87 %"
)
"""What `experiments/bench_intervals.py` measured, whose header has it in full."""


@dataclass(frozen=True)
class Prediction(Printed):
    """The loss at a point that was not fitted.

    `law_interval` is where the fitted law lies there, if its form is right; `mean_interval`, the interval of the mean,
    is where the mean over runs lies, whether or not the form is right; `interval`, the interval of one new run, adds a
    run's own scatter and so is wider. Losses in nats per token.
    """

    inputs: Mapping[str, float]
    loss_nats: float
    law_interval: tuple[float, float]
    interval: tuple[float, float]
    level: float
    unit: str = "nats"
    mean_interval: tuple[float, float] = (math.nan, math.nan)
    beyond: float | None = None
    """How many times the largest fitted FLOPs, where the point lies beyond them or outside of the fitted inputs."""
    warning: str = ""
    """Why the law should not be trusted here: its form does not fit the runs, or these lie far away."""

    def to_json(self) -> dict[str, Any]:
        return clean(
            {
                "inputs": dict(self.inputs),
                "loss_nats": self.loss_nats,
                "law_interval": list(self.law_interval),
                "mean_interval": list(self.mean_interval),
                "interval": list(self.interval),
                "level": self.level,
                "beyond": self.beyond,
                "warning": self.warning,
            }
        )

    def __str__(self) -> str:
        where = ", ".join(f"{name} = {value:.4g}" for name, value in self.inputs.items())
        law, mean, run = (span(ends, ".4f") for ends in (self.law_interval, self.mean_interval, self.interval))
        return (
            f"{where}: {self.loss_nats:.4f} {self.unit}; {100 * self.level:g} % intervals: of one new run {run}, of "
            f"the mean {mean}, of the law if its form is right {law}{self._measured()}"
            f"{f'; {self.warning}' if self.warning else ''}"
        )

    def _measured(self) -> str:
        """How often such intervals held a known truth, where the point lies as far beyond the runs as was measured."""
        if self.beyond is None or math.isnan(self.mean_interval[0]):
            return ""
        return f"; {MEASURED}" if 1 < self.beyond <= MEASURED_TO else ""


def percentiles(samples: Any, level: float) -> tuple[float, float]:
    """The central percentile interval of finite samples (R,); (nan, nan) where none is finite.

    Percentiles, since A and B of a loss law are strongly skewed.
    """
    samples = np.asarray(samples, dtype=float)
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return math.nan, math.nan
    low, high = np.percentile(samples, [50 - 50 * level, 50 + 50 * level])
    return float(low), float(high)


def standard_error(draws: Any) -> float:
    """The standard deviation of a quantity's draws (R,); infinity where they lie near the largest number."""
    with np.errstate(over="ignore"):  # a resample that fixes no law may lie anywhere
        return float(np.std(draws, ddof=1))


def enough(usable: int, resamples: int) -> bool:
    """Whether so many usable ones of all resamples allow an interval."""
    return usable >= LEAST_CONVERGED * resamples


def no_intervals(reason: str) -> Status:
    """The status that says why there is no interval."""
    return Status(NO_INTERVALS, f"{reason}: no interval is stated", "warning")


def too_few(usable: int, resamples: int, what: str) -> Status:
    """`no_intervals` where too few resamples have a fit; `what` they did, "converged"."""
    return no_intervals(f"{usable} of {resamples} resamples {what}, fewer than {LEAST_CONVERGED:.0%}")


def why_no_interval(statuses: Sequence[Status]) -> str:
    """The sentence of a fit that was asked for intervals and has none; "" for one that was made without resamples."""
    return next((status.sentence for status in statuses if status.name == NO_INTERVALS), "")


def without_resamples(statuses: Sequence[Status], resamples: int) -> str:
    """The sentence for who asks a fit without resamples for an interval."""
    reason = why_no_interval(statuses)
    return (
        f"this fit has no resamples{f': {reason}' if reason else f'; fit with `resamples={resamples}` for intervals'}"
    )


def both_levels(samples: Mapping[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """{"0.8": {name: (low, high)}, "0.95": ...}."""
    return {f"{level:g}": {name: percentiles(values, level) for name, values in samples.items()} for level in LEVELS}


def allocation_json(allocation: Allocation, samples: Allocation | None) -> dict[str, Any]:
    """An allocation with the intervals of its parts, as plain numbers."""
    names = ("params", "tokens", "tokens_per_param", "loss_nats")
    plain: dict[str, Any] = {name: float(getattr(allocation, name)) for name in ("flops", *names)}
    plain["intervals"] = both_levels({name: getattr(samples, name) for name in names}) if samples is not None else {}
    return plain


def shared_json(fit: Any) -> dict[str, Any]:
    """The part of the JSON that all kinds of fit share, before `clean`."""
    return {
        "n_runs": fit.n_runs,
        "objective": fit.objective,
        "status": [status.to_json() for status in fit.status],
        "exponents": fit.exponents(),
        "compute_model": asdict(fit.compute),
        "allocations": fit.allocations(),
        "dropped": [dropped.to_json() for dropped in fit.dropped],
        "notes": list(fit.notes),
        "rates": fit.rates,
        "resamples": fit.resamples,
        "largest_flops": fit.largest_flops,
        "table_hash": fit.table_hash,
        "size_column": fit.size_column,
    }


def clean(value: Any) -> Any:
    """`value` with NumPy scalars as Python numbers, tuples as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.bool_ | np.integer):
        return clean(value.tolist())
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def sampled(quantity: Callable[[Any], Any], batch: Any, single: Callable[[int], Any], count: int) -> np.ndarray:
    """`quantity` of every resample (R,): at once where it broadcasts, one by one where it does not."""
    what = "the quantity"
    with np.errstate(all="ignore"):  # a resample that fixes no law may have its optimum at infinity
        try:
            values = np.asarray(called(what, quantity, batch), dtype=float)
            if values.shape == (count,):
                return values
        except (TypeError, ValueError):
            pass
        return np.array([_real(called(what, quantity, single(index))) for index in range(count)])


def _real(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"the quantity gives a {type(value).__name__} of the fit: it must give a number") from None


def span(interval: Sequence[float], spec: str = ".4g") -> str:
    """An interval as text, with all digits of a specification as ".3g": "[0.490, 0.560]"."""
    low, high = (significant(end, int(spec[1:-1])) if spec[-1] == "g" else f"{end:{spec}}" for end in interval)
    return f"[{low}, {high}]"


def allocation_lines(rows: Sequence[Mapping[str, Any]], compute: str) -> list[str]:
    """The table "C, N*, D*, D*/N*, loss" with intervals, headed by the compute model it rests on."""
    lines = [
        f"Compute-optimal allocation, {compute}:",
        f"  {'C (FLOPs)':>10}  {'N*':>9}  {'D*':>9}  {'D*/N*':>7}  {'80 %':>16}  {'95 %':>16}  {'loss':>7}",
    ]
    for row in rows:
        narrow, wide = (
            span(row["intervals"][level]["tokens_per_param"], ".3g") if row["intervals"] else "-"
            for level in ("0.8", "0.95")
        )
        params, tokens = significant(row["params"], 3), significant(row["tokens"], 3)
        lines.append(
            f"  {row['flops']:>10.3g}  {params:>9}  {tokens:>9}  {row['tokens_per_param']:>7.2f}"
            f"  {narrow:>16}  {wide:>16}  {row['loss_nats']:>7.4f}"
        )
    return lines


def status_lines(statuses: Sequence[Status]) -> list[str]:
    """One line per status; warnings come first and are marked."""
    order = {"warning": 0, "note": 1, "ok": 2}
    mark = {"warning": "!", "note": "-", "ok": " "}
    return [f" {mark[s.severity]} {s.name}: {s.sentence}" for s in sorted(statuses, key=lambda s: order[s.severity])]


def dropped_lines(dropped: Sequence[Dropped], show: int = 8) -> list[str]:
    """The left-out runs, by reason."""
    reasons: dict[str, list[str]] = {}
    for item in dropped:
        reasons.setdefault(item.reason, []).append(item.run)
    lines = []
    for reason, runs in reasons.items():
        more = f" and {len(runs) - show} more" if len(runs) > show else ""
        lines.append(f"  {len(runs)} left out ({one_line(reason)}): {', '.join(map(one_line, runs[:show]))}{more}")
    return lines
