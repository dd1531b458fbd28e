"""A law of the user's own: one class, named by its import path, read back unchanged, refused where incomplete."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lmscale.core.errors import UserError
from lmscale.study import design, laws
from lmscale.study.fits import LossLaw, loss_law
from lmscale.study.fits.solvers.derivatives import condition
from lmscale.study.fits.solvers.problem import Problem
from lmscale.study.laws import (
    CHINCHILLA_REFIT,
    Chinchilla,
    Law,
    Parameter,
    forms,
)
from lmscale.study.laws.dual import Dual
from lmscale.study.tables import read_table


@dataclass(frozen=True)
class Logarithmic(Law):
    """The documentation's example of a new form."""

    E: float
    c: float
    NAME: ClassVar[str] = "logarithmic"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("E", 0.1, 100, (5,)), Parameter("c", 1e-3, 10, (0.1, 1)))
    INPUTS: ClassVar[tuple[str, ...]] = ("flops",)

    def loss(self, flops: Any) -> Any:
        return self.E - self.c * np.log(flops)


def test_a_new_form_is_one_class() -> None:
    table = read_table("chinchilla")
    table["loss_nats"] = Logarithmic(12.0, 0.2).loss(table["flops"])
    fit = loss_law(table, Logarithmic, resamples=0, check=False)
    assert fit.law.values() == pytest.approx({"E": 12.0, "c": 0.2}, rel=1e-9)


MINE = """
from dataclasses import dataclass
from typing import Any, ClassVar
from lmscale.study.laws import Law, Parameter

@dataclass(frozen=True)
class Mine(Law):
    E: Any
    S: Any
    T: Any
    g: Any
    h: Any
    NAME: ClassVar = "mine"
    FORMULA: ClassVar = "L = E + S/N^g + T/D^h"
    PARAMETERS: ClassVar = (
        Parameter("E", 1e-6, 50, (1, 2), log=False),
        Parameter("S", 1e-6, 1e15, (500,)),
        Parameter("T", 1e-6, 1e15, (2000,)),
        Parameter("g", 1e-3, 5, (0.3,), log=False),
        Parameter("h", 1e-3, 5, (0.3,), log=False),
    )

    def loss(self, params, tokens):
        return self.E + self.S * params**-self.g + self.T * tokens**-self.h
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A law of the user's in a file of the working directory, named mine.py:Mine."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


@pytest.mark.long
def test_a_law_is_named_by_its_import_path_and_read_back(mine: Path) -> None:
    fit = loss_law(read_table("chinchilla"), "mine.py:Mine", resamples=3, check=False)
    value = json.loads(json.dumps(fit.to_json(samples=True)))
    assert (value["law"], value["law_import"]) == ("mine", "mine.py:Mine")
    again = LossLaw.from_json(value)
    assert type(again.law) is type(fit.law) and again.law.values() == fit.law.values()
    assert again.interval("S") == fit.interval("S")
    assert list(fit.law.values().values()) == pytest.approx(list(CHINCHILLA_REFIT.values().values()), rel=1e-4)


def test_a_law_of_this_module_is_read_back_too() -> None:
    fit = loss_law(read_table("chinchilla"), Logarithmic, resamples=0, check=False)
    assert type(LossLaw.from_json(fit.to_json()).law) is Logarithmic


@pytest.mark.long
@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_law_whose_source_is_another_is_not_read_back(mine: Path, change: str) -> None:
    value = loss_law(read_table("chinchilla"), "mine.py:Mine", resamples=0, check=False).to_json()
    forget = "import json; from lmscale.study.fits import LossLaw; LossLaw.from_json(json.load(open('fit.json')))"
    (mine.parent / "fit.json").write_text(json.dumps(value))
    mine.unlink() if change == "gone" else mine.write_text(MINE + "# another\n")
    run = subprocess.run([sys.executable, "-c", forget], capture_output=True, text=True)
    sentence = {
        "gone": "the fit's law 'mine' cannot be read back: there is no file mine.py",
        "changed": "the source of the law 'mine', mine.py:Mine, has changed since the fit was saved",
    }
    assert sentence[change] in run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("mine.py:Min", "mine.py defines no law 'Min'; did you mean 'Mine'?"),
        ("other.py:Mine", "there is no file other.py"),
        ("no.such.module:Mine", "the module 'no.such.module' cannot be imported"),
        ("json:loads", "json defines no law 'loads'; it defines no class derived from laws.Law"),
        ("min", "no law is called 'min'"),
    ],
)
def test_an_import_path_that_leads_nowhere_is_refused(mine: Path, path: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        laws.form(path)


def test_a_file_that_fails_is_refused(mine: Path) -> None:
    mine.write_text("1 / 0")
    with pytest.raises(UserError, match=r"the law file mine\.py fails at .*mine\.py, line 1: ZeroDivisionError"):
        laws.form("mine.py:Mine")


def a_law(**attributes: Any) -> type[Law]:
    """A law of E alone, with other class attributes."""
    own = {"__annotations__": {"E": float}, "NAME": "own", "PARAMETERS": (Parameter("E", 1, 2),), **attributes}
    own.setdefault("loss", lambda self, params, tokens: self.E)
    return dataclass(frozen=True)(type("Own", (Law,), own))


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"NAME": ""}, "has no NAME"),
        ({"PARAMETERS": ()}, "needs PARAMETERS"),
        ({"PARAMETERS": ("E",)}, "needs PARAMETERS"),
        ({"PARAMETERS": (Parameter("F", 1, 2),)}, "has the fields E and the PARAMETERS F"),
        ({"RESIDUAL": "ln"}, "residuals are 'log' or 'raw'"),
        ({"loss": Law.loss}, "is not defined"),
        ({"INPUTS": ("params", "params")}, "has the input 'params' twice in INPUTS, (params, params)"),
        ({"INPUTS": ("params", "loss_nats")}, "has its own target, 'loss_nats' in INPUTS"),
        ({"loss": lambda self, tokens, params: 0}, "takes (tokens, params), and its INPUTS are (params, tokens)"),
        ({"loss": lambda self, params: 0}, "takes (params)"),
        ({"loss": lambda self, params, tokens, more: 0}, "takes (params, tokens, more)"),
    ],
)
def test_an_incomplete_law_is_refused_at_its_first_use(attributes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        loss_law(read_table("chinchilla"), a_law(**attributes))
    assert laws.form(a_law()).NAME == "own"
    assert laws.form(a_law(loss=lambda self, N, D: 0)).NAME == "own"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("E", -1, 1), "is searched by its logarithm and its lower bound is -1: give a positive one, or log=False"),
        (("E", 0, 1), "give a positive one"),
        (("E", 2, 1), "give finite bounds, the lower one first"),
        (("E", 1, np.inf), "give finite bounds"),
        (("E", -np.inf, 1), "give finite bounds"),
        (("E", 1, 1), "give finite bounds, the lower one first"),
        (("E", 1, 2, (3,)), "starts at 3, outside of its bounds 1 to 2"),
        (("a b", 1, 2), "the name is that of a field of the law"),
    ],
)
def test_an_impossible_parameter_is_refused_at_birth(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        Parameter(*arguments)


def test_a_parameter_may_start_at_its_bounds() -> None:
    assert Parameter("E", 1, 2, (1, 2)).starts == (1, 2)


def test_a_parameter_without_starts_is_searched_from_three_points_none_of_them_zero() -> None:
    assert Parameter("A", 1, 1e10).search_from == pytest.approx((1e2, 1e5, 1e8))
    assert Parameter("eta", -3, -1, log=False).search_from == pytest.approx((-2.6, -2, -1.4))
    assert Parameter("c", -1, 1, log=False).search_from == pytest.approx((-0.6, 0.04, 0.6))
    assert Parameter("c", -1, 1, (0,), log=False).search_from == (0,)


def test_nothing_depends_on_what_a_parameter_is_called(mine: Path) -> None:
    """Chinchilla's form with A, B, alpha, beta called S, T, g, h: the same designs, conditions and spreads."""
    law = laws.form("mine.py:Mine")(*CHINCHILLA_REFIT.values().values())
    params, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(6e6, 1.2e8, 4), np.geomspace(1.2e8, 2.4e9, 4)))
    runs = design.Runs(params, tokens)
    one, other = (design.information(design.Prior(law=which), runs) for which in (CHINCHILLA_REFIT, law))
    assert other.condition == one.condition == pytest.approx(2.73e3, rel=1e-2)
    for name, renamed in zip(CHINCHILLA_REFIT.names(), law.names()):
        assert other.sd(renamed) == one.sd(name)
    values, data = np.array(list(law.values().values())), (params, tokens, law.loss(params, tokens))
    conditions = [condition(Problem(which, data[:2], data[2]), values) for which in (Chinchilla, type(law))]
    assert conditions[0] == conditions[1]


def test_a_form_with_an_unknown_function_says_so() -> None:
    with pytest.raises(UserError, match="uses floor, which has no derivative rule"):
        np.floor(Dual(1.0, {0: 1.0}))


@pytest.mark.long
def test_what_a_file_names_runs_only_from_here(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    evil = tmp_path_factory.mktemp("evil") / "evil.py"
    evil.write_text(f"import pathlib; pathlib.Path({str(evil.with_name('ran'))!r}).touch()\n")
    value = loss_law(read_table("chinchilla"), "mine.py:Mine", resamples=0, check=False).to_json()
    (mine.parent / "link.py").symlink_to(evil)
    up = os.path.relpath(evil, mine.parent)
    for path in (f"{evil}:Mine", f"{up}:Mine", "link.py:Mine", "a-b:Mine", "os;x:Mine", "..os:Mine"):
        for named in ({"law_import": path}, {"law": path, "law_import": ""}):
            with pytest.raises(UserError, match=r"is code outside of the folder that this is called in"):
                LossLaw.from_json({**value, **named})
    assert not evil.with_name("ran").exists()


@pytest.mark.long
def test_a_law_that_has_changed_since_the_fit_is_not_even_run(mine: Path) -> None:
    value = loss_law(read_table("chinchilla"), "mine.py:Mine", resamples=0, check=False).to_json()
    mine.write_text("import pathlib; pathlib.Path('ran').touch()\n" + mine.read_text())
    with pytest.raises(UserError, match="has changed since the fit was saved"):
        LossLaw.from_json({**value, "law_source_sha256": "0" * 64})
    assert not (mine.parent / "ran").exists()


def test_a_file_is_run_once_for_each_place_and_content(mine: Path) -> None:
    """Copies of one file are laws of their own paths, and a changed file is another law."""
    law = laws.form("mine.py:Mine")
    assert laws.form("mine.py:Mine") is law
    (mine.parent / "copy.py").write_bytes(mine.read_bytes())
    copied = laws.form("copy.py:Mine")
    assert [forms.import_path(one) for one in (law, copied)] == ["mine.py:Mine", "copy.py:Mine"]
    mine.write_text(mine.read_text() + "\n")
    changed = laws.form("mine.py:Mine")
    assert changed is not law and forms.source_hash(changed) != forms.source_hash(law) == forms.source_hash(copied)
