"""One objective, `sum_i w_i rho(r_i)` of a law over runs, and its global minimum for one weighting or for thousands.

Chinchilla's form has its own exact solver (`solve.py`); any other form goes through `general.py`. Both answer the
same three questions, so that fits, intervals and checks do not care which law they have.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmscale.core.errors import UserError, nearest
from lmscale.study.fits.solvers import general, solve
from lmscale.study.laws import Chinchilla, Law

LOSSES = ("huber", "lad", "squared")
STARTS = 24


@dataclass(frozen=True)
class Best:
    """The lowest minimum found: parameters by name order (p,), and how surely it is the global one."""

    values_p: np.ndarray
    objective: float
    gradient: float
    """Largest absolute component of the objective's gradient in the solver's unknowns."""
    starts: int
    agreeing: int
    """Starts that ended within 1e-6 of the lowest objective, relatively."""


@dataclass(frozen=True)
class Problem:
    """A form, its data and its objective. `inputs` (k arrays of shape (n,)), `target_n` (n,).

    `target_n` may be (n, b): then `many` solves b problems that each have targets of their own.
    `loss` is "huber" (threshold `delta`), "lad" or "squared"; `residual` is "log" (of ln L) or "raw" (of L, in nats).
    `fixed` holds parameters at given values.
    """

    form: type[Law]
    inputs: tuple[np.ndarray, ...]
    target_n: np.ndarray
    loss: str = "huber"
    delta: float = 1e-3
    residual: str = "log"
    fixed: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"no loss function is called {self.loss!r}{nearest(self.loss, LOSSES)}")
        if self.residual not in ("log", "raw"):
            raise UserError(f"residual = {self.residual!r}: residuals are taken of ln L ('log') or of L ('raw')")
        if not self.delta > 0:
            raise UserError(f"delta = {self.delta}: the Huber threshold must be positive; 1e-3 is the published one")
        for name in self.fixed or {}:
            if name not in self.form.names():
                raise UserError(
                    f"the law {self.form.NAME!r} has no parameter {name!r}{nearest(name, self.form.names())}"
                )

    @property
    def runs(self) -> int:
        return len(self.target_n)

    @property
    def target_nb(self) -> np.ndarray:
        """The targets beside a problem axis: (n, 1) where all problems share them, else (n, b)."""
        return self.target_n[:, None] if self.target_n.ndim == 1 else self.target_n

    def among(self, problems: Any) -> "Problem":
        """The problem with the targets of some of its b problems, an index."""
        return self if self.target_n.ndim == 1 else replace(self, target_n=self.target_n[:, problems])

    @property
    def free(self) -> tuple[str, ...]:
        return tuple(name for name in self.form.names() if name not in (self.fixed or {}))

    @property
    def _exact(self) -> bool:
        return self.form is Chinchilla and not self.fixed

    @property
    def _points(self) -> solve.Points:
        params, tokens = self.inputs
        log = self.residual == "log"
        return solve.Points.of(params, tokens, self.target_n, log_residual=log, loss=self.loss, delta=self.delta)

    def using(self, **changes: Any) -> "Problem":
        """The same data under another loss, delta or residual."""
        return replace(self, **changes)

    def without(self, leave_out_n: np.ndarray) -> "Problem":
        """The problem without the marked runs."""
        keep = ~leave_out_n
        return replace(self, inputs=tuple(column[keep] for column in self.inputs), target_n=self.target_n[keep])

    def best(self, weights_n: np.ndarray | None = None) -> Best:
        """The global minimum: the best cells of a fine grid, each refined to a stationary point."""
        weights = np.ones(self.runs) if weights_n is None else weights_n
        if not self._exact:
            return general.best(self, weights)
        points = self._points
        starts = solve.grid_starts(points, weights[:, None], 40, STARTS)[:, :, 0]
        found = solve.refine(points, np.repeat(weights[:, None], STARTS, axis=1), starts)
        index = int(found.objective_b.argmin())
        lowest = float(found.objective_b[index])
        agreeing = int((found.objective_b <= lowest * (1 + 1e-6) + 1e-25).sum())
        values = points.named(found.theta_pb[:, [index]])[:, 0]
        gradient = float(found.gradient_b[index])
        return Best(values, self.objective(values, weights), gradient, STARTS, agreeing)

    def many(
        self, weights_nb: np.ndarray, around_p: np.ndarray | None = None, thorough: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Minima of b weightings: values (p, b), and whether each converged (b,). `around_p` is one more start."""
        if not self._exact:
            return general.many(self, weights_nb, around_p)
        points = self._points
        also = None if around_p is None else points.theta(around_p[:, None])[:, 0]
        found = solve.solve_many(points, weights_nb, also_p=also, grid=16 if thorough else 8)
        return points.named(found.theta_pb), found.converged_b

    def law(self, values_p: np.ndarray) -> Law:
        """The law with these parameters; (p, b) gives a law of b resamples."""
        return self.form(*values_p)

    def residuals(self, values_p: np.ndarray) -> np.ndarray:
        """Predicted minus measured, of ln L or of L: (n,)."""
        predicted = self.law(values_p).loss(*self.inputs)
        if self.residual == "log":
            return np.asarray(np.log(predicted) - np.log(self.target_n))
        return np.asarray(predicted - self.target_n)

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

    def jacobian(self, values_p: np.ndarray) -> np.ndarray:
        """Derivative of the residuals by the free unknowns on their search scale (n, p), by complex steps: exact."""
        return general.jacobian(self, values_p)

    def condition(self, values_p: np.ndarray) -> float:
        """cond(J), J's columns as they are: near 1e3 for a good design; above 1e6 the terms cannot be told apart.

        Infinite where a derivative is not finite.
        """
        slopes = self.jacobian(values_p)
        return float(np.linalg.cond(slopes)) if np.isfinite(slopes).all() else math.inf
