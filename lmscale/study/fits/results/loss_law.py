"""A fitted loss law with its intervals. `approaches/parametric.py` fits one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from lmscale.core.arguments import Amounts, Level, Positive, checked
from lmscale.core.errors import UserError
from lmscale.study.fits.results import loss_law_json
from lmscale.study.fits.results.common import (
    LEVELS,
    Dropped,
    Prediction,
    Status,
    allocation_json,
    allocation_lines,
    dropped_lines,
    percentiles,
    sampled,
    span,
    standard_error,
    status_lines,
    why_no_interval,
    without_resamples,
)
from lmscale.study.fits.results.lack_of_fit import DOES_NOT_FIT, LackOfFit
from lmscale.study.fits.results.noise_split import NoiseSplit
from lmscale.study.fits.results.notebook import Shown
from lmscale.study.fits.results.run_noise import RunNoise
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.fits.uncertainty import new_runs
from lmscale.study.laws import SIX_ND, Allocation, ComputeModel, Law
from lmscale.study.laws.discrepancy import Discrepancy

PUBLISHED_AT = (1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 5.76e23, 1e24, 1e25, 1e26)
"""Budgets at which the published Chinchilla runs are usually quoted; 5.76e23 is Gopher's."""


@dataclass(frozen=True)
class LossLaw(Shown):
    """A fitted law with its bootstrap of R resamples. Losses in nats per token, or the law's own target."""

    law: Law
    samples: Law | None
    """The law whose parameters are arrays (R,), one per bootstrap resample; None where none were asked for."""
    loss_function: str
    delta: float
    residual: str
    objective: float
    """Sum over runs of Huber (0.5 r^2 inside delta, delta (|r| - delta/2) outside), |r| or r^2."""
    residuals: Mapping[str, Any]
    """Columns run, the law's inputs, measured, predicted, residual (predicted minus measured, of ln L or of L)."""
    compute: ComputeModel = SIX_ND
    largest_flops: float = math.nan
    status: tuple[Status, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    table_hash: str = ""
    size_column: str = "params"
    """Which N this is: the count, by its name in `counting.Counts`, that the table's column `params` held."""
    seed: int = 0
    at: tuple[float, ...] = ()
    name: str = ""
    fixed: tuple[str, ...] = ()
    """Parameters that were fixed, not fitted."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Parameters that equal another one by decree."""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Ranges of parameters in place of the form's own."""
    given: Mapping[str, float] = field(default_factory=dict)
    """Values of the further inputs at which allocations are stated."""
    rates: str = "inside"
    """Which runs of several learning rates at one N and D entered (see `runs.usable`)."""
    bootstrap: str = ""
    """How the resamples were drawn: whole "runs", exponential "weights" (see `bootstrap.py`), or the "noise"
    of the losses drawn (`seed_noise.py`); "" without."""
    noise: RunNoise | None = None
    """Noise of one run, where it was given or the resamples draw it."""
    shared_noise: float = 0.0
    """Share of its variance which the runs of one cluster have in common."""
    clusters: str = ""
    """Column whose groups the bootstrap took whole; "" where every run stood for itself."""
    strata: str = ""
    """Column whose groups kept their size in every resample; "" for none."""
    lack_of_fit: LackOfFit | None = None
    """Whether the form fits the runs; None where they do not allow a test."""
    noise_split: NoiseSplit | None = None
    """Seed, evaluation and search noise, as far as the table tells them."""

    approach: ClassVar[str] = "3"

    @property
    def n_runs(self) -> int:
        return len(self.residuals["residual"])

    @property
    def at_bounds(self) -> tuple[str, ...]:
        """Fitted parameters that rest on an end of their range: limited, not estimated, and without an interval."""
        return tuple(name for name in self.law.at_bounds(self.bounds) if name not in self.fixed)

    @property
    def resamples(self) -> int:
        return 0 if self.samples is None else len(next(iter(self.samples.values().values())))

    @checked
    def optimum(self, flops: Amounts, **given: Any) -> Allocation:
        """The compute-optimal N, D and loss at `flops` under the table's compute model.

        `given` are values of the law's further inputs, in place of those that the fit was told. Raises `UserError` as
        the law does, and where no floating-point number is the optimum.
        """
        if np.ndim(next(iter(self.law.values().values()))):  # of resamples, some of which fix no law
            return self.law.optimum(flops, self.compute, **{**self.given, **given})
        try:
            with np.errstate(divide="raise", over="raise", invalid="raise"):
                return self.law.optimum(flops, self.compute, **{**self.given, **given})
        except ArithmeticError:
            raise UserError(f"{self.law} has no optimum in floating-point numbers at {flops} FLOPs") from None

    @property
    def states_optimum(self) -> bool:
        """Whether `optimum` has all it needs: a law of model size and data, its further inputs given."""
        return self.law.splits_compute() and set(self.law.further_inputs()) <= set(self.given)

    def exponents(self) -> dict[str, Any]:
        """{"params": a, "tokens": b} of N* ~ C^a and D* ~ C^b; empty for a law without them."""
        return self.law.exponents(self.compute)

    def resample(self, index: int | slice = slice(None)) -> "LossLaw":
        """This fit with the parameters of one resample, or of all (then every answer is an array)."""
        if self.samples is None:
            raise UserError(without_resamples(self.status, 4000))
        values = {name: value[index] for name, value in self.samples.values().items()}
        return replace(self, law=type(self.law)(**values), samples=None)

    @checked
    def draws(self, quantity: str | Callable[["LossLaw"], Any]) -> np.ndarray:
        """`quantity` of every resample (R,): a parameter's name, "a", "b", or a function of the fit."""
        if isinstance(quantity, str):
            known = {**self.resample().law.values(), **_exponent_names(self.resample().exponents())}
            if quantity not in known:
                raise UserError(
                    f"the fit has no quantity {quantity!r}; known: {', '.join(known)}, or give a function of the fit"
                )
            return np.asarray(known[quantity], dtype=float)
        return sampled(quantity, self.resample(), self.resample, self.resamples)

    @checked
    def interval(self, quantity: str | Callable[["LossLaw"], Any], level: Level = 0.95) -> tuple[float, float]:
        """The percentile bootstrap interval of any quantity the law can state: where the *law* lies.

        (nan, nan) for a parameter that rests on its bound. A new run scatters more; see `predict`. Raises `UserError`
        for an unknown name or a fit without resamples.
        """
        draws = self.draws(quantity)
        return (math.nan, math.nan) if quantity in self.at_bounds else percentiles(draws, level)

    @checked
    def predict(self, level: Level = 0.95, **inputs: float) -> Prediction:
        """The loss at new inputs (params=..., tokens=...), with intervals of the law, of the mean and of one new run.

        Raises `UserError` where an input is missing.
        """
        return self.predict_many([inputs], level)[0]

    @checked
    def predict_many(self, points: Sequence[Mapping[str, float]], level: Level = 0.95) -> list[Prediction]:
        """`predict` at several points.

        Among the fitted runs, a new run's scatter about the law is drawn from the fit's residuals, widened by
        sqrt(n / (n - p)) for the p fitted parameters. Beyond their FLOPs or inputs, and where too few resamples
        converged, it is about the mean, whose interval allows for a wrong form (`uncertainty/discrepancy.py`). A fit
        that was made, or saved, without resamples states no interval. Raises `UserError` as `predict` does.
        """
        if not points:
            return []
        inputs = new_runs.columns(self.law, points)
        loss = np.broadcast_to(np.asarray(self.law.loss(*inputs), dtype=float), (len(points),))
        law = mean = run = np.full((len(points), 2), math.nan)
        outside, times = new_runs.beyond(self.law, inputs, self.residuals, self.compute, self.largest_flops)
        if self.samples is not None:
            residual = np.asarray(self.residuals["residual"])
            fitted = len(self.law.names()) - len(self.fixed) - len(self.tied)
            logs = self.residual == "log"
            law, run = new_runs.about_the_law(self.samples, inputs, residual, fitted, logs, self.seed, level)
        asked = self.samples is not None or why_no_interval(self.status) != ""
        if asked and set(self.law.INPUTS) <= set(self.residuals):
            values = np.array(list(self.law.values().values()))
            mean, wider = new_runs.mean_and_run(self._problem(), values, inputs, level, self.noise)
            run = np.where(outside[:, None] | np.isnan(run), wider, run)
        return [
            Prediction(
                dict(point),
                float(loss[index]),
                (float(law[index, 0]), float(law[index, 1])),
                (float(run[index, 0]), float(run[index, 1])),
                level,
                self.unit,
                (float(mean[index, 0]), float(mean[index, 1])),
                float(times[index]) if outside[index] else None,
                self.doubt(point),
            )
            for index, point in enumerate(points)
        ]

    def doubt(self, inputs: Mapping[str, float]) -> str:
        """Why the law should not be trusted at `inputs`: its form does not fit, or the runs lie far away; "" if not."""
        of_form = [one.name for one in self.status if one.name == DOES_NOT_FIT]
        return "; ".join(filter(None, [*of_form, new_runs.far_away(inputs, self.residuals)]))

    def allowed_discrepancy(self) -> Discrepancy | None:
        """How far the truth may lie from this law, smoothly, by what its runs cannot rule out, however well it fits.

        None where the law has no derivative at them, and where the fit was read without them.
        """
        if not set(self.law.INPUTS) <= set(self.residuals):
            return None
        return new_runs.allowed_discrepancy(self._problem(), np.array(list(self.law.values().values())), self.noise)

    def _problem(self) -> Problem:
        """What was minimised, without its weights."""
        fixed = {name: float(getattr(self.law, name)) for name in self.fixed}
        inputs = tuple(np.asarray(self.residuals[name], dtype=float) for name in self.law.INPUTS)
        target = np.asarray(self.residuals["measured"], dtype=float)
        return Problem(
            type(self.law), inputs, target, self.loss_function, self.delta, self.residual, fixed, self.bounds, self.tied
        )

    @property
    def unit(self) -> str:
        """What the law's losses are in: nats, or the name of its target."""
        return "nats" if self.law.TARGET == "loss_nats" else self.law.TARGET

    @checked
    def allocations(self, at: Sequence[Positive] | None = None) -> list[dict[str, Any]]:
        """The optimum at each budget as plain numbers with 80 % and 95 % intervals; empty for a law without one."""
        if not self.states_optimum:
            return []
        batch = None if self.samples is None else self.resample()
        with np.errstate(all="ignore"):  # a resample that fixes no law may have its optimum at infinity
            return [
                allocation_json(self.optimum(flops), None if batch is None else batch.optimum(flops))
                for flops in (self.at if at is None else at)
            ]

    def all_draws(self) -> dict[str, np.ndarray]:
        """The values (R,) that each parameter and exponent has in the resamples, but for those at a bound."""
        if self.samples is None:
            return {}
        return {
            name: np.asarray(v)
            for name, v in {**self.samples.values(), **_exponent_names(self.resample().exponents())}.items()
            if name not in self.at_bounds
        }

    def to_json(self, samples: bool = False) -> dict[str, Any]:
        """Plain numbers, JSON-ready; `samples` adds the resampled parameters, which new intervals need.

        A parameter at its bound has no interval and no standard error.
        """
        return loss_law_json.to_json(self, samples)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LossLaw":
        """The fit again. Without saved samples it states its law and optimum, but no new interval.

        Raises `UserError` where a user's law is gone, its source has changed since, or a field is missing or of another
        type than was written.
        """
        return cls(**loss_law_json.fields(value))

    def __str__(self) -> str:
        draws = self.all_draws()
        how = {"huber": f"Huber (delta = {self.delta:g})", "lad": "absolute deviations", "squared": "squares"}[
            self.loss_function
        ]
        of = "ln L" if self.residual == "log" else "L"
        rms = np.sqrt(np.mean(np.square(self.residuals["residual"])))
        lines = [
            f"Approach 3{': ' + self.name if self.name else ''}: {self.law.FORMULA} through {self.n_runs} runs",
            f"  sum of {how} on {of}: {self.objective:.14g}; rms residual {rms:.4f}",
        ]
        for name, value in {**self.law.values(), **_exponent_names(self.exponents())}.items():
            label = {"a": "a (N* ~ C^a)", "b": "b (D* ~ C^b)"}.get(name, name) if self.exponents() else name
            line = f"  {label:>14} = {value:<12.7g}"
            if name in self.fixed:
                line += " (fixed)"
            elif name in self.tied:
                line += f" (tied to {self.tied[name]})"
            elif name in self.at_bounds:
                line += " at its bound"
            elif name in draws and self.resamples > 1:
                line += f" s.e. {standard_error(draws[name]):<9.4g}"
                line += " ".join(
                    f" {100 * level:g} % {span(percentiles(draws[name], level), '.5g')}" for level in LEVELS
                )
            lines.append(line)
        if rows := self.allocations():
            lines += allocation_lines(rows, str(self.compute))
        lines += [f"  {note}" for note in self.notes]
        lines += dropped_lines(self.dropped)
        return "\n".join([*lines, *status_lines(self.status)])


def _exponent_names(exponents: Mapping[str, Any]) -> dict[str, Any]:
    return {short: exponents[name] for short, name in (("a", "params"), ("b", "tokens")) if name in exponents}
