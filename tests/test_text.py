"""Text of others does nothing to a terminal, and names lead nowhere."""

import unicodedata
from pathlib import Path

import pytest

from lmscale.core.errors import UserError
from lmscale.core.text import LONGEST_NAME_BYTES, checked_line, checked_name, one_line, printable, short_name

ESCAPED = {
    "\x1b[2J\x1b]0;title\x07": r"\x1b[2J\x1b]0;title\x07",
    "a\rb\bc\x7f": r"a\x0db\x08c\x7f",
    "\x9b31m": r"\x9b31m",
    "\u202etxt.exe\u2066\u2069": r"\u202etxt.exe\u2066\u2069",
    "zero\u200bwidth\ufeff": r"zero\u200bwidth\ufeff",
    "b\udcffyte": r"b\xffyte",
    "lone \ud800": r"lone \ud800",
    "\u2028\u2029": r"\u2028\u2029",
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize(("text", "escaped"), ESCAPED.items(), ids=[ascii(text) for text in ESCAPED])
def test_what_a_terminal_obeys_or_hides_is_written_as_an_escape(text: str, escaped: str) -> None:
    assert printable(text) == one_line(text) == escaped == printable(escaped)


def test_every_control_character_is_escaped_and_no_letter_is() -> None:
    for code in range(0x2FFFF):
        unchanged = printable(chr(code)) == chr(code)
        if unicodedata.category(chr(code)) in ("Cc", "Cs", "Zl", "Zp"):
            assert unchanged == (chr(code) in "\t\n"), hex(code)
        elif unicodedata.category(chr(code))[0] in "LMNPS":
            assert unchanged, hex(code)


def test_lines_and_columns_stay_in_a_text_and_not_in_a_name() -> None:
    assert printable("a\tb\nc ± é 漢 \U0001f600") == "a\tb\nc ± é 漢 \U0001f600"
    assert one_line("a\tb\nc") == r"a\x09b\x0ac"


@pytest.mark.parametrize("name", ["tiny", "a.b-c_d", "größe", "5f0c", "s-1e19", "_x", "x" * LONGEST_NAME_BYTES])
def test_a_name_of_its_own_is_kept(name: str) -> None:
    assert checked_name(name, "the sweep's name") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "...", "../x", "/etc", "a/b", "a\\b", "a\nb", "a\0b", "\x1b", "a b", "$(x)", "-", "~", "\u202ea",
     "a b" * LONGEST_NAME_BYTES, "\udcff", None, 5, ["a"]],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(name: object) -> None:
    with pytest.raises(UserError, match=r"the sweep's name is .*: it names a folder or file, so use letters") as error:
        checked_name(name, "the sweep's name")
    assert str(error.value) == one_line(str(error.value))


@pytest.mark.parametrize("name", ["x" * (LONGEST_NAME_BYTES + 1), "漢" * 67])
def test_a_name_too_long_for_a_file_system_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"the sweep's name has {len(name)} letters: at most 200"):
        checked_name(name, "the sweep's name")


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b", "a\x1bb", "a\u202eb", "a\u2028b", Path("a\nb"), "\udcff"])
def test_a_line_of_a_script_holds_no_control_character(text: str | Path) -> None:
    with pytest.raises(UserError, match=r"--runs is '.*': the character .* cannot stand in a script; rename it"):
        checked_line(text, "--runs")
    assert checked_line("/my runs/größe 100%", "--runs") == "/my runs/größe 100%"


def test_short_names_are_valid_and_stay_different() -> None:
    texts = ["a", "A.b-c", "a b", "a-b", "-a", "größe", "x" * 63, "x" * 64, "x" * 65, "y" * 62 + "-", "ß", "\udcff"]
    short = [short_name(text, 63) for text in texts]
    assert short[:2] == texts[:2] and short[6] == texts[6] and len({*short}) == len(short)
    for name in short:
        assert name.isascii() and 1 <= len(name) <= 63 and name[0].isalnum() and name[-1].isalnum()
