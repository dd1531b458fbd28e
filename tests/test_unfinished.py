"""A sweep that is not finished: `fit` and `report` say how many runs are missing, and what trains them."""

import shlex
import shutil

import pytest
from helpers.command_line import call
from helpers.simulated import write_sweep

from lmscale.study.launch.states import read_states


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path / "sweep", points=10)


def keep(folder, runs):
    for run in read_states(folder)[1][runs:]:
        shutil.rmtree(folder / run.run_id, ignore_errors=True)  # the simulated ones lack some already


def again(folder):
    return shlex.join(["lmscale", "run", str(folder / "plan.json"), "--runs", str(folder.parent)])


def test_a_fit_of_no_run_names_the_missing_ones_and_what_trains_them(sweep, capsys):
    keep(sweep, 0)
    assert call("fit", sweep, "--approach", 3, "--resamples", 0) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "28 of 28 planned runs are not finished: 28 missing; " in said and "no run is left to fit" in said
    assert f"`{again(sweep)}` trains them and `lmscale status {sweep}`" in said


@pytest.mark.parametrize("words", [("fit", "--approach", 3, "--resamples", 0), ("report", "--resamples", 20)])
def test_numbers_of_some_runs_are_said_to_be_of_some(sweep, capsys, words):
    keep(sweep, 18)
    assert call(words[0], sweep, *words[1:]) == 0
    said = capsys.readouterr().out
    missing = [run for run in read_states(sweep)[1] if run.state == "missing"]
    assert len(missing) >= 10
    sentence = f"note: {len(missing)} of 28 planned runs are not finished: {len(missing)} missing"
    assert sentence in " ".join(said.split())
    assert said.rstrip().endswith(f"next: {again(sweep)}")


def test_of_a_finished_sweep_nothing_is_said(sweep, capsys, monkeypatch):
    states = [run for run in read_states(sweep)[1] if run.state == "finished"]
    monkeypatch.setattr("lmscale.study.report.under_way.read_states", lambda folder: ("sweep", states))
    assert call("fit", sweep, "--approach", 3, "--resamples", 0) == 0
    said = capsys.readouterr().out
    assert "not finished" not in said and said.rstrip().endswith(f"next: lmscale report {sweep}")
