"""A fitted power law, as Approaches 1 and 2 state it: N* = G C^a, and the loss along it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from lmscale.core.arguments import Amounts, Level, Positive, checked
from lmscale.core.errors import UserError, nearest
from lmscale.study.fits.results.common import (
    LEVELS,
    Dropped,
    Status,
    allocation_json,
    both_levels,
    clean,
    percentiles,
    sampled,
    shared_json,
    span,
    standard_error,
    without_resamples,
)
from lmscale.study.fits.results.notebook import Shown
from lmscale.study.fits.results.saved import SavedFields, number, number_or_nan, saved_compute, saved_size
from lmscale.study.laws import SIX_ND, Allocation, ComputeModel


@dataclass(frozen=True, kw_only=True)
class PowerFit(Shown):
    """N* = G C^a with D* from the table's compute model. Arrays over R draws."""

    G: Any
    a: Any
    loss_curve: tuple[Any, Any, Any]
    """(E, A, gamma) of L*(C) = E + A (C/1e18)^-gamma: numbers, or arrays (R,)."""
    samples: Mapping[str, Any] | None
    """The draws: G, a, E, A, gamma, each (R,); None where none were asked for."""
    method: str
    objective: float
    """(Weighted) sum of squared residuals of ln N* about the line."""
    n_runs: int
    largest_flops: float
    compute: ComputeModel = SIX_ND
    status: tuple[Status, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    table_hash: str = ""
    size_column: str = "params"
    """Which N this is: the count, by its name in `counting.Counts`, that the table's column `params` held."""
    seed: int = 0
    """Seed of the draws."""
    at: tuple[float, ...] = ()
    name: str = ""
    rates: str = "inside"
    """Which runs of several learning rates at one N and D entered (see `runs.usable`)."""

    approach: ClassVar[str] = ""
    states_optimum: ClassVar[bool] = True
    SOURCE: ClassVar[str] = ""
    LOSS_FUNCTION: ClassVar[str] = ""

    @property
    def resamples(self) -> int:
        return 0 if self.samples is None else len(self.samples["a"])

    @checked
    def optimum(self, flops: Amounts) -> Allocation:
        """N* by the line, D* by the compute model, the loss by the curve through the minima."""
        params = self.G * flops**self.a
        tokens = self.tokens(flops, params)
        level, scale, gamma = self.loss_curve
        return Allocation(flops, params, tokens, tokens / params, level + scale * (flops / 1e18) ** (-gamma))

    def tokens(self, flops: Any, params: Any) -> Any:
        """D* beside `params` at `flops`: what the compute model leaves."""
        return self.compute.tokens(flops, params)

    def exponents(self) -> dict[str, Any]:
        """{"params": a, "tokens": b}, b = 1 - p a for C = k N^p D."""
        return {"params": self.a, "tokens": 1 - self.compute.p * self.a}

    def resample(self, index: int | slice = slice(None)) -> Self:
        """This fit in one draw, or in all (then every answer is an array). Raises `UserError` without draws."""
        if self.samples is None:
            raise UserError(without_resamples(self.status, 1000))
        drawn = self.samples
        return replace(
            self,
            G=drawn["G"][index],
            a=drawn["a"][index],
            samples=None,
            loss_curve=tuple(drawn[name][index] for name in ("E", "A", "gamma")),
        )

    @checked
    def draws(self, quantity: "str | Callable[[Any], Any]") -> np.ndarray:
        """`quantity` in every draw (R,): "G", "a", "b" or a function of the fit."""
        if isinstance(quantity, str):
            batch = self.resample()
            known = {"G": batch.G, "a": batch.a, "b": batch.exponents()["tokens"]}
            if quantity not in known:
                raise UserError(
                    f"the fit has no quantity {quantity!r}{nearest(quantity, known)}; or give a function of the fit"
                )
            return np.asarray(known[quantity])
        return sampled(quantity, self.resample(), self.resample, self.resamples)

    @checked
    def interval(self, quantity: "str | Callable[[Any], Any]", level: Level = 0.95) -> tuple[float, float]:
        """The percentile interval of any quantity over the draws. Raises `UserError` without draws."""
        return percentiles(self.draws(quantity), level)

    @checked
    def allocations(self, at: Sequence[Positive] | None = None) -> list[dict[str, Any]]:
        """The optimum at each budget as plain numbers with 80 % and 95 % intervals."""
        batch = None if self.samples is None else self.resample()
        return [
            allocation_json(self.optimum(flops), None if batch is None else batch.optimum(flops))
            for flops in (self.at if at is None else at)
        ]

    def _all_draws(self) -> dict[str, np.ndarray]:
        return {} if self.samples is None else {name: self.draws(name) for name in ("G", "a", "b")}

    def to_json(self, samples: bool = False) -> dict[str, Any]:
        """Plain numbers, JSON-ready; `samples` adds the draws, which `from_json` needs for new intervals."""
        draws = self._all_draws()
        value = {
            "approach": self.approach,
            "law": "power",
            "formula": "N* = G C^a",
            "method": self.method,
            "name": self.name,
            "source": self.SOURCE,
            "loss_function": self.LOSS_FUNCTION,
            "seed": self.seed,
            **shared_json(self),
            "parameters": {"G": self.G, "a": self.a},
            "standard_errors": {k: standard_error(v) for k, v in draws.items() if len(v) > 1},
            "intervals": both_levels(draws),
            "loss_curve": list(self.loss_curve),
        }
        if samples and self.samples:
            value["samples"] = dict(self.samples)
        return dict(clean(value))

    @staticmethod
    def _fields(value: Mapping[str, Any]) -> dict[str, Any]:
        """The common fields back from JSON."""
        fields, samples = SavedFields.of(value, "the saved fit"), value.get("samples")
        parameters = fields.numbers("parameters")
        return {
            "G": parameters["G"],
            "a": parameters["a"],
            "loss_curve": tuple(fields.each("loss_curve", number_or_nan)),
            "samples": {k: np.asarray(v, dtype=float) for k, v in samples.items()} if samples else None,
            "method": value["method"],
            "objective": number_or_nan(fields["objective"], "the objective of the saved fit"),
            "n_runs": value["n_runs"],
            "largest_flops": fields.number("largest_flops"),
            "compute": saved_compute(fields),
            "status": tuple(Status.from_json(s) for s in value["status"]),
            "dropped": tuple(Dropped(str(d["run"]), str(d["reason"])) for d in value["dropped"]),
            "notes": tuple(value["notes"]),
            "table_hash": value["table_hash"],
            "size_column": saved_size(fields),
            "seed": value.get("seed", 0),
            "at": tuple(number(a["flops"], "'flops' of the saved fit") for a in value["allocations"]),
            "name": value["name"],
            "rates": value["rates"],
        }

    def _exponent_lines(self) -> list[str]:
        draws = self._all_draws()
        lines = []
        for label, key, value in (
            ("a (N* ~ C^a)", "a", self.a),
            ("b (D* ~ C^b)", "b", self.exponents()["tokens"]),
            ("G", "G", self.G),
        ):
            line = f"  {label:>14} = {value:<10.5g}"
            if key in draws and self.resamples > 1:
                line += f" s.e. {standard_error(draws[key]):<9.3g}"
                line += " ".join(f" {100 * level:g} % {span(percentiles(draws[key], level))}" for level in LEVELS)
            lines.append(line)
        return lines
