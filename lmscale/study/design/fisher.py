"""What runs can say of a law before any is trained: Fisher information at a prior law, under a named noise.

With independent noise of standard deviation sigma on the loss, the covariance of the best unbiased estimate of the
law's unknowns is sigma^2 (J^T J)^-1, where J holds the derivative of every run's loss by every unknown (Cramer-Rao).
An unknown is a parameter, or its logarithm where `Parameter.log` says so: of Chinchilla's form E, ln A, ln B, alpha and
beta, as in a fit. The numbers are what a fit by squares reaches; a robust loss gives up a little.

Letters: n runs, p unknowns.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError, nearest
from lmscale.study.design.line import Line, line_through
from lmscale.study.design.prior import Prior, unknowns
from lmscale.study.grouping import point_index
from lmscale.study.laws import SIX_ND, ComputeModel, Law
from lmscale.study.laws.discrepancy import coordinates, factor
from lmscale.study.laws.dual import Dual

UNIDENTIFIED = 1e6
"""cond(J) of a good design is near 1e3, of a D = 20 N line above 1e9."""
STEP = 1e-30
"""Step of the complex-step derivative, which has no rounding error to balance."""
REAL_STEP = 1e-5
NONE = np.zeros(0)
"""A column that runs do not state."""


@checked
@dataclass(frozen=True)
class Runs:
    """Where runs lie: params, tokens, unique tokens and any further inputs of a law (n,); clusters share noise."""

    params_n: np.ndarray = field(default_factory=lambda: NONE)
    tokens_n: np.ndarray = field(default_factory=lambda: NONE)
    unique_n: np.ndarray | None = None
    clusters_n: Sequence[str] | None = None
    most_nats: float = math.inf
    """Largest loss that a run can have: ln V of its vocabulary."""
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further inputs by name, as experts or streams."""

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray], **rest: Any) -> "Runs":
        """Runs from the columns of a table, by the names of a law's inputs."""
        columns = {name: np.asarray(column, dtype=float) for name, column in columns.items()}
        params_n, tokens_n = columns.pop("params", NONE), columns.pop("tokens", NONE)
        unique_n = columns.pop("unique_tokens", None)
        return cls(params_n, tokens_n, unique_n, others=columns, **rest)

    def __len__(self) -> int:
        return max(len(column) for column in (self.params_n, self.tokens_n, *self.others.values()))

    def inputs(self, law: Law) -> list[np.ndarray]:
        """The columns that `law` takes. Raises `UserError` where they lack one."""
        unique_n = self.tokens_n if self.unique_n is None else self.unique_n
        columns = {"params": self.params_n, "tokens": self.tokens_n, "unique_tokens": unique_n, **self.others}
        known = {name: column for name, column in columns.items() if len(column)}
        if lacking := [name for name in law.INPUTS if name not in known]:
            raise UserError(
                f"the law {law.NAME!r} is of {', '.join(law.INPUTS)}, and the runs state no {lacking[0]}"
                f"{nearest(lacking[0], known)}"
            )
        return [known[name] for name in law.INPUTS]


def gradient(law: Law, quantity: Callable[[Law], Any]) -> np.ndarray:
    """Derivative of `quantity` by every unknown, the unknown last: (..., p). Exact, by complex steps.

    Where a law's function has no complex form, central differences stand in. The law's parameters may be arrays:
    `quantity` then broadcasts over them.
    """
    theta_p = unknowns(law)

    def at(shifted_p: np.ndarray) -> np.ndarray:
        values = {parameter.name: np.exp(x) if parameter.log else x for parameter, x in zip(law.PARAMETERS, shifted_p)}
        return np.asarray(quantity(replace(law, **values)))

    columns = []
    for index in range(len(theta_p)):
        along = np.zeros((len(theta_p), *(1,) * (theta_p.ndim - 1)))
        along[index] = 1.0
        try:
            columns.append(at(theta_p + 1j * STEP * along).imag / STEP)
        except (TypeError, UserError):  # a user's law tells its errors in a sentence
            columns.append((at(theta_p + REAL_STEP * along) - at(theta_p - REAL_STEP * along)) / (2 * REAL_STEP))
    return np.stack(columns, axis=-1)


@checked
def jacobian(law: Law, runs: Runs) -> np.ndarray:
    """J: derivative of every run's loss by every unknown (n, p), exact for any law; (r, n, p) of parameters (r, 1)."""
    inputs = runs.inputs(law)
    duals: dict[str, Any] = {
        parameter.name: Dual(value, {index: value if parameter.log else np.ones_like(value)})
        for index, (parameter, value) in enumerate(
            (parameter, np.asarray(getattr(law, parameter.name), dtype=float)) for parameter in law.PARAMETERS
        )
    }
    loss = replace(law, **duals).loss(*inputs)
    shape = np.broadcast_shapes(np.shape(loss.value), inputs[0].shape)
    slopes = [np.broadcast_to(loss.tangents.get(index, 0.0), shape) for index in range(len(law.PARAMETERS))]
    return np.stack(slopes, axis=-1)


@checked
def condition(law: Law, runs: Runs) -> float:
    """cond(J), columns as they are; infinite with fewer distinct runs than unknowns.

    Whole layers and whole batches move runs a little off the line that they were meant to lie on, which lowers cond(J)
    and tells the terms apart no better. So runs near one line are judged as if they lay on it.
    """
    if not len(runs):
        return math.inf
    on_line, line = runs, line_of(law, runs)
    if line is not None:
        tokens_n = runs.tokens_n if line.one_tokens is None else np.full(len(runs), line.one_tokens)
        params_n = runs.params_n if line.one_params is None else np.full(len(runs), line.one_params)
        on_line = replace(runs, params_n=params_n, tokens_n=line.tokens(params_n) if line.sloped else tokens_n)
    slopes_np = jacobian(law, on_line)
    points = point_index(dict(zip(law.INPUTS, on_line.inputs(law))))
    if points.max(initial=-1) + 1 < slopes_np.shape[1]:
        return math.inf
    return float(np.linalg.cond(slopes_np)) if np.isfinite(slopes_np).all() else math.inf


def line_of(law: Law, runs: Runs) -> Line | None:
    """The line in (ln N, ln D) that all runs lie on, for a law of both: along it their terms look alike."""
    return line_through(runs.params_n, runs.tokens_n) if len(runs) and law.splits_compute() else None


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

    def sd(self, quantity: str | Callable[[Law], Any] | Runs) -> float | None:
        """Predicted standard deviation of "a", of a parameter, of a function of the law, or of the losses of `Runs`.

        It is that of the parameter's logarithm where `Parameter.log` says so, and of several losses the root mean
        square. A discrepancy of the prior adds to that of losses; a function of the law is of the law alone. None where
        the design cannot identify the law. Raises `UserError` for an unknown name.
        """
        if self.covariance_pp is None:
            return None
        if self.prior.discrepancy is not None and isinstance(quantity, Runs):
            slopes_nq, slopes_tq = extended_slopes(self.prior, self.runs, quantity)
            spread_qt = np.linalg.solve(precision(self.prior, self.runs, slopes_nq), slopes_tq.T)
            return float(np.sqrt(np.einsum("tq,qt->t", slopes_tq, spread_qt).mean()))
        slopes_tp = slopes_of(self.prior.law, self.quantity(quantity) if isinstance(quantity, str) else quantity)
        return float(np.sqrt(np.einsum("tp,pq,tq->t", slopes_tp, self.covariance_pp, slopes_tp).mean()))

    @property
    def states_optimum(self) -> bool:
        """Whether the law has an optimal N at a budget: it is of N and D, and its further inputs are given."""
        law = self.prior.law
        return law.splits_compute() and set(law.further_inputs()) <= set(self.prior.given)

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
        return lambda law: np.log(law.optimum(flops, self.compute, **self.prior.given).tokens_per_param)

    def log_params(self, flops: float) -> Callable[[Law], Any]:
        """ln N* at a compute budget."""
        return lambda law: np.log(law.optimum(flops, self.compute, **self.prior.given).params)

    def at_optimum(self, flops: float) -> Runs:
        """The run at the optimum of a compute budget.

        At an optimum the loss does not change with N along the budget, so that its slopes by the unknowns are those at
        this one run.
        """
        best = self.prior.law.optimum(flops, self.compute, **self.prior.given)
        inputs = {**self.prior.given, "params": best.params, "tokens": best.tokens}
        return Runs.of({name: np.array([value]) for name, value in inputs.items()})


def slopes_of(law: Law, quantity: Callable[[Law], Any] | Runs) -> np.ndarray:
    """Derivatives of a quantity, or of the losses of runs, by every unknown (t, p)."""
    return jacobian(law, quantity) if isinstance(quantity, Runs) else gradient(law, quantity)[None]


@checked
def information(prior: Prior, runs: Runs, compute: ComputeModel = SIX_ND) -> Information:
    """Judge `runs` under `prior`. `compute` splits a budget into N and D for the quantities at a target."""
    cond_J = condition(prior.law, runs)
    line = line_of(prior.law, runs)
    covariance_pp = None
    if cond_J < UNIDENTIFIED:
        covariance_pp = np.linalg.inv(fisher(prior, runs))
    return Information(prior, runs, cond_J, line, compute, covariance_pp)


def fisher(prior: Prior, runs: Runs, noises: np.ndarray | float = 1.0) -> np.ndarray:
    """What runs say of the law's unknowns (p, p); (r, p, p) for a prior whose law has parameters (r, 1).

    That is J^T Sigma^-1 J, Sigma the covariance of the losses about the law: noise, and the prior's discrepancy.
    `noises` (r,) are multiples of the prior's noise, one for each law; the result is then times their square.
    """
    (slopes_nq,) = extended_slopes(prior, runs)
    known_qq = precision(prior, runs, slopes_nq, noises)
    unknowns = len(prior.law.PARAMETERS)
    law_pp, both_pk, rest_kk = (
        known_qq[..., :unknowns, :unknowns], known_qq[..., :unknowns, unknowns:], known_qq[..., unknowns:, unknowns:]
    )  # fmt: skip
    if prior.discrepancy is None:
        return law_pp
    return np.asarray(law_pp - both_pk @ np.linalg.solve(rest_kk, np.swapaxes(both_pk, -1, -2)))


def precision(prior: Prior, runs: Runs, slopes_nq: np.ndarray, noises: np.ndarray | float = 1.0) -> np.ndarray:
    """The inverse covariance (q, q) of the law's unknowns and of its discrepancy's; (r, q, q) of many laws.

    It is that after the runs, whose slopes are those of `extended_slopes`; before them the former may have any value,
    and the latter are standard normal. With noise of `noises` (r,) times the prior's it is times their square.
    """
    known_q = (np.arange(slopes_nq.shape[-1]) >= len(prior.law.PARAMETERS)) * np.square(noises)[..., None]
    known_qq = known_q[..., None] * np.eye(slopes_nq.shape[-1])
    across = np.swapaxes(slopes_nq, -1, -2)
    if runs.clusters_n is None or prior.shared == 0:
        return np.asarray(across @ slopes_nq / prior.noise_nats**2 + known_qq)
    labels_n = np.array([str(label) for label in runs.clusters_n])
    same_cluster_nn = (labels_n[:, None] == labels_n[None, :]) & (labels_n[:, None] != "")
    noise_nn = prior.noise_nats**2 * np.where(np.eye(len(runs), dtype=bool), 1.0, prior.shared * same_cluster_nn)
    return np.asarray(across @ (np.linalg.inv(noise_nn) @ slopes_nq) + known_qq)


def extended_slopes(prior: Prior, *several: Runs) -> list[np.ndarray]:
    """Slopes of the losses of each `Runs` by the law's unknowns and then by those of its discrepancy: (n, p + k).

    The latter are standard normal before any run, and shared by all of `several`. Without a discrepancy k is 0.
    """
    law, discrepancy = prior.law, prior.discrepancy
    stated = [runs for runs in several if len(runs)]
    if not stated:
        return [np.zeros((0, len(law.PARAMETERS))) for _ in several]
    slopes = [possible_slopes(law, runs) for runs in stated]
    if discrepancy is not None:
        inputs = [runs.inputs(law) for runs in stated]
        together = [np.concatenate(columns) for columns in zip(*inputs)]
        features = discrepancy.size * factor(coordinates(law, together, together), discrepancy.length)
        parts = np.split(features, np.cumsum([len(runs) for runs in stated])[:-1])
        for index, (runs, part_nk) in enumerate(zip(stated, parts)):
            by_discrepancy_nk = possible_loss(law, runs)[..., None] * part_nk
            by_discrepancy_nk = np.broadcast_to(by_discrepancy_nk, (*slopes[index].shape[:-1], part_nk.shape[1]))
            slopes[index] = np.concatenate([slopes[index], by_discrepancy_nk], axis=-1)
    filled = iter(slopes)
    return [next(filled) if len(runs) else np.zeros((0, slopes[0].shape[-1])) for runs in several]


def possible_loss(law: Law, runs: Runs) -> np.ndarray:
    """The law's losses (n,); those in nats are at most ln V."""
    loss_n = np.asarray(law.loss(*runs.inputs(law)))
    return loss_n if law.TARGET != "loss_nats" else np.minimum(loss_n, runs.most_nats)


def possible_slopes(law: Law, runs: Runs) -> np.ndarray:
    """J with the slopes of losses above ln V as they are at ln V: those of ln L, times ln V.

    Taken far below the sizes it was fitted to, a law predicts losses that no model can have, with slopes as steep, and
    runs that pin it down as no run does.
    """
    slopes_np = jacobian(law, runs)
    if math.isinf(runs.most_nats) or law.TARGET != "loss_nats":
        return slopes_np
    return slopes_np * np.minimum(1.0, runs.most_nats / law.loss(*runs.inputs(law)))[..., None]
