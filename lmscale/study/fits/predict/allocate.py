"""The best allocation of a fitted law under constraints, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import Level, Natural, checked
from lmscale.core.errors import UserError
from lmscale.study.fits.results.common import LEVELS, clean, percentiles, span
from lmscale.study.fits.results.notebook import Printed
from lmscale.study.laws.allocation import Constraint, Optimum
from lmscale.study.laws.allocation import allocate as best_of_law

if TYPE_CHECKING:
    from lmscale.study.fits.results.loss_law import LossLaw

DRAWS = 200
"""Resamples whose optimum is solved for: each takes milliseconds."""


@dataclass(frozen=True)
class FittedOptimum(Printed):
    """The optimum of the fitted law, and of its draws: the free inputs and the loss, each (R,)."""

    optimum: Optimum
    draws: Mapping[str, np.ndarray]
    unit: str
    lost: int
    """Draws without an optimum."""
    warning: str = ""
    """Why the law should not be trusted at the optimum, as `Prediction.warning`."""

    @checked
    def interval(self, name: str, level: Level = 0.95) -> tuple[float, float]:
        """The percentile interval of a free input, or of the "loss"."""
        if name not in self.draws:
            raise UserError(f"the optimum has no draws of {name!r}: it has {', '.join(self.draws) or 'none'}")
        return percentiles(self.draws[name], level)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        levels = {f"{level:g}": {name: self.interval(name, level) for name in self.draws} for level in LEVELS}
        return dict(
            clean(
                {
                    "inputs": self.optimum.inputs,
                    "loss": self.optimum.loss,
                    "binding": self.optimum.binding,
                    "intervals": levels if self.draws else {},
                    "warning": self.warning,
                }
            )
        )

    def __str__(self) -> str:
        parts = [f"{name} = {self.optimum.inputs[name]:.4g}{self._span(name, '.3g')}" for name in self.optimum.free]
        binding = f"; binding: {', '.join(self.optimum.binding)}" if self.optimum.binding else "; no constraint binds"
        lost = f"; {self.lost} draws have no optimum" if self.lost else ""
        loss = f"loss {self.optimum.loss:.4f} {self.unit}{self._span('loss', '.4f')}"
        doubt = f"; {self.warning}" if self.warning else ""
        return f"best under the constraints: {', '.join(parts)}: {loss}{binding}{lost}{doubt}"

    def _span(self, name: str, spec: str) -> str:
        return f" {span(self.interval(name), spec)}" if name in self.draws else ""


@checked
def allocate(
    fit: "LossLaw",
    constraints: Sequence[Constraint],
    *,
    free: Mapping[str, tuple[float, float]] | Sequence[str] = ("params", "tokens"),
    given: Mapping[str, float] | None = None,
    draws: Natural = DRAWS,
) -> FittedOptimum:
    """`laws.allocate` of a fitted law, and of `draws` of its resamples from there. Raises `UserError` as that does."""
    given = {**fit.given, **(given or {})}
    optimum = best_of_law(fit.law, constraints, free=free, given=given)
    ends = []
    chosen = np.linspace(0, fit.resamples - 1, min(draws, fit.resamples)).astype(int) if fit.samples is not None else ()
    for index in chosen:
        law = fit.resample(int(index)).law
        try:
            ends.append(best_of_law(law, constraints, free=free, given=given, near=optimum.inputs))
        except UserError:
            continue
    named = {name: np.array([end.inputs[name] for end in ends]) for name in optimum.free} if ends else {}
    losses = {"loss": np.array([end.loss for end in ends])} if ends else {}
    doubt = fit.doubt({**given, **optimum.inputs})
    return FittedOptimum(optimum, {**named, **losses}, fit.unit, len(chosen) - len(ends), doubt)
