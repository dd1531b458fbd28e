"""Verbs end with the answer: the optimum with its intervals, and prediction against measurement."""

import json

import pytest
from helpers.simulated import write_sweep

from lmscale.cli import VERBS, parse
from lmscale.commands.console import open_console


@pytest.mark.long
@pytest.mark.parametrize("verb", ["fit", "report"])
def test_the_verbs_end_with_the_answer(verb, tmp_path, capsys):
    folder = write_sweep(tmp_path, points=4)
    words = [str(folder), "--resamples", "20"]
    VERBS[verb].load().main(parse(verb, words + (["--no-check"] if verb == "fit" else [])), open_console())
    printed = capsys.readouterr().out
    assert "\noptimum at C = 3×10¹² FLOPs, Approach 2: N* = " in "\n" + printed
    assert "prediction, Approach 3: 7 held-out losses measured " in printed
    if verb == "report":
        answer = json.loads((folder / "report" / "fits.json").read_text())["answer"]
        assert all(line in printed for line in answer) and len(answer) == 4
