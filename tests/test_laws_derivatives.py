"""Derivatives of laws that a user wrote: exact, or one sentence; and where minimisers end."""

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from helpers.three_axes import TRUTH, Three, three_axes

from lmscale import UserError, fits
from lmscale.study.fits.solvers import derivatives
from lmscale.study.fits.solvers.minimise import minimise
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.laws import Law, Parameter
from lmscale.study.laws.dual import Dual


@pytest.mark.long
def test_bounds_that_straddle_zero_need_no_starts() -> None:
    @dataclass(frozen=True)
    class Signed(Law):
        E: Any
        c: Any
        NAME: ClassVar[str] = "signed"
        PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
            Parameter("E", 0.1, 10),
            Parameter("c", -2, 2, log=False),
        )
        INPUTS: ClassVar[tuple[Any, ...]] = ("flops",)

        def loss(self, flops: Any) -> Any:
            return self.E + np.abs(self.c) ** self.c * (flops / 1e18) ** self.c

    flops = np.geomspace(1e16, 1e20, 12)
    table = pd.DataFrame({"run": range(12), "flops": flops, "loss_nats": Signed(1.5, -0.2).loss(flops)})
    fit = fits.loss_law(table, Signed, resamples=0, check=True)
    assert fit.law.values() == pytest.approx({"E": 1.5, "c": -0.2}, rel=1e-5)
    assert [s.severity for s in fit.status if s.name == "starts"] == ["ok"]


@pytest.mark.parametrize(
    "function",
    [
        np.log10, np.log2, np.exp2, np.abs, np.fabs, np.cbrt, np.sinh, np.cosh, np.sin, np.cos, np.arctan,
        np.reciprocal,
        lambda x: np.maximum(x, 0.5), lambda x: np.maximum(1.0, x), lambda x: np.clip(x, 0.1, 5), abs,
        lambda x: np.where(x > 1, x**2, 3 * x), lambda x: np.logaddexp(x, 2.0), lambda x: np.hypot(x, 2.0),
        lambda x: np.float_power(x, 1.5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("at", [0.7, 1.9])
def test_functions_of_a_loss_have_exact_derivatives(function: Any, at: float) -> None:
    result = function(Dual(np.array(at), {0: np.array(1.0)}))
    step = 1e-6
    assert result.value == pytest.approx(function(at))
    assert result.tangents[0] == pytest.approx((function(at + step) - function(at - step)) / (2 * step), rel=1e-6)


def constant(loss: Any) -> type[Law]:
    """A law of one parameter with this loss of N."""
    own = {
        "__annotations__": {"E": float}, "NAME": "own", "PARAMETERS": (Parameter("E", 0.1, 9),), "INPUTS": ("params",),
        "loss": loss,
    }  # fmt: skip
    return dataclass(frozen=True)(type("Own", (Law,), own))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda self, params: math.log(self.E), "line {line} (TypeError"),
        (lambda self, params: self.E if self.E > 1 else 2 * self.E, "line {line} (ValueError"),
        (lambda self, params: np.floor(self.E), "uses floor, which has no derivative rule"),
        (lambda self, params: 2.0 + 0 * params, "does not depend on its parameters"),
        (lambda self, params: self.E / 0, "test_laws_derivatives.py, line {line}: ZeroDivisionError: division by zero"),
        (lambda self, params: self.E + beta, "line {line}: NameError: name 'beta' is not defined"),  # type: ignore[name-defined]  # noqa: F821
        (lambda self, params: None, "gives None for 3 runs"),
        (lambda self, params: (self.E * params ** (1 / self.E))[:2], "of float64 for 3 runs: it returns a real number"),
        (lambda self, params: (1 + 1j) * self.E + 0 * params, "of complex128 for 3 runs"),
    ],
)
def test_a_loss_that_is_not_differentiable_is_one_sentence(loss: Any, sentence: str) -> None:
    table = pd.DataFrame({"run": ["a", "b", "c"], "params": [1e6, 2e6, 3e6], "loss_nats": [3.0, 2.5, 2.2]})
    with pytest.raises(UserError, match=re.escape(sentence.format(line=loss.__code__.co_firstlineno))):
        fits.loss_law(table, constant(loss), resamples=0)


def test_second_derivatives_are_exact_also_of_functions_that_no_complex_number_has() -> None:
    table = three_axes()
    data = tuple(table[name].to_numpy() for name in Three.INPUTS)
    problem = Problem(Three, data, table.loss_nats.to_numpy())
    theta = derivatives.to_theta(problem, np.array([[v] for v in TRUTH.values().values()]))
    exact = derivatives.second_derivatives(problem, theta)
    step = 1e-5
    for k in range(len(theta)):
        move = step * np.eye(len(theta))[:, [k]]
        numeric = derivatives.derivatives(problem, theta + move) - derivatives.derivatives(problem, theta - move)
        assert exact[k] == pytest.approx(numeric / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.long
def test_least_squares_end_at_a_stationary_point() -> None:
    table = three_axes(noise=1e-2)
    data = tuple(table[name].to_numpy() for name in Three.INPUTS)
    for loss in ("squared", "huber", "lad"):
        best = minimise(Problem(Three, data, table.loss_nats.to_numpy(), loss))
        assert best.gradient < 1e-6 and best.agreeing > 1
