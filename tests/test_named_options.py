"""Every option that a page, a message or a docstring names with its verb is one that the verb takes."""

import re
from pathlib import Path

import pytest

from lmscale import cli
from lmscale.commands.several_values import _spellings

CALL = re.compile(rf"lmscale ({'|'.join(cli.VERBS)})\b([^`\n\"]*)")
"""A call up to the end of its code, string or line."""
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")


def unknown(text: str) -> list[str]:
    """The options that a text names with a verb which does not take them, as "run --slurm"."""
    return [
        f"{verb} {option}"
        for verb, rest in CALL.findall(text)
        for option in OPTION.findall(rest)
        if option not in TAKEN[verb]
    ]


TAKEN = {name: {"--help", *dict(_spellings(getattr(verb.load(), verb.arguments)))} for name, verb in cli.VERBS.items()}


@pytest.mark.parametrize("kind", ["*.md", "docs/**/*.md", "docs/**/*.ipynb", "lmscale/**/*.py", "experiments/*.py"])
def test_options_that_are_named_with_a_verb_are_its_own(root: Path, kind: str) -> None:
    files = sorted(root.glob(kind))
    assert files and {str(file): wrong for file in files if (wrong := unknown(file.read_text()))} == {}


def test_an_option_of_another_verb_is_noticed() -> None:
    assert unknown("`lmscale run --slurm` and `lmscale plan --price 2`, `lmscale fit --price 2`") == [
        "run --slurm", "fit --price",
    ]  # fmt: skip
