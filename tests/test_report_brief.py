"""The answer in a terminal: the optimum with its intervals, and prediction against measurement."""

import json

import pytest
from helpers.simulated import write_sweep
from test_report_answer import Line, budget, held_out_run, runs

from lmscale.cli import VERBS, parse
from lmscale.commands.console import open_console
from lmscale.study.fits.predict.held_out import HeldOut
from lmscale.study.report.brief import brief


def test_the_optimum_is_stated_with_its_intervals_by_every_fit():
    assert brief([Line("2", resamples=0), Line()], runs()) == [
        "optimum at C = 10¹² FLOPs, Approach 3: N* = 1.00k (900 to 1.10k), D* = 20.0k (18.0k to 22.0k), "
        "D*/N* = 30 (25 to 40) (95 % intervals)",
        "optimum at C = 10¹² FLOPs, Approach 2: N* = 1.00k, D* = 20.0k, D*/N* = 30",
    ]
    assert brief([], runs()) == []


def test_what_was_predicted_stands_beside_what_was_measured():
    losses = HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0), held_out_run("b", 3.0, 3.0)))
    sizes = HeldOut("2", 0.9, (), (budget(1000.0, 1250.0), budget(1.0, None)))
    first, second, third = brief([], runs(), [losses, sizes])
    assert first.startswith("prediction, Approach 3: 2 held-out losses measured 2.38 % from predicted on average; ")
    assert "N* = 1.00k (" in second and "; measured 1.25k (" in second
    assert "no minimum was measured" in third


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
