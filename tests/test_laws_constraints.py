"""Parameters of laws fixed, tied and bounded, from Python and from the command line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import call
from helpers.three_axes import TRUTH, three_axes

from lmscale import UserError, fits, read_table

CONSTRAINTS: list[tuple[dict[str, Any], str]] = [
    ({"fixed": {"gamma": 1.0}}, "has no parameter 'gamma'"),
    ({"tied": {"beta": "alfa"}}, "has no parameter 'alfa'; did you mean 'alpha'?"),
    ({"tied": {"beta": "alpha", "alpha": "beta"}}, "is itself tied to"),
    ({"fixed": {"E": 1.0}, "tied": {"E": "A"}}, "give one of the two"),
    ({"tied": {"beta": "beta"}}, "beta is tied to itself"),
    ({"fixed": {"alpha": -3.0}}, "alpha is fixed at -3, and is positive: the law has it between 0.001 and 5"),
    ({"bounds": {"alpha": (-3, -1)}}, "alpha is bounded by -3, and is positive"),
    ({"bounds": {"A": (-3, 5)}}, "A is bounded by -3, and is positive"),
    ({"bounds": {"A": (0, 5)}}, "A is searched by its logarithm: bound it from a number above 0"),
    ({"law": "over-training", "fixed": {"eta": 0.2}}, "eta is fixed at 0.2, and is negative"),
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


@pytest.mark.parametrize(
    ("constraint", "sentence"),
    [
        ({"fixed": {"alpha": 6.0}}, "alpha is fixed at 6, outside of the law's own range, 0.001 to 5"),
        ({"bounds": {"alpha": (6.0, 9.0)}}, "alpha is bounded between 6 and 9, outside"),
        ({"tied": {"alpha": "A"}, "bounds": {"A": (6.0, 9.0)}}, "alpha is by its tie"),
        ({"fixed": {"E": 0.0}}, ""),
        ({"bounds": {"alpha": (4.0, 9.0)}}, ""),
    ],
)
def test_a_parameter_outside_of_its_laws_own_range_is_doubted(constraint: dict[str, Any], sentence: str) -> None:
    fit = fits.loss_law(read_table("chinchilla"), resamples=0, check=False, **constraint)
    doubts = [one.sentence for one in fit.status if one.name == "outside of its range" and one.severity == "warning"]
    assert len(doubts) == bool(sentence)
    assert sentence in "".join(doubts)


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
