"""The command line in this process."""

import sys

import pytest

from lmscale import cli


def call(*words: object) -> int:
    """The exit status of `lmscale WORDS` in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["lmscale", *map(str, words)])
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code
