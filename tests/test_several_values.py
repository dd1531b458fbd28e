"""Options that take several values: however they are given, none is lost, and no other word is one of them."""

import pytest

from lmscale.cli import parse


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
