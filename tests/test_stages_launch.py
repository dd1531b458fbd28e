"""When a run starts that needs another: here, as Slurm jobs, and where what it needs will not come."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.outcomes import outcome_of
from helpers.stand_in import RUN, Watcher, a_trainer, journal, none_left_behind  # noqa: F401

from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.study import launch
from lmscale.study.launch import slurm
from lmscale.study.launch.sbatch import Cluster


def family(folder: Path, tokens: int = 6400) -> tuple[list[PlannedRun], Path]:
    """A parent, its child and a grandchild; the stand-in has the outcomes of all, and each has a checkpoint."""
    parent = replace(RUN, tokens=tokens, seed=11)
    child = replace(parent, init_from=parent.run_id, tokens=64_000)
    grandchild = replace(child, init_from=child.run_id, tokens=128_000)
    for config in (parent, child, grandchild):
        outcome_of(config).write(folder / "trainer" / config.run_id)
        (folder / "trainer" / config.run_id / "outcome.json").rename(folder / "trainer" / f"{config.run_id}.json")
        (folder / "runs" / config.run_id / "checkpoints" / "100").mkdir(parents=True)
    return [PlannedRun(config) for config in (grandchild, child, parent)], folder / "runs"


@pytest.mark.long
def test_a_run_starts_when_what_it_needs_has_finished(trainer: Path, tmp_path: Path) -> None:
    runs, folder = family(tmp_path)
    summary = launch.run("three", runs, folder, Watcher(), workers=3)
    assert summary.finished == 3 and not summary.failed
    begun = [words[0] for words in journal(trainer) if words[1] == "begun"]
    assert begun == [run.config.run_id for run in reversed(runs)]


@pytest.mark.long
def test_a_run_whose_parent_cannot_be_had_is_not_started(trainer: Path, tmp_path: Path) -> None:
    runs, folder = family(tmp_path)
    grandchild, child, parent = (run.config for run in runs)
    (folder / parent.run_id / "config.json").write_text(json.dumps(parent.to_json()))
    outcome_of(parent, state="diverged", loss_nats=None, reason="the loss was not finite").write(folder / parent.run_id)
    summary = launch.run("three", runs, folder, Watcher(), workers=3)
    assert summary.failed[child.run_id] == (
        f"not started: it starts from run {parent.run_id}, which has diverged (the loss was not finite)"
    )
    assert f"run {child.run_id}, which has failed (not started" in summary.failed[grandchild.run_id]
    assert journal(trainer) == [] and not (folder / child.run_id / "failed.json").exists()
    outcome_of(parent).write(folder / parent.run_id)
    (folder / parent.run_id / "checkpoints" / "100").rmdir()
    assert "which has no checkpoint; train it with" in launch.run("three", runs, folder, Watcher()).failed[child.run_id]
    (folder / parent.run_id / "checkpoints" / "100").mkdir()
    assert launch.run("three", runs, folder, Watcher()).finished == 3, "a later launch finds what is there then"


@pytest.mark.usefixtures("trainer")
def test_a_parent_of_another_sweep_is_looked_for_before_anything_starts(tmp_path: Path) -> None:
    runs, folder = family(tmp_path)
    child, parent = runs[1], runs[2].config
    with pytest.raises(UserError, match=r"which cannot be found: there is no run .*"):
        launch.run("two", [child], tmp_path / "other" / "two", Watcher())
    (folder / parent.run_id / "config.json").write_text(json.dumps(parent.to_json()))
    with pytest.raises(UserError, match=r"run \w+ is not started: it starts from run \w+, which has not finished"):
        launch.run("two", [child], folder.parent / "two", Watcher())
    outcome_of(parent).write(folder / parent.run_id)
    named = [PlannedRun(replace(child.config, init_from=f"{parent.run_id}@50"))]
    with pytest.raises(UserError, match="which has no checkpoint of step 50, but of 100"):
        launch.run("two", named, folder.parent / "two", Watcher())


def test_slurm_submits_each_stage_after_the_one_it_needs(tmp_path: Path) -> None:
    runs, _ = family(tmp_path)
    arrays = slurm.submissions("s", runs, tmp_path, Cluster())
    assert [one.runs for one in arrays] == [(run.config.run_id,) for run in reversed(runs)]
    assert [one.depth for one in arrays] == [0, 1, 2] and arrays[2].command(["5", "6"])[2].endswith(":5:6")


def test_slurm_waits_for_what_an_earlier_submission_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, folder = family(tmp_path)
    grandchild, child, parent = runs
    branch = PlannedRun(replace(parent.config, tokens=12_800), trunk=parent.config.run_id, branch_step=50)
    (folder / "slurm").mkdir()
    (folder / "slurm" / "job-41.json").write_text(json.dumps({"job": "41", "runs": [parent.config.run_id]}))
    monkeypatch.setattr(slurm, "_output", lambda command: "0\n" if "squeue" in command else "")
    missing, left_out = slurm.ready([grandchild, child, branch], folder)
    assert len(missing) == 3 and left_out == []
    commands: list[list[str]] = []

    def sbatch(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout=str(50 + len(commands)), stderr="")

    monkeypatch.setattr(subprocess, "run", sbatch)
    arrays = slurm.submissions("s", missing, folder, Cluster())
    assert [one.runs for one in arrays] == [(child.config.run_id, branch.config.run_id), (grandchild.config.run_id,)]
    assert slurm.jobs_before(arrays[0], missing, folder) == ["41"]
    assert slurm.jobs_before(arrays[1], missing, folder) == []
    assert slurm.jobs_before(slurm.submissions("s", [branch], folder, Cluster())[0], [branch], folder) == ["41"]
    slurm.submit(arrays, missing, folder)
    assert [command[2] for command in commands] == ["--dependency=afterany:41", "--dependency=afterany:51"]


def test_slurm_leaves_out_a_run_whose_parent_will_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, folder = family(tmp_path)
    grandchild, child, parent = runs
    monkeypatch.setattr(slurm, "_output", lambda command: "")
    (folder / parent.config.run_id / "config.json").write_text(json.dumps(parent.config.to_json()))
    (folder / parent.config.run_id / "failed.json").write_text('{"reason": "the disk is full"}')
    missing, left_out = slurm.ready(slurm.to_submit(runs, folder), folder)
    assert missing == [] and left_out[0] == (
        f"run {child.config.run_id} is not started: it starts from run {parent.config.run_id}, which has failed (the "
        f"disk is full)"
    )
    assert left_out[1].startswith(f"run {grandchild.config.run_id} is not started: it starts from run")
    (folder / parent.config.run_id / "failed.json").unlink()
    assert slurm.ready(slurm.to_submit(runs, folder), folder) == (list(runs), [])
