"""A row is a planned run with its outcome; a file that cannot be believed is said in one sentence."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of

from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.core.results import Outcome, collect


def test_an_outcome_comes_back_from_its_file(tmp_path: Path) -> None:
    outcome = outcome_of(RUN, state="diverged", reason="the training loss was nan at step 3", loss_nats=None)
    assert Outcome.read(tmp_path) is None
    outcome.write(tmp_path)
    assert Outcome.read(tmp_path) == outcome


def test_nan_is_no_loss(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        outcome_of(RUN, loss_nats=float("nan")).write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda fields: fields.pop("params"), "lacks the field 'params'"),
        (lambda fields: fields.update(los=1), "has no field 'los'"),
        (lambda fields: fields.update(loss_nats="low"), "loss_nats = 'low'"),
        (lambda fields: fields.update(state="done"), "state = 'done'"),
    ],
)
def test_an_outcome_of_another_version_is_refused(tmp_path: Path, change: Any, sentence: str) -> None:
    fields = asdict(outcome_of(RUN))
    change(fields)
    (tmp_path / "outcome.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=f"outcome.json is corrupt or of another version .*{sentence}.*delete it, and"):
        Outcome.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_an_outcome_cut_short_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "outcome.json").write_text(text)
    with pytest.raises(UserError, match=r"outcome\.json is corrupt"):
        Outcome.read(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "runs" / "two"
    write_plan(place, "two", [PlannedRun(RUN, flops_budget=1e9), PlannedRun(OTHER, held_out=True, group="pair")])
    outcome_of(RUN).write(place / RUN.run_id)
    return place


def test_every_planned_run_is_a_row(folder: Path) -> None:
    table = collect(folder)
    assert list(table["run"]) == [RUN.run_id, OTHER.run_id]
    assert list(table["state"]) == ["finished", "missing"]
    assert list(table["held_out"]) == [False, True]
    assert list(table["group"]) == [RUN.run_id, "pair"]
    assert table["flops_budget"].dtype == table["loss_nats"].dtype == float
    assert table["loss_nats"].isna().tolist() == [False, True] and table["flops_budget"][0] == 1e9
    done, missing = table.iloc[0], table.iloc[1]
    assert (done["params"], done["tokens"], done["flops"]) == (count(RUN).params, RUN.tokens, count(RUN).flops)
    assert (missing["params"], missing["peak_lr"], missing["seed"]) == (count(OTHER).params, 0.01, 1)
    assert (done["name"], done["seconds"]) == ("first", 2.0) and table["seconds"].isna().tolist() == [False, True]


def test_a_folder_without_any_outcome_is_a_table_too(tmp_path: Path) -> None:
    write_plan(tmp_path, "none", [PlannedRun(RUN)])
    assert list(collect(tmp_path)["state"]) == ["missing"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda plan: plan["runs"][0].update(run_id="0" * 12), "plan is of another version of lmscale; plan .* again"),
        (lambda plan: plan["runs"][0]["config"].update(seed=9), "plan is of another version of lmscale"),
        (lambda plan: plan["runs"][0]["config"].update(sead=9), "has no field 'sead'; did you mean 'seed'"),
        (lambda plan: plan["runs"][0].update(flops_budget="much"), "flops_budget = 'much'"),
        (lambda plan: plan.pop("sweep"), "corrupt .*'sweep'"),
        (lambda plan: plan.update(runs=3), "plan.json is corrupt"),
        (lambda plan: plan.update(runs=[3]), "plan.json is corrupt"),
        (lambda plan: plan.update(runs=[]), "holds no runs"),
    ],
)
def test_a_plan_that_cannot_be_believed_is_refused(folder: Path, change: Any, sentence: str) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    change(plan)
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=sentence):
        collect(folder)


def test_a_folder_that_is_no_sweeps_says_which_are(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*absent; `lmscale run SWEEP.py` makes it"):
        read_plan(tmp_path / "absent")
    with pytest.raises(UserError, match=f"is no sweep's folder: give one of {folder}$"):
        read_plan(folder.parent)
    with pytest.raises(UserError, match="there is no plan at"):
        read_plan(folder / RUN.run_id)


def test_a_plan_that_stands_there_is_not_written_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    name, runs = read_plan(folder)
    monkeypatch.setattr(os, "fsync", refuse)
    write_plan(folder, name, runs)
    with pytest.raises(UserError, match="is full"):
        write_plan(folder, name, runs[:1])
