"""Numbers on the command line: read as Python reads them, and what is none refused with the number that is meant."""

import pytest
from helpers.command_line import call

from lmscale.cli import parse
from lmscale.commands.numbers import read_number


def test_numbers_are_read_as_python_reads_them() -> None:
    assert [read_number(word, float) for word in ("1e12", "2", " .5 ", "1_000")] == [1e12, 2.0, 0.5, 1000.0]
    assert [read_number(word, int) for word in ("12", "1_000", "-3")] == [12, 1000, -3]


@pytest.mark.parametrize(
    ("word", "kind", "sentence"),
    [
        ("2,5", float, "'2,5' is not a number; write 2.5"),
        ("1e13FLOPs", float, "'1e13FLOPs' is not a number; write 1e13"),
        ("2.5M", float, "'2.5M' is not a number; write 2.5e+06"),
        ("2.5k", int, "'2.5k' is not a whole number; write 2500"),
        ("1e3", int, "'1e3' is not a whole number; write 1000"),
        ("1e999", int, "'1e999' is not a whole number"),
        ("2.5", int, "'2.5' is not a whole number"),
        ("two", int, "'two' is not a whole number"),
        ("None", float, "'None' is not a number"),
        ("", float, "'' is not a number"),
    ],
)
def test_what_is_no_number_is_refused_with_the_number_that_is_meant(
    word: str, kind: type[int] | type[float], sentence: str
) -> None:
    with pytest.raises(ValueError) as refused:
        read_number(word, kind)
    assert str(refused.value) == sentence


def test_an_option_that_may_be_unset_is_shown_and_refused_as_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("plan", ["sweeps/mine.py"]).price is None and parse("plan", ["x.py", "--price", "2.5"]).price == 2.5
    assert parse("eval", ["run", "task", "--shots", "0", "5"]).shots == (0, 5)
    with pytest.raises(SystemExit):
        parse("plan", ["sweeps/mine.py", "--price", "2,5"])
    said = capsys.readouterr().err
    assert "--price: '2,5' is not a number; write 2.5" in said and "None}" not in said and "<class" not in said
    assert call("plan", "--help") == 0
    text = capsys.readouterr().out
    assert "--price FLOAT" in text and "{None}" not in text
