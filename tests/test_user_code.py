"""The user's own code, a law or what a sweep calls: an error in it is one sentence with the file and the line."""

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import call

from lmscale import chain, fine_tune, fits, hold_out, isoflop, laws, plan, recipes, where
from lmscale.core.errors import UserError
from lmscale.core.streams import guarded
from lmscale.core.user_code import called
from lmscale.study.sweep import Sweep, points

POINTS = isoflop([1e11, 3e11], sizes=3)
HERE = re.escape(Path(__file__).name) + r", line \d+"


def broken(*arguments: Any) -> Any:
    return 1 / 0


def ends_python(*arguments: Any) -> Any:
    raise SystemExit(0)


def without_end(*arguments: Any) -> Any:
    return without_end(*arguments)


def planned(recipe: Any, points: Any = POINTS, **settings: Any) -> Any:
    return plan(Sweep("mine", points, recipe, **settings))


class WithOrigins:
    """A recipe that says by a function where its values come from."""

    def __init__(self, function: Any) -> None:
        self.origins = function

    def __call__(self, point: Any) -> Any:
        return recipes.cpu(point)


CALLED: list[tuple[str, Callable[[Any], Any]]] = [
    ("the centre of isoflop", lambda function: isoflop([1e11], centre=function)),
    ("the condition of where", lambda function: where(POINTS, function)),
    ("the choice of hold_out", lambda function: hold_out(POINTS, function)),
    ("the recipe of sweep 'mine'", planned),
    ("the held_out of sweep 'mine'", lambda function: planned(recipes.cpu, held_out=function)),
    ("the origins of sweep 'mine'", lambda function: planned(WithOrigins(function))),
    ("the rule of 'given to the recipe'", lambda function: planned(recipes.cpu(lr=function))),
    (
        "the recipe of the stage 'fine-tune'",
        lambda function: planned(
            recipes.by_stage(pretrain=recipes.cpu, fine_tune=function), chain(POINTS, fine_tune(POINTS, tokens=1e5))
        ),
    ),
    (
        "the cost of the constraint 'mine'",
        lambda function: laws.allocate(laws.CHINCHILLA_REFIT, [laws.Constraint("mine", 1.0, function)]),
    ),
    ("the quantity", lambda function: fits.loss_law("chinchilla", resamples=3, check=False).draws(function)),
]


@pytest.mark.parametrize("function", [broken, ends_python, without_end], ids=lambda function: function.__name__)
@pytest.mark.parametrize(("what", "call"), CALLED, ids=[what for what, _ in CALLED])
def test_an_error_in_a_function_of_the_users_names_its_line(what: str, call: Any, function: Any) -> None:
    with pytest.raises(UserError, match=re.escape(what)) as refused:
        call(function)
    assert re.search(HERE, str(refused.value)), refused.value


@pytest.mark.parametrize(("what", "call"), CALLED, ids=[what for what, _ in CALLED])
def test_a_function_of_other_arguments_is_told_too(what: str, call: Any) -> None:
    with pytest.raises(UserError, match=re.escape(what)):
        call(lambda: 1)


LAW = """
from dataclasses import dataclass
from typing import Any, ClassVar
from lmscale.study.laws import Law, Parameter

@dataclass(frozen=True)
class Mine(Law):
    E: Any
    A: Any
    NAME: ClassVar = "mine"
    PARAMETERS: ClassVar = (Parameter("E", 1e-6, 50, log=False), Parameter("A", 1e-6, 1e15, (500,)))
    INPUTS: ClassVar = ("params",)

    def loss(self, params):
        return self.E + self.A / params
"""
BROKEN_LAWS = [
    ("(500,)", '("a",)', "line 11: Parameter(starts='a'): must be finite numbers"),
    ('("params",)', '("params")', "line 7: the law class Mine has INPUTS = 'params': it is a tuple of names"),
    ('("params",)', "5", "line 7: the law class Mine has INPUTS = 5"),
    ("    def", "    TARGET: ClassVar = None\n    def", "the law class Mine has TARGET = None: it is a name"),
    ("    def", "    SHARES: ClassVar = ('x',)\n    def", "'x' in SHARES and not in INPUTS"),
    ("    def", "    PARAMETERS: ClassVar = 5\n    def", "needs PARAMETERS, a tuple of laws.Parameter"),
    ('"mine"', "5", "has no NAME"),
    ("    def loss(self, params):\n        return self.E + self.A / params", "    loss = 5", "is 5: it is a function"),
    ("return", "1 / 0; return", "the loss of the law 'mine' fails at MINE, line 15: ZeroDivisionError"),
    ("return", "raise SystemExit(0); return", "fails at MINE, line 15: it ends Python (0)"),
    ("return", "return self.loss(params) +", "line 15: RecursionError"),
    (
        "    def loss",
        "    def __post_init__(self):\n        1 / 0\n\n    def loss",
        "the __post_init__ of the law 'mine' fails",
    ),
    ("\nfrom", "\nexit(0)\nfrom", "the law file MINE fails at MINE, line 2: it ends Python (0)"),
    ("\nfrom", "\nx = = 1\nfrom", "fails at MINE, line 2: SyntaxError"),
    ("\nfrom", "\nraise BaseException\nfrom", "fails at MINE, line 2: BaseException"),
    ("\nfrom", "\n\0from", "source code string cannot contain null bytes"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), BROKEN_LAWS, ids=[sentence for *_, sentence in BROKEN_LAWS])
def test_a_broken_law_is_one_sentence_with_its_line(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    (path := tmp_path / "mine.py").write_text(LAW.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(sentence.replace("MINE", str(path)))) as refused:
        fits.loss_law("chinchilla", f"{path}:Mine", resamples=0, check=False)
    assert "\n" not in str(refused.value)


def test_the_law_itself_is_whole(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LAW)
    assert fits.loss_law("chinchilla", f"{tmp_path / 'mine.py'}:Mine", resamples=0, check=False).law.NAME == "mine"


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"held_out": "no"}, "held_out = 'no': must be True or False"),
        ({"base_width": "a"}, "base_width = 'a': must be a positive number"),
        ({"unique_tokens": 0.5}, "unique_tokens = 0.5: a text has 1 or more"),
        ({"trunk": "a"}, "a trunk and no trunk_tokens"),
        ({"trunk": "a", "trunk_tokens": "b"}, "trunk_tokens = 'b': the lengths of all branches"),
    ],
)
def test_a_point_that_no_recipe_can_read(point: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        planned(recipes.cpu, [{**POINTS[0], **point}])


@pytest.mark.parametrize("value", [None, "8", float("nan"), 0, -1, True])
def test_a_rule_gives_a_positive_number(value: Any) -> None:
    for name in ("lr", "batch_sequences"):
        with pytest.raises(UserError, match=r"the rule of 'given to the recipe' gives .*: must be a positive number"):
            planned(recipes.cpu(**{name: lambda model, tokens: value}))


def test_a_defect_of_this_package_keeps_its_traceback() -> None:
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'keys'"):
        called("a function of ours", points._joined, {}, None)


LOUD = """
from lmscale import Sweep, isoflop, recipes

def recipe(point):
    print("theirs, of a recipe\\x1b[2J")
    return recipes.cpu(point)
SWEEP = Sweep("loud", isoflop([1e11, 3e11, 1e12], sizes=5), recipe, held_out=lambda point: bool(print("theirs")))
"""


@pytest.mark.parametrize("as_module", [False, True])
def test_what_the_users_code_prints_does_not_mix_with_our_answer(
    as_module: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    law = LAW.replace("        return", "        print('theirs')\n        return")
    (tmp_path / "loud.py").write_text("print('theirs, at once')\n" + law + LOUD)
    monkeypatch.chdir(tmp_path)
    assert call("plan", "loud.py") == 0
    out, err = capsys.readouterr()
    assert "theirs" not in out and "15 runs" in out and err.count("of a recipe") == 15 and "\x1b[2J" not in err
    name = "loud:Mine" if as_module else "loud.py:Mine"
    assert call("fit", "chinchilla", "--approach", "3", "--law", name, "--resamples", 0, "--no-check") == 0
    out, err = capsys.readouterr()
    assert "theirs" not in out and "Approach 3" in out and err.count("theirs") > 10
    sys.modules.pop("loud", None)


def test_only_the_thread_that_runs_the_users_code_prints_aside(capsys: pytest.CaptureFixture[str]) -> None:
    inside, done = threading.Event(), threading.Event()

    def theirs() -> None:
        inside.set()
        done.wait(10)
        print("theirs")

    with guarded():
        thread = threading.Thread(target=called, args=("the function", theirs))
        thread.start()
        inside.wait(10)
        print("ours")
        done.set()
        thread.join()
        with pytest.raises(UserError):
            called("the function", broken)
        print("ours again")
    assert capsys.readouterr() == ("ours\nours again\n", "theirs\n")
