"""The launcher starts what is missing, survives what fails and leaves no process behind."""

import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of
from helpers.stand_in import LONG, REAL_PYTHON, Watcher, a_trainer, begun, go, journal, named, none_left_behind  # noqa: F401

from lmscale.core.config import RunConfig
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun, read_plan, write_plan
from lmscale.core.run_folder import last_metrics
from lmscale.study.launch import Summary, failures, lease, program
from lmscale.study.launch.failures import judge, with_less_memory
from lmscale.study.launch.watchers import RaiseOnFailure


@pytest.mark.long
def test_only_missing_runs_are_started_the_longest_first(trainer: Path, tmp_path: Path) -> None:
    runs, watcher = tmp_path / "runs", Watcher()
    outcome_of(OTHER).write(runs / OTHER.run_id)
    summary = go(runs, RUN, OTHER, LONG, watcher=watcher)
    assert summary == Summary(finished=3, diverged=0, failed={}, interrupted=False)
    assert [words[0] for words in journal(trainer)] == [LONG.run_id, RUN.run_id]
    assert watcher.events == [(what, run, *details) for run in (LONG.run_id, RUN.run_id)
                            for what, details in (("started", ()), ("ended", ("",)))]  # fmt: skip
    assert read_plan(runs) == ("two", [PlannedRun(config) for config in (RUN, OTHER, LONG)])
    assert RunConfig.from_json(json.loads((runs / RUN.run_id / "config.json").read_text())) == RUN
    assert (runs / RUN.run_id / "log.txt").read_text() == "a word for the log\n"


@pytest.mark.long
def test_a_second_launch_starts_nothing(trainer: Path, tmp_path: Path) -> None:
    go(tmp_path / "runs", RUN, OTHER, workers=2)
    once = journal(trainer)
    assert go(tmp_path / "runs", RUN, OTHER).finished == 2 and journal(trainer) == once


@pytest.mark.long
def test_a_run_with_bad_input_is_given_up_at_once_and_the_others_continue(trainer: Path, tmp_path: Path) -> None:
    summary = go(tmp_path / "runs", named(LONG, "fail"), RUN)
    assert summary.failed == {LONG.run_id: "lmscale: the tokens are missing"}
    assert summary.finished == 1 and not summary.interrupted
    failed = json.loads((tmp_path / "runs" / LONG.run_id / "failed.json").read_text())
    assert failed["log"] == ["a word for the log", "lmscale: the tokens are missing"]
    before = journal(trainer)
    assert go(tmp_path / "runs", LONG, RUN).failed == summary.failed and journal(trainer) == before
    failures.forgive(tmp_path / "runs" / LONG.run_id)
    assert go(tmp_path / "runs", LONG, RUN).finished == 2


@pytest.mark.long
def test_a_crashed_run_is_repeated_three_times_over_all_launches(trainer: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    summary = go(tmp_path / "runs", named(OTHER, "silent"), watcher=watcher)
    assert summary.failed == {OTHER.run_id: "exit status 3"}
    assert [event[2] for event in watcher.events if event[0] == "ended"] == [
        *["exit status 3; once more in 0 s"] * 3, "exit status 3",
    ]  # fmt: skip
    assert [attempt.end and attempt.end["status"] for attempt in lease.history(tmp_path / "runs" / OTHER.run_id)] == [
        1
    ] * 4
    (tmp_path / "runs" / OTHER.run_id / "failed.json").unlink()
    assert len(begun(trainer)) == 4
    go(tmp_path / "runs", named(OTHER, "silent"))
    assert len(begun(trainer)) == 5, "what was tried by an earlier launch counts"
    failures.forgive(tmp_path / "runs" / OTHER.run_id)
    go(tmp_path / "runs", named(OTHER, "silent"))
    assert len(begun(trainer)) == 9, "until it is retried"


@pytest.mark.long
def test_a_measurement_ends_where_a_run_does_not_finish(trainer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"run {RUN.run_id} did not finish: lmscale: the tokens are missing"):
        go(tmp_path / "runs", named(RUN, "fail"), watcher=RaiseOnFailure())
    assert go(tmp_path / "others", LONG, watcher=RaiseOnFailure()).finished == 1


@pytest.mark.long
def test_a_killed_run_continues(trainer: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    assert go(tmp_path / "runs", named(LONG, "killed"), RUN, watcher=watcher).finished == 2
    assert [event[2] for event in watcher.events if event[0] == "ended" and event[1] == LONG.run_id] == [
        *["killed by SIGKILL; once more in 0 s"] * 2, "",
    ]  # fmt: skip
    ends = [attempt.end for attempt in lease.history(tmp_path / "runs" / LONG.run_id)]
    assert [end and end["reason"] for end in ends[:2]] == ["killed by SIGKILL"] * 2


@pytest.mark.long
def test_too_little_memory_means_more_micro_batches_and_a_full_disk_means_waiting(
    trainer: Path, tmp_path: Path
) -> None:
    watcher = Watcher()
    assert go(tmp_path / "runs", named(LONG, "large"), named(RUN, "full"), watcher=watcher).finished == 2
    assert [words[4] for words in begun(trainer) if words[0] == LONG.run_id] == ["1", "2", "4"]
    assert len([words for words in begun(trainer) if words[0] == RUN.run_id]) == 6, "more often than after crashes"
    problems = [event[2] for event in watcher.events if event[0] == "ended" and event[1] == LONG.run_id]
    assert problems[0].endswith("once more with 2 micro-batches, remat 'none'")
    stored = RunConfig.from_json(json.loads((tmp_path / "runs" / LONG.run_id / "config.json").read_text()))
    assert stored.run_id == LONG.run_id and stored.optimizer.micro_batches == 4


def test_memory_is_reduced_step_by_step() -> None:
    cut = [with_less_memory(RUN, times) for times in range(6)]
    assert [one and (one.optimizer.micro_batches, one.model.remat) for one in cut] == [
        (1, "none"), (2, "none"), (4, "none"), (4, "dots"), (4, "full"), None,
    ]  # fmt: skip
    assert {one.run_id for one in cut if one} == {RUN.run_id}
    odd = replace(RUN, tokens=64_080, optimizer=replace(RUN.optimizer, batch_sequences=15))
    assert [
        one and one.optimizer.micro_batches
        for one in (with_less_memory(odd), with_less_memory(odd, 2), with_less_memory(odd, 3))
    ] == [
        3,
        15,
        15,
    ]


def test_what_a_status_means(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("one\n\n  the last word \n\n")
    assert judge(1, tmp_path, False) == failures.Ending(1, "the last word")
    assert judge(-9, tmp_path, False).kind == "crash" and judge(-9, tmp_path, True).kind == "memory"
    assert judge(-15, tmp_path, True).kind == judge(75, tmp_path, False).kind == "stopped"
    assert judge(-11, tmp_path, False) == failures.Ending(-11, "killed by SIGSEGV")
    assert [judge(status, tmp_path, False).kind for status in (2, 69, 71, 74)] == ["input", "busy", "memory", "storage"]


@pytest.mark.long
def test_a_run_that_only_stops_is_given_up(trainer: Path, tmp_path: Path) -> None:
    summary = go(tmp_path / "runs", named(RUN, "shy"))
    assert summary.failed == {RUN.run_id: "stopped before it had done a step more"} and len(begun(trainer)) == 4


@pytest.mark.long
def test_a_slot_in_which_every_run_crashes_gets_no_more_runs(trainer: Path, tmp_path: Path) -> None:
    """The remaining runs are not marked as failed: another machine may do better."""
    every = [replace(RUN, seed=seed, name="silent") for seed in range(4)]
    summary = go(tmp_path / "runs", *every)
    assert len(begun(trainer)) == 3 and all(
        "has failed 3 runs in a row" in reason for reason in summary.failed.values()
    )
    assert len(summary.failed) == 4 and not list(tmp_path.rglob("failed.json"))


@pytest.mark.long
def test_a_stop_file_ends_the_launch_and_its_runs(trainer: Path, tmp_path: Path) -> None:
    def stop() -> None:
        wait_until(lambda: bool(journal(trainer)))
        (tmp_path / "runs" / "stop").touch()

    assert go(tmp_path / "runs", named(RUN, "wait"), OTHER, watcher=Watcher(stop)).interrupted
    assert [words[1] for words in journal(trainer)] == ["begun", "asked"]
    assert go(tmp_path / "runs", RUN, OTHER).finished == 2, "a new launch removes the stop file"


@pytest.mark.long
def test_a_single_run_is_stopped_and_the_others_continue(trainer: Path, tmp_path: Path) -> None:
    def stop() -> None:
        wait_until(lambda: bool(journal(trainer)))
        (tmp_path / "runs" / LONG.run_id / "stop").touch()

    summary = go(tmp_path / "runs", named(LONG, "wait"), OTHER, watcher=Watcher(stop))
    assert summary.failed == {LONG.run_id: "stopped by `lmscale stop`"} and summary.finished == 1


LAUNCHER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers import stand_in
from lmscale.core.plans import read_plan
from lmscale.study.launch import failures, pool
pool.POLL_SECONDS, pool.ELSEWHERE_SECONDS, failures.LONGEST_PAUSE_SECONDS = 0.01, 0.05, 0.01
sys.executable = {trainer!r}
_, runs = read_plan(Path({folder!r}))
summary = stand_in.go(Path({folder!r}), *[run.config for run in runs], workers=2)
print(summary.finished, len(summary.failed))
"""


def launcher(trainer: Path, folder: Path) -> "subprocess.Popen[str]":
    """A launcher in a process of its own, of the plan that lies in `folder`."""
    program = LAUNCHER.format(tests=str(Path(__file__).parent), trainer=str(trainer / "python"), folder=str(folder))
    return subprocess.Popen([REAL_PYTHON, "-c", program], stdout=subprocess.PIPE, text=True)


@pytest.mark.long
def test_two_launchers_at_once_do_every_run_once(trainer: Path, tmp_path: Path) -> None:
    every = [replace(RUN, seed=seed, name="slow") for seed in range(6)]
    for config in every:
        outcome_of(config).write(trainer / "o")
        (trainer / "o" / "outcome.json").rename(trainer / f"{config.run_id}.json")
    write_plan(tmp_path / "runs", "two", [PlannedRun(config) for config in every])
    both = [launcher(trainer, tmp_path / "runs") for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["6 0\n"] * 2
    assert sorted(words[0] for words in begun(trainer)) == sorted(config.run_id for config in every)


@pytest.mark.long
def test_what_a_killed_launcher_leaves_stops_by_itself_and_is_taken_over(trainer: Path, tmp_path: Path) -> None:
    write_plan(tmp_path / "runs", "two", [PlannedRun(named(RUN, "wait")), PlannedRun(named(OTHER, "wait"))])
    process = launcher(trainer, tmp_path / "runs")
    wait_until(lambda: len(begun(trainer)) == 2)
    process.kill()
    process.communicate()
    assert go(tmp_path / "runs", RUN, OTHER, workers=2).finished == 2, "it waits for the two to be gone"
    assert [words[1] for words in journal(trainer)] == ["begun"] * 2 + ["asked"] * 2 + ["begun"] * 2


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_run_and_the_same_call_continues(trainer: Path, tmp_path: Path, number: int) -> None:
    begun = []

    def interrupt() -> None:
        begun.append(1)
        if len(begun) == 2:
            wait_until(lambda: len(journal(trainer)) == 2)
            os.kill(os.getpid(), number)

    waiting = [named(config, "wait") for config in (RUN, OTHER, LONG)]
    watcher = Watcher(interrupt)
    summary = go(tmp_path / "runs", *waiting, watcher=watcher, workers=2)
    assert summary == Summary(finished=0, diverged=0, failed={}, interrupted=True)
    assert sorted(words[1] for words in journal(trainer)) == ["asked", "asked", "begun", "begun"]
    assert [event[2] for event in watcher.events if event[0] == "ended"] == ["stopped", "stopped"]
    assert not list(tmp_path.rglob("failed.json"))
    assert go(tmp_path / "runs", RUN, OTHER, LONG, workers=2).finished == 3


def wait_until(true: Callable[[], bool]) -> None:
    import time

    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_a_run_that_will_not_stop_is_killed(trainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "STOP_SECONDS", 0.1)

    def interrupt() -> None:
        wait_until(lambda: bool(journal(trainer)))
        os.kill(os.getpid(), signal.SIGINT)

    assert go(tmp_path / "runs", named(RUN, "stubborn"), watcher=Watcher(interrupt)).interrupted
    assert [words[1] for words in journal(trainer)][1:] == ["asked"]


@pytest.mark.long
def test_a_disk_that_is_full_for_a_while_is_waited_for(
    trainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fills up as the second run is to begin, and the launcher itself cannot write."""
    fsync, refused = os.fsync, []

    def full(descriptor: int) -> None:
        refused.append(1)
        if len(refused) < 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    watcher = Watcher(lambda: monkeypatch.setattr(os, "fsync", full))
    assert go(tmp_path / "runs", LONG, RUN, watcher=watcher, workers=2).finished == 2
    problems = [event[2] for event in watcher.events if event[0] == "ended" and event[1] == RUN.run_id]
    assert len(problems) == 4 and all(
        "config.json is full" in words and "once more in 0 s" in words for words in problems[:3]
    )
    assert len(begun(trainer)) == 2 and not list((tmp_path / "runs").rglob("*.partial"))


def test_trouble_of_the_launcher_stops_its_runs(trainer: Path, tmp_path: Path) -> None:
    def trouble() -> None:
        wait_until(lambda: bool(journal(trainer)))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        go(tmp_path / "runs", named(LONG, "wait"), RUN, watcher=Watcher(trouble), workers=2)
    assert [words[1] for words in journal(trainer)] == ["begun", "asked"]


def test_a_folder_that_cannot_be_written_is_named(trainer: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*plan\.json: Not a directory; choose"):
        go(tmp_path / "file" / "runs", RUN)
    assert not journal(trainer)


def test_the_watcher_hears_the_newest_row_once(tmp_path: Path) -> None:
    row = {"step": 7}

    def write() -> None:
        (tmp_path / "runs" / RUN.run_id / "metrics.jsonl").write_text('{"step": 3}\n' + json.dumps(row) + "\n")

    watcher = Watcher(write)
    go(tmp_path / "runs", RUN, watcher=watcher)
    assert watcher.events[1] == ("advanced", RUN.run_id, 7) and len(watcher.events) == 3


def test_a_line_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    assert last_metrics(tmp_path) is None
    path = tmp_path / "metrics.jsonl"
    for text, step in (("", None), ('{"st', None), ('{"step": 1}\n', 1), ('{"step": 1}\n{"step": 2', 1)):
        path.write_text(text)
        assert (last_metrics(tmp_path) or {}).get("step") == step
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(5000)))
    assert last_metrics(tmp_path) == {"step": 4999}
