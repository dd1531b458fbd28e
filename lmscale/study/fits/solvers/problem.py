"""What is minimised: data and an objective, `sum_i w_i rho(r_i)` of a law over runs; `minimise.py` solves it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmscale.study.fits.solvers.constraints import bounded, check_constraints
from lmscale.study.grouping import point_index
from lmscale.study.laws import Law, Parameter

LOSSES = ("huber", "lad", "squared")
BESIDE = 1e-9
"""Share of a bound by which rounding may leave it."""


@dataclass(frozen=True)
class GlobalMinimum:
    """The lowest minimum: parameters in order (p,), and the evidence that it is the global one."""

    values_p: np.ndarray
    objective: float
    gradient: float
    """Largest absolute component of the objective's gradient in the solver's unknowns; of absolute deviations, which
    have a corner there, what one more step would gain."""
    starts: int
    agreeing: int
    """Starts that ended within 1e-6 of the lowest objective, relatively."""


@dataclass(frozen=True)
class Problem:
    """A form, its data and its objective. `inputs` (k arrays of shape (n,)), `target_n` (n,).

    `target_n` may be (n, b): then `minimise_many` solves b problems that each have targets of their own.
    `loss` is "huber" (threshold `delta`), "lad" or "squared"; `residual` is "log" (of ln L) or "raw" (of L, in nats).
    `fixed` gives parameters that are not fitted, `bounds` ranges in place of the form's own, `tied` parameters that
    equal another one.
    """

    form: type[Law]
    inputs: tuple[np.ndarray, ...]
    target_n: np.ndarray
    loss: str = "huber"
    delta: float = 1e-3
    residual: str = "log"
    fixed: Mapping[str, float] | None = None
    bounds: Mapping[str, tuple[float, float]] | None = None
    tied: Mapping[str, str] | None = None
    plain: bool = False
    """Search the parameters themselves, also of a form that has other unknowns for them."""

    def __post_init__(self) -> None:
        assert self.loss in LOSSES and self.residual in ("log", "raw") and self.delta > 0, self
        check_constraints(self.form, self.fixed or {}, self.bounds or {}, self.tied or {})

    @property
    def constrained(self) -> bool:
        """Whether a parameter is fixed, tied or bounded more narrowly than the form has it."""
        return bool(self.fixed or self.bounds or self.tied)

    @property
    def straightened(self) -> bool:
        """Whether unknowns of the form's own are searched (`Law.to_search`), whose bounds are not the parameters'."""
        return bool(self.form.BENT) and not self.plain and not self.constrained

    def within_bounds(self, values_pb: np.ndarray) -> np.ndarray:
        """Which of b sets of parameters (p, b) lie in their ranges, up to rounding (b,)."""
        low, high = np.array([(one.low, one.high) for one in self.parameters]).T[..., None]
        return ((values_pb >= low - BESIDE * np.abs(low)) & (values_pb <= high + BESIDE * np.abs(high))).all(axis=0)

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The form's parameters under the problem's own bounds, in order."""
        return tuple(bounded(one, (self.bounds or {}).get(one.name)) for one in self.form.PARAMETERS)

    def column(self, name: str) -> np.ndarray:
        """The values of one input (n,)."""
        return self.inputs[self.form.INPUTS.index(name)]

    @property
    def runs(self) -> int:
        return len(self.target_n)

    @property
    def points(self) -> np.ndarray:
        """Which distinct point of the inputs each run lies at (n,), numbered from 0."""
        return point_index(dict(zip(self.form.INPUTS, self.inputs)))

    @property
    def target_nb(self) -> np.ndarray:
        """The targets beside a problem axis: (n, 1) where all problems share them, else (n, b)."""
        return self.target_n[:, None] if self.target_n.ndim == 1 else self.target_n

    def among(self, problems: Any) -> "Problem":
        """The problem with the targets of some of its b problems, an index."""
        return self if self.target_n.ndim == 1 else replace(self, target_n=self.target_n[:, problems])

    @functools.cached_property
    def free(self) -> tuple[str, ...]:
        return tuple(name for name in self.form.names() if name not in {**(self.fixed or {}), **(self.tied or {})})

    def using(self, **changes: Any) -> "Problem":
        """The same data under another loss, delta or residual."""
        return replace(self, **changes)

    def without(self, leave_out_n: np.ndarray) -> "Problem":
        """The problem without the marked runs."""
        keep = ~leave_out_n
        return replace(self, inputs=tuple(column[keep] for column in self.inputs), target_n=self.target_n[keep])

    def law(self, values_p: np.ndarray) -> Law:
        """The law with these parameters; (p, b) gives a law of b resamples."""
        return self.form(*values_p)

    def residuals(self, values_p: np.ndarray) -> np.ndarray:
        """Predicted minus measured, of ln L or of L: (n,)."""
        predicted = self.law(values_p).loss(*self.inputs)
        if self.residual == "log":
            return np.asarray(np.log(predicted) - np.log(self.target_n))
        return np.asarray(predicted - self.target_n)

    def predicted(self, values_p: np.ndarray) -> np.ndarray:
        """The law's losses at the runs (n,), also where it is a constant."""
        return np.broadcast_to(np.asarray(self.law(values_p).loss(*self.inputs), dtype=float), self.target_n.shape)

    def objective(self, values_p: np.ndarray, weights_n: np.ndarray | None = None) -> float:
        """The sum over runs: Huber 0.5 r^2 or delta (|r| - delta/2); |r| for lad; r^2 for squared."""
        residual = self.residuals(values_p)
        weights = np.ones(self.runs) if weights_n is None else weights_n
        if self.loss == "squared":
            return float(weights @ residual**2)
        if self.loss == "lad":
            return float(weights @ np.abs(residual))
        slope = np.clip(residual, -self.delta, self.delta)
        return float(weights @ (slope * (residual - 0.5 * slope)))
