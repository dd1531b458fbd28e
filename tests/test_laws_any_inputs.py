"""Laws of any inputs: read, fitted, constrained, predicted, from Python and from the command line."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call

from lmscale import UserError, fits, laws, read_table
from lmscale.study.fits.runs import usable
from lmscale.study.fits.solvers import derivatives
from lmscale.study.fits.solvers.minimise import minimise
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.laws import SIX_ND, Input, Law, Parameter
from lmscale.study.laws.dual import Dual


@dataclass(frozen=True)
class Three(Law):
    """A law of size, data and a third axis that may be zero or negative."""

    E: Any
    A: Any
    B: Any
    alpha: Any
    c: Any

    NAME: ClassVar[str] = "three"
    FORMULA: ClassVar[str] = "L = E + A/N^alpha + B/D^alpha + c x"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("E", 0.1, 10, (1, 2), log=False),
        Parameter("A", 1e-3, 1e9, (1e2, 1e4)),
        Parameter("B", 1e-3, 1e9, (1e2, 1e4)),
        Parameter("alpha", 0.05, 2, (0.2, 0.5), log=False),
        Parameter("c", -1, 1, log=False),
    )
    INPUTS: ClassVar[tuple[Any, ...]] = ("params", "tokens", Input("x", "number"))

    def loss(self, params: Any, tokens: Any, x: Any) -> Any:
        return self.E + self.A * params**-self.alpha + self.B * tokens**-self.alpha + self.c * x


TRUTH = Three(1.8, 400.0, 1500.0, 0.34, 0.05)


def three_axes(rates: tuple[float, ...] = (), noise: float = 0.0) -> pd.DataFrame:
    """Runs on a grid of N, D and x, with FLOPs; each at several learning rates, the middle one best."""
    rng = np.random.default_rng(0)
    rows = [
        {"run": f"{n:g} {d:g} {x:g} {rate:g}", "params": n, "tokens": d, "x": x, "peak_lr": rate}
        for n in (1e7, 3e7, 1e8)
        for d in (1e8, 1e9, 4e9)
        for x in (-1.0, 0.0, 2.0)
        for rate in rates or (1e-3,)
    ]
    table = pd.DataFrame(rows).assign(flops=lambda t: 6 * t.params * t.tokens)
    exact = TRUTH.loss(table.params, table.tokens, table.x)
    worse = 0.01 * np.abs(np.log10(table.peak_lr / 1e-3))
    table["loss_nats"] = (exact + worse) * np.exp(noise * rng.standard_normal(len(table)))
    return table if rates else table.drop(columns="peak_lr")


@pytest.mark.long
def test_a_law_of_three_inputs_is_fitted_beside_flops_zeros_and_negative_values() -> None:
    fit = fits.loss_law(three_axes(), Three, resamples=0)
    assert fit.n_runs == 27 and not fit.dropped
    assert fit.law.values() == pytest.approx(TRUTH.values(), rel=1e-6)
    assert fit.allocations() == []
    assert any(s.name == "allocation" and "given='x=...'" in s.sentence for s in fit.status)


@pytest.mark.long
def test_the_optimum_at_given_values_is_the_minimum_along_the_budget() -> None:
    fit = fits.loss_law(three_axes(), Three, resamples=20, given={"x": 2.0}, at=1e19)
    (row,) = fit.allocations()
    same = laws.Chinchilla(TRUTH.E + 2 * TRUTH.c, TRUTH.A, TRUTH.B, TRUTH.alpha, TRUTH.alpha).optimum(1e19)
    assert row["params"] == pytest.approx(float(same.params), rel=1e-5)
    assert row["loss_nats"] == pytest.approx(float(same.loss_nats), rel=1e-9)
    assert fit.optimum(1e19, x=0.0).loss_nats == pytest.approx(row["loss_nats"] - 2 * TRUTH.c, rel=1e-6)
    again = fits.LossLaw.from_json(json.loads(json.dumps(fit.to_json(samples=True))))
    assert again.optimum(1e19).params == fit.optimum(1e19).params


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "the optimum of the law 'three' depends on x: give `given='x=...'`"),
        ({"x": 1.0, "y": 2.0}, "the law 'three' has no further input 'y'"),
    ],
)
def test_an_optimum_needs_the_further_inputs_and_no_others(given: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        TRUTH.optimum(1e19, SIX_ND, **given)


def test_cells_of_learning_rates_differ_by_every_axis() -> None:
    table = three_axes(rates=(3e-4, 1e-3, 3e-3))
    fit = fits.loss_law(table, Three, resamples=0, check=False)
    assert fit.n_runs == 27
    assert fit.law.values() == pytest.approx(TRUTH.values(), rel=1e-6)
    # A known axis separates cells also where the fitted law does not read it.
    other = table.rename(columns={"x": "experts"}).assign(experts=lambda t: t.experts + 2)
    assert len(usable(other)) == 27


def test_a_law_of_learning_rates_sees_all_of_them() -> None:
    table = three_axes(rates=(3e-4, 1e-3, 3e-3))
    assert len(usable(table, ("params", "tokens", "x", "peak_lr"))) == 81


def test_the_annealing_law_keeps_rows_before_the_decay() -> None:
    areas = pd.DataFrame(
        {"rate_sum": np.linspace(1, 4, 12), "annealing_sum": [0.0] * 6 + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    )
    truth = laws.Annealing(2.0, 1.5, 0.5, 0.3)
    table = areas.assign(run=range(12), loss_nats=truth.loss(areas.rate_sum, areas.annealing_sum))
    fit = fits.loss_law(table, "annealing", resamples=0, check=False)
    assert fit.n_runs == 12
    assert fit.law.values() == pytest.approx(truth.values(), rel=1e-6)


def test_an_accuracy_of_zero_is_a_measurement() -> None:
    truth = laws.LadderAccuracy(0.0, 0.8, 5.0, 2.0)
    losses = np.linspace(1, 12, 20)
    table = pd.DataFrame({"run": range(20), "loss_nats": losses, "accuracy": np.round(truth.loss(losses), 9)})
    assert (table.accuracy == 0).any()
    assert fits.loss_law(table, "ladder", resamples=0, check=False).n_runs == 20


@pytest.mark.parametrize(
    ("role", "bad", "reason"),
    [
        ("share", 1.2, "z is no share from 0 to 1"),
        ("count", -1.0, "z is negative"),
        ("size", 0.0, "z is not positive"),
        ("loss", -2.0, "z is not positive"),
        ("number", math.inf, "z is infinite"),
    ],
)
def test_rows_that_no_run_can_have_are_left_out_with_the_reason(role: Any, bad: float, reason: str) -> None:
    @dataclass(frozen=True)
    class Own(Law):
        E: Any
        NAME: ClassVar[str] = "own"
        PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("E", 0.1, 10),)
        INPUTS: ClassVar[tuple[Any, ...]] = (Input("z", role),)

        def loss(self, z: Any) -> Any:
            return self.E * (1 + z)

    table = pd.DataFrame({"run": ["a", "b"], "z": [0.5, bad], "loss_nats": [2.0, 3.0]})
    runs = usable(table, Own.INPUTS, law=Own)
    assert runs.names == ["a"] and [item.reason for item in runs.dropped] == [reason]


@pytest.mark.long
def test_the_hash_of_a_table_is_over_every_input() -> None:
    one = fits.loss_law(three_axes(), Three, resamples=0, check=False)
    table = three_axes()
    table.loc[0, "x"] = -1.5
    assert fits.loss_law(table, Three, resamples=0, check=False).table_hash != one.table_hash
    plain = [fits.loss_law(t, resamples=0, check=False).table_hash for t in (three_axes(), table)]
    assert plain[0] == plain[1]  # Chinchilla's law does not read x


def test_an_optimum_beyond_1e18_parameters_is_found() -> None:
    law = laws.PowerMean(1.0, 400.0, 400.0, 0.3, 0.3, 1.0)
    for flops in (1e3, 1e45):
        assert law._search(flops, SIX_ND).params == pytest.approx(law.optimum(flops).params, rel=1e-5)


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
        (lambda self, params: math.log(self.E), "cannot be differentiated (TypeError"),
        (lambda self, params: self.E if self.E > 1 else 2 * self.E, "cannot be differentiated (ValueError"),
        (lambda self, params: np.floor(self.E), "uses floor, which has no derivative rule"),
        (lambda self, params: 2.0 + 0 * params, "does not depend on its parameters"),
    ],
)
def test_a_loss_that_is_not_differentiable_is_one_sentence(loss: Any, sentence: str) -> None:
    table = pd.DataFrame({"run": ["a", "b", "c"], "params": [1e6, 2e6, 3e6], "loss_nats": [3.0, 2.5, 2.2]})
    with pytest.raises(UserError, match=re.escape(sentence)):
        fits.loss_law(table, constant(loss), resamples=0)


CONSTRAINTS: list[tuple[dict[str, Any], str]] = [
    ({"fixed": {"gamma": 1.0}}, "has no parameter 'gamma'"),
    ({"tied": {"beta": "alfa"}}, "has no parameter 'alfa'; did you mean 'alpha'?"),
    ({"tied": {"beta": "alpha", "alpha": "beta"}}, "is itself tied to"),
    ({"fixed": {"E": 1.0}, "tied": {"E": "A"}}, "give one of the two"),
    ({"bounds": {"alpha": (0.5, 0.1)}}, "give finite bounds, the lower one first"),
    ({"bounds": {"alpha": (0.1, 0.5)}, "fixed": {"alpha": 0.3}}, "fixed at 0.3 and bounded"),
    ({"fixed": {"E": 1, "A": 1, "B": 1, "alpha": 1}, "tied": {"beta": "alpha"}}, "leave one to be fitted"),
]


@pytest.mark.parametrize(("constraint", "sentence"), CONSTRAINTS)
def test_constraints_that_cannot_be_are_refused(constraint: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        fits.loss_law(read_table("chinchilla"), resamples=0, **constraint)


@pytest.mark.long
def test_tied_and_bounded_parameters() -> None:
    table = read_table("chinchilla")
    tied = fits.loss_law(table, tied={"beta": "alpha"}, resamples=40, check=False)
    assert tied.law.alpha == tied.law.beta
    assert (tied.draws("alpha") == tied.draws("beta")).all()
    same = fits.loss_law(table, "over-training", residual="log", resamples=0, check=False)  # one exponent as well
    assert tied.objective == pytest.approx(same.objective, rel=1e-9)
    assert tied.law.alpha == pytest.approx(-same.law.eta, rel=1e-5)
    bounded = fits.loss_law(table, bounds={"alpha": (0.4, 0.6)}, resamples=0)
    assert bounded.law.alpha == pytest.approx(0.4) and bounded.at_bounds == ("alpha",)
    again = fits.LossLaw.from_json(json.loads(json.dumps(bounded.to_json())))
    assert again.at_bounds == ("alpha",)
    assert fits.LossLaw.from_json(json.loads(json.dumps(tied.to_json()))).tied == {"beta": "alpha"}


MINE = """
from dataclasses import dataclass
from typing import Any
from lmscale import laws

@dataclass(frozen=True)
class Mine(laws.Law):
    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    c: Any
    NAME = "mine"
    FORMULA = "L = E + A/N^alpha + B/D^beta + c heat"
    PARAMETERS = (
        laws.Parameter("E", 0.1, 10, (1, 2), log=False), laws.Parameter("A", 1e-3, 1e9, (1e2, 1e4)),
        laws.Parameter("B", 1e-3, 1e9, (1e2, 1e4)), laws.Parameter("alpha", 0.05, 2, (0.2, 0.5), log=False),
        laws.Parameter("beta", 0.05, 2, (0.2, 0.5), log=False), laws.Parameter("c", -1, 1, log=False),
    )
    INPUTS = ("params", "tokens", laws.Input("heat", "number"))

    def loss(self, params, tokens, heat):
        return self.E + self.A * params**-self.alpha + self.B * tokens**-self.beta + self.c * heat
"""


@pytest.mark.long
def test_a_users_law_from_the_command_line_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    three_axes(noise=1e-3).rename(columns={"x": "temperature"}).to_csv("runs.csv", index=False)
    common = ["fit", "runs.csv", "--approach", "3", "--law", "mine.py:Mine", "--columns", "heat=temperature*0.5"]
    assert call(*common, "--tie", "beta=alpha", "--bound", "E=1:3", "--fix", "c=0.1", "--given", "heat=0.5",
               "--at", "1e19", "--resamples", "50", "--json", "fits.json") == 0  # fmt: skip
    fit = json.loads(Path("fits.json").read_text())["fits"][0]
    assert fit["inputs"] == ["params", "tokens", "heat"] and fit["residuals"]["heat"][:3] == [-0.5, 0.0, 1.0]
    assert fit["parameters"]["alpha"] == fit["parameters"]["beta"] == pytest.approx(TRUTH.alpha, rel=0.05)
    assert fit["parameters"]["c"] == 0.1 and fit["bounds"] == {"E": [1, 3]}
    assert fit["allocations"][0]["params"] > 0
    assert call(*common, "--predict", "params=1e8,tokens=1e9,heat=-1", "--resamples", "50") == 0
    assert "heat = -1" in capsys.readouterr().out
    assert call(*common, "--predict", "params=-1e8,tokens=1e9,heat=0", "--prediction", "other.json") == 2
    assert "params is not positive" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        ("--fix", "E", "'E' is no pair of a name and a value"),
        ("--bound", "E=1", "'E=1' is no pair of a name and a value"),
        ("--tie", "beta=alpha,beta=A", "beta is given twice"),
        ("--given", "experts=8", "has no further input 'experts'"),
        ("--columns", "heat=loss", "--columns maps to 'heat', which no fit reads"),
    ],
)
def test_flags_of_constraints_that_cannot_be_read(
    flag: str, value: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("fit", "chinchilla", "--approach", "3", "--resamples", "0", flag, value) == 2
    assert sentence in capsys.readouterr().err


def test_a_factor_is_taken_of_every_mapped_column() -> None:
    table = pd.DataFrame({"N": [1e8], "D": [1e9], "L": [2.0], "E": [2], "passes": [3]})
    read = read_table(table, "experts=E*8,epochs=passes*2")
    assert read["experts"].tolist() == [16] and read["epochs"].tolist() == [6]


def test_nothing_converges_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No interval is stated where no resample converges, whatever the law."""
    from lmscale.study.fits.approaches import parametric

    def lost(problem: Problem, weights: np.ndarray, *_: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((len(problem.form.names()), weights.shape[1])), np.zeros(weights.shape[1], dtype=bool)

    monkeypatch.setattr(parametric, "minimise_many", lost)
    fit = fits.loss_law(three_axes(noise=1e-3), Three, resamples=20, check=False)
    assert fit.samples is None and any(s.name == "no intervals" for s in fit.status)


def test_second_derivatives_are_exact_where_the_loss_has_no_complex_form_too() -> None:
    table = three_axes()
    data = tuple(table[name].to_numpy() for name in Three.INPUTS)
    problem = Problem(Three, data, table.loss_nats.to_numpy())
    theta = derivatives.to_theta(problem, np.array([[v] for v in TRUTH.values().values()]))
    exact = np.stack(list(derivatives.second_derivatives(problem, theta)))
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


@pytest.mark.long
def test_each_domain_of_a_mixture_has_a_law(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three losses of each run: three laws in one file, and three predictions."""
    form, rng = laws.mixture(2), np.random.default_rng(0)
    share = rng.uniform(0.1, 0.9, 25)
    truths = {f"loss_{name}": form(c, t1, t2) for name, c, t1, t2 in (("a", 1.5, 0.2, -0.5), ("b", 2.0, -0.4, 0.6))}
    table = pd.DataFrame({"share_1": share, "share_2": 1 - share})
    table = table.assign(**{name: law.loss(share, 1 - share) for name, law in truths.items()})
    table.to_csv(tmp_path / "runs.csv", index=False)
    file, out = tmp_path / "fits.slaw", tmp_path / "answer.json"
    words = ("--approach", "3", "--law", "mixture-2", "--targets", "loss_a,loss_b", "--resamples", 20)
    assert call("fit", tmp_path / "runs.csv", *words, "--save", file) == 0
    assert "Approach 3: loss_b" in capsys.readouterr().out
    assert call("predict", file, "--given", "share_1=0.3,share_2=0.7", "--json", out) == 0
    assert "25 runs, loss_a: " in capsys.readouterr().out
    answers = json.loads(out.read_text())["targets"]
    for name, law in truths.items():
        assert answers[name]["loss_nats"] == pytest.approx(float(law.loss(0.3, 0.7)), abs=1e-6)
    (one,) = fits.loss_laws(tmp_path / "runs.csv", ["loss_a"], form, resamples=0, check=False)
    assert one.name == "loss_a" and form.further_inputs() == ("share_1", "share_2")
    for more, sentence in (
        (["--targets", "loss_a,loss_a"], "name each column once"),
        (["--targets", "loss_c"], "loss_c"),
        (["--targets", "loss_a", "--columns", "loss=loss_b"], "give one of the two"),
        (["--targets", "loss_a", "--approach", "2"], "--targets are fitted by Approach 3"),
        (["--targets", "loss_a", "--predict", "share_1=1,share_2=0"], "registers the loss of one law"),
    ):
        assert call("fit", tmp_path / "runs.csv", "--law", "mixture-2", "--resamples", 0, *more) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
