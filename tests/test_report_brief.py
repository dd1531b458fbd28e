"""Verbs end with the answer: the optimum with its intervals, and prediction against measurement."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call
from helpers.simulated import write_sweep

from lmscale import laws
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


AXES = {"params": [1e7, 3e7, 1e8], "tokens": [1e8, 1e9], "experts": [1.0, 4.0, 16.0], "streams": [1.0, 2.0, 8.0]}
LAWS = {
    "clark": laws.Clark(-0.08, -0.1, 0.009, 1.1, 1.8, 300.0),
    "joint-experts": laws.JointExperts(20.0, 0.1, -0.25, -0.02, 30.0, -0.2, -0.25, 0.01, 1.0, 1.5, 300.0),
    "parscale": laws.ParScale(1e5, 0.3, 0.25, 1.0),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_law_of_other_inputs_is_fitted_without_an_answer_in_n_and_d(name, tmp_path, capsys):
    law, file = LAWS[name], tmp_path / "table.csv"
    grid = np.meshgrid(*(AXES[one] for one in law.INPUTS))
    table = pd.DataFrame({one: axis.ravel() for one, axis in zip(law.INPUTS, grid)})
    table.assign(loss_nats=law.loss(*(table[one].to_numpy() for one in law.INPUTS))).to_csv(file, index=False)
    fixed = ",".join(f"{key}={value}" for key, value in list(law.values().items())[1:])
    words = ("--approach", 3, "--law", name, "--fix", fixed, "--resamples", 0, "--no-check")
    assert call("fit", file, *words, "--json", tmp_path / "fit.json") == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "fit.json").read_text())["answer"] == []
    assert "nan" not in capsys.readouterr().out.split("\nnext:")[-1], "no command of a compute that nobody knows"
