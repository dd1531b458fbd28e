"""`lmscale finish` trains one planned run on what its job was given; its exit status is for the scheduler."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.outcomes import OTHER, RUN
from helpers.stand_in import LONG, a_trainer, begun, journal, named, none_left_behind  # noqa: F401
from rich.console import Console

from lmscale.commands import finish
from lmscale.commands.finish import FinishArgs
from lmscale.core.config import RunConfig
from lmscale.core.errors import UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.run_folder import FAILED_FILE, OUTCOME_FILE
from lmscale.study.launch import slurm


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a planned sweep, outside of any job."""
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runs" / "some"


def finish_run(sweep: Path, config: RunConfig, *others: RunConfig) -> int:
    write_plan(sweep, "some", [PlannedRun(one) for one in (config, *others)])
    return finish.main(FinishArgs(sweep / config.run_id), Console())


@pytest.mark.long
def test_only_the_named_run_is_trained(trainer: Path, sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finish_run(sweep, RUN, OTHER) == 0
    assert [words[0] for words in begun(trainer)] == [RUN.run_id] and (sweep / RUN.run_id / OUTCOME_FILE).exists()
    assert capsys.readouterr().out.splitlines() == [
        f"run {RUN.run_id} begins on this job",
        f"run {RUN.run_id}: finished ",
        f"next: lmscale status {sweep}",
    ]


def test_a_failed_run_is_status_1_with_its_reason(
    trainer: Path, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finish_run(sweep, named(RUN, "fail")) == 1
    assert capsys.readouterr().out.splitlines()[-2] == "failed: lmscale: the tokens are missing"
    assert (sweep / RUN.run_id / FAILED_FILE).exists()


def test_a_run_that_is_not_planned_is_named(trainer: Path, sweep: Path) -> None:
    write_plan(sweep, "some", [PlannedRun(RUN)])
    with pytest.raises(UserError, match=f"has no run '{RUN.run_id[:-1]}x'; did you mean '{RUN.run_id}'"):
        finish.main(FinishArgs(sweep / f"{RUN.run_id[:-1]}x"), Console())


@pytest.mark.long
def test_the_end_of_a_jobs_time_stops_the_run_and_requeues_the_job(
    trainer: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm announces it with SIGUSR1; the handler that was there before comes back."""
    asked: list[list[str]] = []
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(slurm, "_output", lambda command: asked.append(list(command)) or "")
    before = signal.getsignal(signal.SIGUSR1)
    announce = f"while [ ! -s {trainer}/journal ]; do sleep 0.01; done; kill -USR1 {os.getpid()}"
    with subprocess.Popen(["sh", "-c", announce]):
        assert finish_run(sweep, named(RUN, "wait")) == EXIT_INTERRUPTED
    assert [words[1] for words in journal(trainer)] == ["begun", "asked"]
    assert asked == [["scontrol", "requeue", "17"]] and "it is requeued" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGUSR1) is before and not (sweep / RUN.run_id / FAILED_FILE).exists()


def test_several_processes_of_one_run_are_started_by_srun(
    trainer: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/flags\nshift\nexec "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert finish_run(sweep, LONG) == 0
    assert (tmp_path / "flags").read_text() == "--kill-on-bad-exit=0\n"
    assert begun(trainer)[0][3] == "None", "srun places the processes: no cores are set"
