"""Options that take several values: however they are given, none is lost, and no other word is one of them."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from tyro.conf import Positional, UseAppendAction

from lmscale.cli import VERBS, parse
from lmscale.commands.several_values import Joined
from lmscale.core.errors import UserError


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (("--stop", "a", "b"), ("a", "b")),
        (("--stop", "a", "--seed", "3", "--stop", "b"), ("a", "b")),
        (("--stop=a", "--stop", "b", "--stop=--c"), ("a", "b", "--c")),
        (("--stop", "-", "-1", "-.5", ""), ("-", "-1", "-.5", "")),
        ((), ()),
    ],
    ids=" ".join,
)
def test_values_are_those_of_all_flags_in_their_order(words: tuple[str, ...], values: tuple[str, ...]) -> None:
    arguments = parse("sample", ["RUN", *words])
    assert arguments.stop == values and str(arguments.run) == "RUN"


def test_a_value_after_an_equals_sign_is_one_and_the_next_word_is_another_argument() -> None:
    arguments = parse("sample", ["--prompt=the cat", "RUN", "-p", "a", "--temperature", "0"])
    assert (arguments.prompt, str(arguments.run), arguments.temperature) == (("the cat", "a"), "RUN", 0.0)


def test_options_of_several_verbs() -> None:
    """Two of sbatch's options begin with dashes, so they come one at a time."""
    assert parse("run", ["s.py", "--sbatch=--qos=low", "--sbatch=--mem=4G"]).sbatch == ("--qos=low", "--mem=4G")
    assert parse("eval", ["RUN", "mmlu:x", "--shots", "0", "5", "--shots", "7"]).shots == (0, 5, 7)


@pytest.mark.parametrize("words", [("--stop",), ("--stop", "--seed", "3"), ("--shots", "x")], ids=" ".join)
def test_a_flag_without_a_value_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse("sample", ["RUN", *words])
    assert end.value.code == 2 and words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (("--at", "1e12", "--at", "1e13"), "at", (1e12, 1e13)),
        (("--at=1e12,3e12", "--seed", "1", "--at", "1e13"), "at", (1e12, 3e12, 1e13)),
        (("--fix", "E=1.8", "--fix=alpha=0.3"), "fixed", {"E": 1.8, "alpha": 0.3}),
        (("--bound", "E=1:2", "--bound", "alpha=0.1:0.5"), "bounds", {"E": (1.0, 2.0), "alpha": (0.1, 0.5)}),
        (("--tie", "beta=alpha", "--tie", "A=B"), "tied", {"beta": "alpha", "A": "B"}),
        (("--given", "a=1", "--given", "b=2"), "given", {"a": 1.0, "b": 2.0}),
        (("--columns", "params=N", "--columns", "loss=L"), "columns", "params=N,loss=L"),
        (("--targets", "loss_a", "--targets", "loss_b"), "targets", "loss_a,loss_b"),
        (("--predict", "params=1", "--predict", "params=2"), "predict", "params=1;params=2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and value and isinstance(value[0], str) else "",
)
def test_values_in_one_word_are_those_of_all_words(words: tuple[str, ...], field: str, value: object) -> None:
    assert getattr(parse("fit", ["chinchilla", *words]), field) == value


@pytest.mark.parametrize(
    ("verb", "words", "sentence"),
    [
        ("fit", ("--seed", "1", "--seed", "2"), "--seed is given twice, --seed=1 and --seed=2: give it once"),
        ("fit", ("--noise", "0.1", "--noise=0.2"), "--noise is given twice"),
        ("fit", ("--check", "--no-check"), "--check is given twice, --check and --no-check: give it once"),
        ("fit", ("--where", "a > 1", "--where", "b > 1"), "--where is given twice"),
        ("fit", ("--mixed-corpora", "--no_mixed_corpora"), "--mixed-corpora is given twice"),
        ("predict", ("--costs", "3", "1", "--costs", "1", "3"), "--costs is given twice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_of_one_value_is_refused_with_two(verb: str, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse(verb, ["runs/x", *words])
    assert sentence in str(error.value)


def test_the_same_value_twice_is_one_value() -> None:
    arguments = parse("predict", ["x.slaw", "--costs", "3", "1", "--level=0.9", "--costs", "3", "1", "--level", "0.9"])
    assert arguments.costs == (3.0, 1.0) and arguments.level == 0.9
    assert parse("plan", ["s.py", "--force", "--force"]).force


def test_json_alone_is_standard_output() -> None:
    assert parse("status", ["runs/x", "--json"]).json == Path("-")
    assert parse("status", ["runs/x", "--json", "--all"]).json == Path("-")
    assert parse("status", ["runs/x", "--json", "a.json"]).json == Path("a.json")


def test_every_option_that_holds_several_values_takes_them_from_several_flags() -> None:
    """A new option of a tuple, a list or a mapping is marked, or has so many values as its type says."""
    unmarked = []
    (append,), (positional,) = get_args(UseAppendAction[int])[1:], get_args(Positional[int])[1:]
    for name, verb in VERBS.items():
        for field, hint in get_type_hints(getattr(verb.load(), verb.arguments), include_extras=True).items():
            marks = getattr(hint, "__metadata__", ())
            text = str(getattr(hint, "__origin__", hint))
            several = "..." in text or "list[" in text or "Mapping[" in text
            if several and not any(isinstance(mark, Joined) or mark in (append, positional) for mark in marks):
                unmarked.append((name, field))
    assert unmarked == []
