"""A fitted IsoFLOP law: N* = G C^a through the minima of the budgets, its minima, noise and bias.

`approaches/isoflop.py` fits one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from lmscale.core.numerals import significant
from lmscale.study.fits.results.common import (
    Status,
    allocation_lines,
    clean,
    dropped_lines,
    span,
    status_lines,
)
from lmscale.study.fits.results.power_law import PowerFit
from lmscale.study.fits.results.saved import SavedFields, number, reading

NOTABLE = 0.01  # in a, or relative in N*


@dataclass(frozen=True)
class InterpolationBias:
    """Interpolated minus true on a noiseless law: in a and ln G of N* = G C^a, and in the budgets' mean ln N*."""

    a: float
    log_G: float
    log_params: float
    law: str
    """The law that is known, in words."""
    in_draws: bool
    """Whether every second draw is less the gaps; not where the noise was given."""

    def to_json(self) -> dict[str, Any]:
        return dict(clean(self.__dict__))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "InterpolationBias":
        return cls(**{name: value[name] for name in ("a", "log_G", "log_params", "law", "in_draws")})

    def status(self, method: str) -> Status:
        sentence = (
            f"on {self.law} without noise, these sizes give N* off by {100 * np.expm1(self.log_params):+.2f} % "
            f"on average and a off by {self.a:+.4f} ({method}); "
            + (
                "the intervals include it"
                if self.in_draws
                else "the intervals, of the given noise alone, do not include it"
            )
        )
        notable = max(abs(self.a), abs(self.log_params)) > NOTABLE
        return Status("bias of the interpolation", sentence, "note" if notable else "ok")


@dataclass(frozen=True)
class BudgetMinimum:
    """The lowest point of one budget's valley. params, tokens, loss in nats; intervals from the noise draws."""

    flops: float
    params: float
    tokens: float
    loss_nats: float
    n_runs: int
    log_params_sd: float
    """Standard deviation of ln N* over the noise draws."""
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]

    def to_json(self) -> dict[str, Any]:
        return clean({**self.__dict__, "tokens_per_param": self.tokens / self.params})


@dataclass(frozen=True, kw_only=True)
class IsoFlop(PowerFit):
    """N* = G C^a through the minima of the budgets; the draws add a run's noise to every loss, and include the bias."""

    minima: tuple[BudgetMinimum, ...]
    noise_nats: float
    noise_source: str
    noise_freedom: float | None = None
    """Degrees of freedom behind `noise_nats`; None where it was given."""
    window: float | None = None
    tokens_line: tuple[Any, Any] | None = None
    """(H, b) of D* = H C^b through valleys along ln D; None where D* follows from N* by the compute model."""
    weighted: bool = True
    """Whether the line weighs the minima by their noise."""
    budget_flops: str = "nominal"
    """Whether a budget lies at its stated FLOPs or at the mean of its runs'."""
    bias: InterpolationBias | None = None
    """The bias of the interpolation; None where fewer than two valleys of the known law have a minimum."""

    approach: ClassVar[str] = "2"
    SOURCE: ClassVar[str] = "Hoffmann 2022, arXiv 2203.15556, section 3.2"
    LOSS_FUNCTION: ClassVar[str] = "weighted squares of ln N*"

    def tokens(self, flops: Any, params: Any) -> Any:
        """D* by its own line, or what the compute model leaves for `params`."""
        if self.tokens_line is None:
            return super().tokens(flops, params)
        scale, exponent = self.tokens_line
        return scale * flops**exponent

    def exponents(self) -> dict[str, Any]:
        """{"params": a, "tokens": b}; b of D*'s own line where it has one."""
        own = {} if self.tokens_line is None else {"tokens": self.tokens_line[1]}
        return {**super().exponents(), **own}

    def resample(self, index: int | slice = slice(None)) -> "IsoFlop":
        """This fit in one draw, or in all (then every answer is an array). Raises `UserError` without draws."""
        one = super().resample(index)
        if self.tokens_line is None or self.samples is None:
            return one
        return replace(one, tokens_line=(self.samples["H"][index], self.samples["b"][index]))

    def to_json(self, samples: bool = False) -> dict[str, Any]:
        """Plain numbers as of every fit, with `minima` and `bias`."""
        own = {
            "minima": [m.to_json() for m in self.minima],
            "noise_nats": self.noise_nats,
            "noise_source": self.noise_source,
            "noise_freedom": self.noise_freedom,
            "window": self.window,
            "tokens_line": None if self.tokens_line is None else list(self.tokens_line),
            "weighted": self.weighted,
            "budget_flops": self.budget_flops,
            "bias": None if self.bias is None else self.bias.to_json(),
        }
        return {**super().to_json(samples), **clean(own)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "IsoFlop":
        """The fit again; new intervals need saved samples. Raises `UserError` for a missing field or another type."""
        with reading("the saved fit"):
            return cls._from_json(SavedFields.of(value, "the saved fit").value)

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> "IsoFlop":
        fields = ("flops", "params", "tokens", "loss_nats", "n_runs", "log_params_sd", "intervals")
        minima = tuple(BudgetMinimum(*[m[name] for name in fields]) for m in value["minima"])
        return cls(
            minima=minima,
            noise_nats=value["noise_nats"],
            noise_source=value["noise_source"],
            noise_freedom=value["noise_freedom"],
            window=value["window"],
            tokens_line=None if value.get("tokens_line") is None else _pair(value["tokens_line"]),
            weighted=bool(value.get("weighted", True)),
            budget_flops=str(value.get("budget_flops", "nominal")),
            bias=None if value["bias"] is None else InterpolationBias.from_json(value["bias"]),
            **cls._fields(value),
        )

    def __str__(self) -> str:
        lines = [
            f"Approach 2{': ' + self.name if self.name else ''}: N* = G C^a through the minima of {len(self.minima)} "
            f"budgets, "
            f"{self.n_runs} runs; {self.method}",
            f"  noise of one run {self.noise_nats:.4g} nats ({self.noise_source})",
            *self._exponent_lines(),
            f"  {'C (FLOPs)':>10}  {'N*':>9}  {'95 %':>20}  {'D*':>9}  {'D*/N*':>7}  {'loss':>7}  runs",
        ]
        for m in self.minima:
            inner = span(m.intervals["0.95"]["params"], ".3g") if m.intervals else "-"
            params, tokens = significant(m.params, 3), significant(m.tokens, 3)
            lines.append(
                f"  {m.flops:>10.3g}  {params:>9}  {inner:>20}  {tokens:>9}  {m.tokens / m.params:>7.2f}  "
                f"{m.loss_nats:>7.4f}  {m.n_runs}"
            )
        if rows := self.allocations():
            lines += allocation_lines(rows, str(self.compute))
        lines += [f"  {note}" for note in self.notes]
        return "\n".join([*lines, *dropped_lines(self.dropped), *status_lines(self.status)])


def _pair(value: Any) -> tuple[float, float]:
    first, second = (number(item, "'tokens_line' of the saved fit") for item in value)
    return first, second
