"""What runs can say of a law before any is trained: Fisher information at a prior law, under a named noise.

With independent noise of standard deviation sigma on the loss, the covariance of the best unbiased estimate of the
law's unknowns is sigma^2 (J^T J)^-1, where J holds the derivative of every run's loss by every unknown (Cramer-Rao).
An unknown is a parameter, or its logarithm where `Parameter.log` says so: of Chinchilla's form E, ln A, ln B, alpha and
beta, as in a fit. The numbers are what a fit by squares reaches; a robust loss gives up a little.

Letters: n runs, p unknowns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.design.line import Line, line_through
from lmscale.study.design.prior import Prior, unknowns
from lmscale.study.grouping import point_index
from lmscale.study.laws import SIX_ND, ComputeModel, Law

UNIDENTIFIED = 1e6
"""cond(J) of a good design is near 1e3, of a D = 20 N line above 1e9."""
STEP = 1e-30
"""Step of the complex-step derivative, which has no rounding error to balance."""


@dataclass(frozen=True)
class Runs:
    """Where runs lie: params, tokens and, for laws of repeated data, unique tokens (n,); clusters share noise."""

    params_n: np.ndarray
    tokens_n: np.ndarray
    unique_n: np.ndarray | None = None
    clusters_n: Sequence[str] | None = None
    most_nats: float = math.inf
    """Largest loss that a run can have: ln V of its vocabulary."""

    def __len__(self) -> int:
        return len(self.params_n)

    def inputs(self, law: Law) -> list[np.ndarray]:
        """The columns that `law` takes."""
        columns = {"params": self.params_n, "tokens": self.tokens_n}
        columns["unique_tokens"] = self.tokens_n if self.unique_n is None else self.unique_n
        return [columns[name] for name in law.INPUTS]


def gradient(law: Law, quantity: Callable[[Law], Any]) -> np.ndarray:
    """Derivative of `quantity` by every unknown, the unknown last: (..., p). Exact, by complex steps.

    The law's parameters may be arrays: `quantity` then broadcasts over them.
    """
    theta_p = unknowns(law).astype(complex)
    columns = []
    for index in range(len(theta_p)):
        shifted_p = theta_p.copy()
        shifted_p[index] += 1j * STEP
        values = {parameter.name: np.exp(x) if parameter.log else x for parameter, x in zip(law.PARAMETERS, shifted_p)}
        columns.append(np.asarray(quantity(replace(law, **values))).imag / STEP)
    return np.stack(columns, axis=-1)


def jacobian(law: Law, runs: Runs) -> np.ndarray:
    """J: derivative of every run's loss by every unknown (n, p)."""
    return gradient(law, lambda shifted: shifted.loss(*runs.inputs(law)))


def condition(law: Law, runs: Runs) -> float:
    """cond(J), columns as they are; infinite with fewer distinct runs than unknowns.

    Whole layers and whole batches move runs a little off the line that they were meant to lie on, which lowers cond(J)
    and tells the terms apart no better. So runs near one line are judged as if they lay on it.
    """
    on_line, line = runs, line_through(runs.params_n, runs.tokens_n)
    if line is not None:
        tokens_n = runs.tokens_n if line.one_tokens is None else np.full(len(runs), line.one_tokens)
        params_n = runs.params_n if line.one_params is None else np.full(len(runs), line.one_params)
        on_line = replace(runs, params_n=params_n, tokens_n=line.tokens(params_n) if line.sloped else tokens_n)
    slopes_np = jacobian(law, on_line)
    points = point_index(dict(zip(law.INPUTS, on_line.inputs(law))))
    if points.max(initial=-1) + 1 < slopes_np.shape[1]:
        return math.inf
    return float(np.linalg.cond(slopes_np)) if np.isfinite(slopes_np).all() else math.inf


@dataclass(frozen=True)
class Information:
    """What a design says of a law. Standard deviations exist only where cond(J) lets the law be identified: those of a
    pseudo-inverse would look harmless."""

    prior: Prior
    runs: Runs
    condition: float
    line: Line | None
    compute: ComputeModel = SIX_ND
    covariance_pp: np.ndarray | None = field(default=None, repr=False)

    @property
    def identified(self) -> bool:
        """Whether the runs tell the law's terms apart."""
        return self.condition < UNIDENTIFIED

    def sd(self, quantity: str | Callable[[Law], Any]) -> float | None:
        """Predicted standard deviation of "a", of a parameter or of a function of the law.

        It is that of the parameter's logarithm where `Parameter.log` says so. None where the design cannot identify the
        law. Raises `UserError` for an unknown name.
        """
        if self.covariance_pp is None:
            return None
        slope_p = gradient(self.prior.law, self.quantity(quantity) if isinstance(quantity, str) else quantity)
        return float(np.sqrt(slope_p @ self.covariance_pp @ slope_p))

    def quantity(self, name: str) -> Callable[[Law], Any]:
        """A parameter or exponent as a function of the law."""
        law = self.prior.law
        if name == "a" and law.exponents(self.compute):
            return lambda shifted: shifted.exponents(self.compute)["params"]
        if name in law.names():
            log = next(parameter.log for parameter in law.PARAMETERS if parameter.name == name)
            return lambda shifted: np.log(getattr(shifted, name)) if log else getattr(shifted, name)
        raise UserError(f"the law {law.NAME!r} has no quantity {name!r}; known: {', '.join(law.names())}, a")

    def log_ratio(self, flops: float) -> Callable[[Law], Any]:
        """ln D*/N* at a compute budget."""
        return lambda law: np.log(law.optimum(flops, self.compute).tokens_per_param)

    def log_params(self, flops: float) -> Callable[[Law], Any]:
        """ln N* at a compute budget."""
        return lambda law: np.log(law.optimum(flops, self.compute).params)

    def loss(self, flops: float) -> Callable[[Law], Any]:
        """The law's loss at the optimum of a compute budget, in nats."""
        return lambda law: law.optimum(flops, self.compute).loss_nats


def information(prior: Prior, runs: Runs, compute: ComputeModel = SIX_ND) -> Information:
    """Judge `runs` under `prior`. `compute` splits a budget into N and D for the quantities at a target."""
    cond_J = condition(prior.law, runs)
    line = line_through(runs.params_n, runs.tokens_n)
    covariance_pp = None
    if cond_J < UNIDENTIFIED:
        covariance_pp = np.linalg.inv(fisher(prior, runs))
    return Information(prior, runs, cond_J, line, compute, covariance_pp)


def fisher(prior: Prior, runs: Runs) -> np.ndarray:
    """J^T Sigma^-1 J (p, p); (r, p, p) for a prior whose law has parameters (r, 1)."""
    slopes_np = possible_slopes(prior.law, runs)
    if runs.clusters_n is None or prior.shared == 0:
        return np.swapaxes(slopes_np, -1, -2) @ slopes_np / prior.noise_nats**2
    labels_n = np.array([str(label) for label in runs.clusters_n])
    same_cluster_nn = (labels_n[:, None] == labels_n[None, :]) & (labels_n[:, None] != "")
    noise_nn = prior.noise_nats**2 * np.where(np.eye(len(runs), dtype=bool), 1.0, prior.shared * same_cluster_nn)
    return np.asarray(np.swapaxes(slopes_np, -1, -2) @ (np.linalg.inv(noise_nn) @ slopes_np))


def possible_slopes(law: Law, runs: Runs) -> np.ndarray:
    """J with the slopes of losses above ln V as they are at ln V: those of ln L, times ln V.

    Taken far below the sizes it was fitted to, a law predicts losses that no model can have, with slopes as steep, and
    runs that pin it down as no run does.
    """
    slopes_np = jacobian(law, runs)
    if math.isinf(runs.most_nats):
        return slopes_np
    return slopes_np * np.minimum(1.0, runs.most_nats / law.loss(*runs.inputs(law)))[..., None]
