"""The pages of the documentation as tests read them: code, commands, and the numbers that state a source."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from typing import Any

from helpers.architecture import ROOT

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
"""Path below docs/ -> the page as it is written."""
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?")
SOURCE = re.compile(r"^<!-- from: (\S+) -->$\n+((?:.+\n?)+)", re.MULTILINE)
"""A comment that names the file a block's numbers are from, and that block: all lines up to the next empty one."""
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLUMNS = 88
"""What a block of code shows beside the navigation without being scrolled."""
FEW = 10
"""Whole numbers up to here count things in a sentence and are not traced."""


def generated() -> Any:
    """docs/generated.py as a module."""
    spec = importlib.util.spec_from_file_location("generated_pages", DOCS / "generated.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: str, language: str) -> Iterator[tuple[str, str]]:
    """(title or "", code) of every fenced block of a language."""
    for match in FENCE.finditer(page):
        if match[1] == language:
            yield match[2] or "", match[3]


def commands(page: str) -> list[list[str]]:
    """The words of every command of a page: lines of its shell blocks, and calls of lmscale in its sentences.

    A verb that a sentence only names is no call.
    """
    lines = [line for _, code in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines()]
    sentences = FENCE.sub("", page)
    lines += [" ".join(code.split()) for code in re.findall(r"`(lmscale [^\s`]+\s[^`]+)`", sentences)]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def numbers(text: str) -> set[float]:
    """The numbers of a text; a sign and the letter of a unit are no part of their size."""
    return {abs(float(number.replace(",", ""))) for number in NUMBER.findall(text)}


def traced(page: str) -> Iterator[tuple[str, str]]:
    """(file, block) of every block of a page whose numbers state where they are from."""
    for match in SOURCE.finditer(page):
        yield match[1], match[2]
