"""A row is a planned run with its outcome; a damaged file is reported in one sentence."""

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of

from lmscale.core.config import RunConfig
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.plan_text import parse_config
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.core.results import Outcome, collect
from lmscale.core.run_identity import describes, read_config
from lmscale.study.fits.options import FitOptions
from lmscale.study.launch.states import read_states
from lmscale.study.tables import read_table


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
    (folder / RUN.run_id / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"it is the folder of a run; give that of its sweep, {folder}$"):
        read_plan(folder / RUN.run_id)
    with pytest.raises(UserError, match=r"plan\.json is a file: give the folder of a sweep"):
        read_plan(folder / "plan.json")


def test_a_plan_that_stands_there_is_not_written_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    name, runs = read_plan(folder)
    monkeypatch.setattr(os, "fsync", refuse)
    write_plan(folder, name, runs)
    with pytest.raises(UserError, match="is full"):
        write_plan(folder, name, runs[:1])


FOREIGN: dict[str, Callable[[Path], object]] = {
    "outcome of another seed": lambda run: outcome_of(OTHER).write(run),
    "configuration of another seed": lambda run: write_json(run / "config.json", OTHER.to_json()),
    "configuration edited": lambda run: write_json(run / "config.json", {**RUN.to_json(), "validations": 3}),
    "configuration cut short": lambda run: (run / "config.json").write_text("{"),
    "outcome of a finished run without a loss": lambda run: outcome_of(RUN, loss_nats=None).write(run),
    "outcome of negative tokens": lambda run: outcome_of(RUN, tokens=-1).write(run),
    "outcome of an infinite loss": lambda run: rewrite(run / "outcome.json", b": 2.5,", b": 1e999,"),
    "outcome of 400 digits": lambda run: rewrite(run / "outcome.json", b'"spikes": 0', b'"spikes": ' + b"9" * 400),
    "outcome of half a character": lambda run: rewrite(run / "outcome.json", b'"5f0c"', b'"\\ud800"'),
}


def rewrite(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_not_the_runs_own_is_refused_by_every_reader(folder: Path, what: str) -> None:
    """A run is named by its folder, its configuration and its outcome; all three must agree."""
    run = folder / RUN.run_id
    write_json(run / "config.json", RUN.to_json())
    assert collect(folder)["state"][0] == read_states(folder)[1][0].state == "finished"
    FOREIGN[what](run)
    with pytest.raises(UserError, match=re.escape(str(run))):
        Outcome.read(run)
    with pytest.raises(UserError, match=re.escape(str(run))):
        read_table(folder)
    table = collect(folder)
    assert list(table["state"]) == ["corrupt", "missing"] and table["loss_nats"].isna().all()
    (sentence,) = table.attrs["corrupt"]
    assert str(run) in sentence and "\n" not in sentence and len(sentence) < 600
    state = read_states(folder)[1][0]
    assert state.state == "corrupt" and str(run) in state.remark and state.loss_nats is None


def test_a_configuration_is_that_of_its_folder(tmp_path: Path) -> None:
    for folder in (tmp_path / RUN.run_id, tmp_path / "mine"):
        write_json(folder / "config.json", RUN.to_json())
        assert read_config(folder) == RUN
        write_json(folder / "config.json", OTHER.to_json())
    assert read_config(tmp_path / "mine") == OTHER
    with pytest.raises(UserError, match=f"is of run {RUN.run_id}, but config.json is that of run {OTHER.run_id}"):
        read_config(tmp_path / RUN.run_id)
    outcome_of(RUN).write(tmp_path / "mine")
    with pytest.raises(UserError, match=f"outcome of run {RUN.run_id}, but the config.json of run {OTHER.run_id}"):
        Outcome.read(tmp_path / "mine")


def _twice(text: str) -> str:
    """A configuration with a second seed, behind the first."""
    return text.replace(f'\n "seed": {RUN.seed},', f'\n "seed": {RUN.seed},\n "seed": 5,')


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda text: text,
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps(json.loads(text), indent=2),
        lambda text: text.replace('\n  "', '\n "'),  # fields of parts stand where those of the configuration do
        lambda text: text.replace('\n "seed"', ' "seed"'),
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=1) + "\n",
        _twice,
    ],
)
def test_a_plan_means_what_it_means_as_json_however_it_is_laid_out(tmp_path: Path, laid_out: Any) -> None:
    """Fields are read one by one where each stands in its own place; a run's own file is compared as text."""
    write_plan(tmp_path, "two", [PlannedRun(RUN), PlannedRun(OTHER)])
    text = laid_out(json.dumps(RUN.to_json(), indent=1) + "\n")
    config = RunConfig.from_json(json.loads(text))
    plan = (tmp_path / "plan.json").read_text()
    inside = json.dumps(RUN.to_json(), indent=1).replace("\n", "\n   ")
    assert inside in plan
    plan = plan.replace(inside, text.rstrip("\n").replace("\n", "\n   "))
    plan = plan.replace(f'"run_id": "{RUN.run_id}"', f'"run_id": "{config.run_id}"')
    (tmp_path / "plan.json").write_text(plan)
    assert [run.config for run in read_plan(tmp_path)[1]] == [config, OTHER]
    for known in (config, OTHER):
        outcome_of(known).write(tmp_path / known.run_id)
        (tmp_path / known.run_id / "config.json").write_text(text)
    first, second = collect(tmp_path)["state"]
    assert (first, second) == ("finished", "corrupt")
    assert [run.state for run in read_states(tmp_path)[1]] == ["finished", "corrupt"]


@pytest.mark.parametrize(
    "text", ['{\n "seed": 1,,\n}\n', '{\n "seed": 1\n "tokens": 2\n}\n', '{\n "seed": 1}, {"tokens": 2\n}\n']
)
def test_what_is_no_json_as_a_whole_is_none_field_by_field(text: str) -> None:
    with pytest.raises(ValueError, match=r"line|laid out|Extra data"):
        parse_config(text.encode(), {})


def test_the_plan_of_another_sweep_is_refused(folder: Path, tmp_path: Path) -> None:
    other = replace(RUN, seed=7)
    write_plan(tmp_path / "third", "third", [PlannedRun(other)])
    (folder / "plan.json").write_bytes((tmp_path / "third" / "plan.json").read_bytes())
    for read in (read_plan, read_states, collect):
        with pytest.raises(UserError, match="names none of the 1 runs that lie there"):
            read(folder)


def test_two_corpora_are_named_and_fitted_together_on_request_only(folder: Path) -> None:
    outcome_of(OTHER, data_fingerprint="1234").write(folder / OTHER.run_id)
    table = collect(folder)
    (note,) = table.attrs["notes"]
    assert "2 corpora are mixed" in note and "1 on 5f0c" in note and "1 on 1234" in note
    with pytest.raises(UserError, match=r"2 corpora are mixed .* `mixed_corpora=True`"):
        FitOptions().read(table)
    assert FitOptions(mixed_corpora=True).read(table)[0] is table
    assert len(FitOptions(where="data_fingerprint == '1234'").read(table)[0]) == 1
    assert not collect(folder).assign(data_fingerprint=["5f0c", None]).attrs.get("corrupt")
    outcome_of(OTHER, data_fingerprint="").write(folder / OTHER.run_id)  # of an older version
    assert collect(folder).attrs["notes"] == []
    FitOptions().read(collect(folder))


def test_a_run_without_outcome_counts_with_the_corpus_that_it_is_planned_for(folder: Path) -> None:
    assert collect(folder).attrs["notes"] == []
    runs = [PlannedRun(RUN, data_fingerprint="1234"), PlannedRun(OTHER, data_fingerprint="1234")]
    write_plan(folder, "two", runs)
    assert read_plan(folder)[1] == runs
    assert "1 on 5f0c, 1 on 1234" in collect(folder).attrs["notes"][0]
    assert [run.data_fingerprint for run in read_states(folder)[1]] == ["5f0c", "1234"]


def test_a_configuration_of_an_older_version_is_the_planned_one_where_defaults_are_planned() -> None:
    value = json.loads(json.dumps(RUN.to_json()))
    assert describes(value, RUN)
    del value["model"]["rope_fraction"], value["validations"]
    assert describes(value, RUN)
    assert not describes(value, replace(RUN, validations=RUN.validations + 1))
    for part, name in (("objective", "kind"), ("model", "width")):  # which no file may leave out
        assert not describes({**value, part: {key: item for key, item in value[part].items() if key != name}}, RUN)
    assert not describes({**value, "seed": bool(RUN.seed)}, RUN) and not describes({**value, "other": 1}, RUN)
