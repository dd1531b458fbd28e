"""Logs, stop and retry, from wherever the folder can be seen."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.outcomes import RUN, outcome_of
from rich.console import Console

from lmscale.commands import logs, retry, stop
from lmscale.commands.logs import LogsArgs
from lmscale.commands.progress import label
from lmscale.commands.retry import RetryArgs
from lmscale.commands.stop import StopArgs
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.run_folder import failure_reason
from lmscale.study.launch import control, lease
from lmscale.study.launch.process import Process

CONFIGS = [replace(RUN, seed=seed) for seed in range(3)]
NAMES = [config.run_id for config in CONFIGS]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(control, "POLL_SECONDS", 0.01)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three runs: the first two have failed."""
    folder = tmp_path / "runs" / "three"
    write_plan(folder, "three", [PlannedRun(config) for config in CONFIGS])
    for name in NAMES:
        write_json(folder / name / "config.json", {})
    for name in NAMES[:2]:
        write_json(folder / name / "failed.json", {"reason": "exit status 3", "log": []})
        with lease.hold([folder / name], {}) as (path,):
            lease.record_end(path, 3, "exit status 3")
    return folder


def test_logs_tell_attempts_and_last_lines(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / NAMES[0] / "log.txt").write_text("".join(f"line {number}\n\n" for number in range(50)))
    write_json(sweep / NAMES[0] / "config.json", CONFIGS[0].to_json())
    logs.main(LogsArgs(NAMES[0][:6], sweep.parent, lines=3), Console())
    name, *lines = capsys.readouterr().out.splitlines()
    assert name == f"run {NAMES[0]}: {label(PlannedRun(CONFIGS[0]))}"
    assert lines[0].startswith("attempt 1, ") and lines[0].endswith(": exit status 3")
    assert lines[1:-1] == ["failed: exit status 3", "line 47", "line 48", "line 49"]
    assert lines[-1] == f"next: lmscale retry {sweep} {NAMES[0]}"


def test_logs_follow_a_run_to_its_end(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = sweep / NAMES[2]
    (place / "log.txt").write_text("first\n")

    def work() -> None:
        time.sleep(0.05)
        with (place / "log.txt").open("a") as file:
            file.write("second\n")
        time.sleep(0.1)
        outcome_of(CONFIGS[2]).write(place)

    thread = threading.Thread(target=work)
    thread.start()
    logs.main(LogsArgs(str(place), sweep.parent, follow=True), Console())
    thread.join()
    assert capsys.readouterr().out == f"run {NAMES[2]}\nfirst\nsecond\nnext: lmscale status {sweep}\n"


def test_a_run_is_found_by_its_first_letters_or_its_folder(sweep: Path) -> None:
    assert (
        control.find_run(NAMES[1][:5], sweep.parent)
        == control.find_run(str(sweep / NAMES[1]), sweep)
        == sweep / NAMES[1]
    )
    write_json(sweep / f"{NAMES[1][:5]}9" / "config.json", {})
    with pytest.raises(UserError, match=f"2 runs begin with '{NAMES[1][:5]}': .*; add letters"):
        control.find_run(NAMES[1][:5], sweep.parent)
    with pytest.raises(UserError, match=f"no run below .* did you mean '{NAMES[1]}'"):
        control.find_run(NAMES[1][:-1] + "x", sweep.parent)
    with pytest.raises(UserError, match="is no run folder"):
        control.find_run(str(sweep), sweep.parent)


def test_retry_forgives_what_has_failed(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retry.main(RetryArgs(sweep, (NAMES[0],)), Console())
    assert failure_reason(sweep / NAMES[0]) is None and failure_reason(sweep / NAMES[1]) is not None
    retry.main(RetryArgs(sweep), Console())
    assert failure_reason(sweep / NAMES[1]) is None
    assert (
        capsys.readouterr().out.count(f"1 run of {sweep} may be tried again\nnext: lmscale run {sweep}/plan.json") == 2
    )
    retry.main(RetryArgs(sweep), Console())
    assert capsys.readouterr().out.startswith(f"no run of {sweep} has failed\n")
    with pytest.raises(UserError, match="has not failed"):
        control.retry(sweep, [NAMES[2]])
    outcome_of(CONFIGS[2], state="diverged").write(sweep / NAMES[2])
    with pytest.raises(UserError, match="has an outcome; only failed runs"):
        control.retry(sweep, [NAMES[2]])
    with pytest.raises(UserError, match="plans no run 'zzz'"):
        control.retry(sweep, ["zzz"])


def test_stop_waits_for_those_at_work(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leased = threading.Event()

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch, lease.hold([sweep / NAMES[2]], {}):
            patch.setattr(lease.os, "kill", lambda pid, number: None)  # the test's own process
            leased.set()
            while not lease.stop_asked(sweep / NAMES[2]):
                time.sleep(0.005)
            time.sleep(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    leased.wait()
    assert stop.main(StopArgs(sweep), Console()) == 0 and (sweep / "stop").exists()
    assert "stopped 1 run of" in capsys.readouterr().out and not lease.Observer(sweep / NAMES[2]).at_work()
    thread.join()
    assert stop.main(StopArgs(sweep), Console()) == 0
    assert capsys.readouterr().out.startswith(f"no run of {sweep} was at work\n")


def test_stop_says_who_is_still_at_work(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(sweep / NAMES[2] / "attempts" / "0001.json", {"holder": vars(Process.this())})
    assert stop.main(StopArgs(sweep, (NAMES[2][:4],), wait_seconds=0.05), Console()) == 130
    assert f"still at work after 0 s: run {NAMES[2]}" in capsys.readouterr().out
    assert (sweep / NAMES[2] / "stop").exists() and not (sweep / "stop").exists()
