"""The best inputs of a law under constraints: FLOPs of training and inference, memory, unique tokens, a teacher's cost.

One optimiser for any law of any inputs: sequential quadratic programming (SLSQP) in the logarithms of the free
inputs, with exact derivatives of the loss and of every constraint. Laws may have several local minima, so it starts
from several points of the box, and the lowest that meets the constraints is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmscale.core.arguments import NotNegative, Number, Positive, checked
from lmscale.core.errors import UserError, nearest
from lmscale.core.user_code import called
from lmscale.study.laws.compute import SIX_ND, ComputeModel
from lmscale.study.laws.law import Law

WIDEST = (1.0, 1e30)
"""Range of an input that no constraint and no caller bounds."""
STARTS = 12
MET = 1e-6
"""Relative excess up to which a constraint is met."""


@checked
@dataclass(frozen=True)
class Constraint:
    """`cost(inputs)` is at most `most`: a cost grows with the inputs and is above 0. `name` stands in sentences."""

    name: str
    most: Number
    cost: Callable[[Mapping[str, Any]], Any]

    def __post_init__(self) -> None:
        if not 0 < self.most < np.inf:
            raise UserError(f"the constraint {self.name!r} allows at most {self.most}: give a positive number")

    def at(self, inputs: Mapping[str, Any]) -> Any:
        """The cost at some inputs; an error in a function of the user's is a sentence."""
        return called(f"the cost of the constraint {self.name!r}", self.cost, inputs)


@checked
def training_flops(most: Number, compute: ComputeModel = SIX_ND) -> Constraint:
    """C of training, k N^p D."""
    return Constraint("training FLOPs", most, lambda x: compute.flops(x["params"], x["tokens"]))


@checked
def lifetime_flops(most: Number, inference_tokens: NotNegative, compute: ComputeModel = SIX_ND) -> Constraint:
    """C of training and of reading `inference_tokens`, each a third of training's (Sardana 2024, arXiv 2401.00448)."""
    return Constraint(
        "training and inference FLOPs",
        most,
        lambda x: compute.flops(x["params"], x["tokens"]) + compute.flops(x["params"], inference_tokens) / 3,
    )


@checked
def weights_memory(
    most_bytes: Number, bytes_per_param: Positive = 2.0, total: Callable[[Any, Any], Any] | None = None
) -> Constraint:
    """Bytes of the weights, in bfloat16 unless said otherwise.

    `total` gives all parameters from (params, experts) where the law's N are the active ones: all experts are in
    memory.
    """
    if total is None:
        return Constraint("memory of the weights", most_bytes, lambda x: bytes_per_param * x["params"])
    return Constraint(
        "memory of the weights of all experts", most_bytes, lambda x: bytes_per_param * total(x["params"], x["experts"])
    )


@checked
def vocabulary_flops(most: Number, characters_per_token: Number) -> Constraint:
    """C of training, 6 (N_non-vocabulary + N_vocabulary) D, of a law that counts its text in characters.

    A larger vocabulary has longer tokens: the characters of one are those of the sizes compared (Tao 2024, arXiv
    2407.13623, section 3).
    """
    if not 0 < characters_per_token < np.inf:
        raise UserError(f"characters_per_token = {characters_per_token}: give a positive number")
    return Constraint(
        "training FLOPs",
        most,
        lambda x: 6 * (x["params_non_vocab"] + x["params_vocab"]) * x["characters"] / characters_per_token,
    )


@checked
def at_most(name: str, most: Number) -> Constraint:
    """One input is bounded."""
    return Constraint(name, most, lambda x: x[name])


@checked
def teacher_flops(
    most: Number, teacher_params: Positive, teacher_tokens: NotNegative = 0.0, compute: ComputeModel = SIX_ND
) -> Constraint:
    """C of a student with its teacher: its training, the teacher's logits and, if need be, the teacher's training.

    3 F(N_S) D_S + F(N_T) (D_S + 3 D_T), F the cost of a forward pass per token (Busbridge 2025, arXiv 2502.08606).
    """
    return Constraint(
        "FLOPs of student and teacher",
        most,
        lambda x: (
            compute.flops(x["params"], x["tokens"])
            + compute.flops(teacher_params, x["tokens"]) / 3
            + compute.flops(teacher_params, teacher_tokens)
        ),
    )


@dataclass(frozen=True)
class Optimum:
    """The best inputs, the loss there, and the constraints that bind."""

    inputs: dict[str, float]
    loss: float
    binding: tuple[str, ...]
    free: tuple[str, ...] = field(default=())


@checked
def allocate(
    law: Law,
    constraints: Sequence[Constraint],
    *,
    free: Mapping[str, tuple[float, float]] | Sequence[str] = ("params", "tokens"),
    given: Mapping[str, float] | None = None,
    near: Mapping[str, float] | None = None,
) -> Optimum:
    """The inputs `free`, each within its range, that make the loss lowest under all `constraints`; others as `given`.

    `given` may hold inputs that a constraint alone needs, as the tokens of a law of sizes. `near` is one start alone,
    for a law that hardly differs from one already solved. Raises `UserError` where an input has no value, no allocation
    meets the constraints, or the loss falls without end.
    """
    problem = _Allocation(law, tuple(constraints), _ranges(law, free), dict(given or {}))
    problem.check()
    best: tuple[float, np.ndarray] | None = None
    if near is not None and (lacking := [name for name in problem.free if not near.get(name, 0) > 0]):
        raise UserError(f"near = {dict(near)} gives no positive {lacking[0]}: it is a start for every free input")
    for start in problem.starts() if near is None else [np.log([near[name] for name in problem.free])]:
        end = problem.solve(start)
        if end is not None and (best is None or end[0] < best[0]):
            best = end
    if best is None:
        raise problem.infeasible()
    inputs = problem.inputs(best[1])
    problem.check_bounded(best[1])
    binding = tuple(one.name for one in constraints if float(one.at(inputs)) >= one.most * (1 - 1e-4))
    return Optimum({name: float(value) for name, value in inputs.items()}, float(best[0]), binding, tuple(problem.free))


def _ranges(law: Law, free: Mapping[str, tuple[float, float]] | Sequence[str]) -> dict[str, tuple[float, float]]:
    ranges = dict(free) if isinstance(free, Mapping) else dict.fromkeys(free, WIDEST)
    for name, (low, high) in ranges.items():
        if name not in law.INPUTS:
            raise UserError(f"the law {law.NAME!r} has no input {name!r}: it is of {', '.join(law.INPUTS)}")
        if not 0 < low < high < np.inf:
            raise UserError(f"{name} is free between {low:g} and {high:g}: give positive ends, the lower one first")
    return ranges


@dataclass(frozen=True)
class _Allocation:
    """A law to be minimised over the logarithms of its free inputs (f,)."""

    law: Law
    constraints: tuple[Constraint, ...]
    free: dict[str, tuple[float, float]]
    given: dict[str, float]

    def check(self) -> None:
        """Raises `UserError` where an input has no value, a value has no input, or one constraint allows nothing."""
        costs = [_needs(one) for one in self.constraints]
        known = {*self.law.INPUTS, *(name for needs in costs for name in needs)}
        if unknown := [name for name in self.given if name not in known]:
            raise UserError(
                f"neither the law {self.law.NAME!r} nor a constraint takes {unknown[0]!r}{nearest(unknown[0], known)}"
            )
        for one, needs in zip(self.constraints, costs):
            if lacking := [name for name in needs if name not in {*self.free, *self.given}]:
                raise UserError(
                    f"the constraint of {one.name} needs {' and '.join(lacking)}, and the law {self.law.NAME!r} is of "
                    f"{', '.join(self.law.INPUTS)}: give `given='{','.join(f'{name}=...' for name in lacking)}'`"
                )
        required = {"params", "tokens", *self.law.further_inputs()} & set(self.law.INPUTS)
        if lacking := [name for name in self.law.INPUTS if name in required and name not in {*self.free, *self.given}]:
            raise UserError(
                f"the law {self.law.NAME!r} needs {' and '.join(lacking)}: give "
                f"`given='{','.join(f'{name}=...' for name in lacking)}'`, or let them be chosen"
            )
        smallest = {**self.given, **{name: low for name, (low, _) in self.free.items()}}
        for one in self.constraints:
            if float(one.at(smallest)) > one.most * (1 + MET):
                raise UserError(
                    f"no allocation has {one.name} of at most {one.most:.3g}: the smallest needs "
                    f"{float(one.at(smallest)):.3g}; allow more"
                )

    def inputs(self, log_f: Any) -> dict[str, Any]:
        return {**self.given, **{name: np.exp(log_f[index]) for index, name in enumerate(self.free)}}

    def loss(self, log_f: Any) -> Any:
        return self.law.loss_of(**self.inputs(log_f))

    def excess(self, log_f: Any, one: Constraint) -> Any:
        """ln of the cost over what is allowed."""
        return np.log(one.at(self.inputs(log_f)) / one.most)

    def starts(self) -> list[np.ndarray]:
        """Points of the box, shrunk until every constraint is met."""
        low, high = np.log(np.array(list(self.free.values()))).T
        points = low + np.random.default_rng(0).uniform(0.02, 0.98, (STARTS, len(low))) * (high - low)
        return [self._feasible(low, point) for point in points]

    def _feasible(self, low: np.ndarray, point: np.ndarray) -> np.ndarray:
        inside, outside = 0.0, 1.0
        for _ in range(60):
            share = (inside + outside) / 2
            met = all(self.excess(low + share * (point - low), one) <= 0 for one in self.constraints)
            inside, outside = (share, outside) if met else (inside, share)
        return low + inside * (point - low)

    def solve(self, start: np.ndarray) -> tuple[float, np.ndarray] | None:
        """Loss and logarithms of the inputs at a minimum, None where none was reached that meets the constraints."""
        from scipy.optimize import minimize

        box = [tuple(np.log(ends)) for ends in self.free.values()]
        rules = [
            {"type": "ineq", "fun": lambda x, one=one: -float(self.excess(x, one)),
             "jac": lambda x, one=one: -_gradient(lambda y: self.excess(y, one), x)}
            for one in self.constraints
        ]  # fmt: skip
        scale = max(abs(float(self.loss(start))), 1e-12)
        with np.errstate(all="ignore"):
            end = minimize(
                lambda x: float(self.loss(x)) / scale, start, jac=lambda x: _gradient(self.loss, x) / scale, bounds=box,
                constraints=rules, method="SLSQP", options={"maxiter": 400, "ftol": 1e-15},
            )  # fmt: skip
            met = all(self.excess(end.x, one) <= MET for one in self.constraints)
        return (float(end.fun) * scale, end.x) if met and np.isfinite(end.fun) else None

    def check_bounded(self, log_f: np.ndarray) -> None:
        """Raises `UserError` where a free input that nobody bounded ends at the limit of the search."""
        for value, (name, (low, high)) in zip(log_f, self.free.items()):
            if (low, high) == WIDEST and (value < np.log(low) + 1e-6 or value > np.log(high) - 1e-6):
                end = "smaller" if value < np.log(low) + 1e-6 else "larger"
                raise UserError(
                    f"the loss of {self.law.NAME!r} falls for ever {end} {name}: add a constraint, or give it a range"
                )

    def infeasible(self) -> UserError:
        limits = " and ".join(f"{one.name} of at most {one.most:.3g}" for one in self.constraints)
        return UserError(f"no allocation meets {limits or 'the ranges'}: allow more of one of them")


class _Read(dict[str, float]):
    """Inputs that are all 1, and remember which were asked for."""

    def __missing__(self, name: str) -> float:
        self[name] = 1.0
        return 1.0


def _needs(one: Constraint) -> tuple[str, ...]:
    """The inputs that a constraint's cost reads."""
    inputs = _Read()
    one.at(inputs)
    return tuple(inputs)


def _gradient(function: Callable[[Any], Any], log_f: np.ndarray) -> np.ndarray:
    """The exact gradient (f,) by forward differentiation."""
    from lmscale.study.laws.dual import Dual

    value = function([Dual(np.asarray(x), {index: np.asarray(1.0)}) for index, x in enumerate(log_f)])
    tangents = value.tangents if isinstance(value, Dual) else {}
    return np.array([float(tangents.get(index, 0.0)) for index in range(len(log_f))])
