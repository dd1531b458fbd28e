"""The launcher starts what is missing, survives what fails and leaves no process behind.

A small program stands in for training: it does what the run's name says, and notes how it was called.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_results import OTHER, RUN, outcome_of

from lmscale import launch
from lmscale.config import RunConfig
from lmscale.errors import UserError
from lmscale.launch import Slot, Summary, last_row, slots
from lmscale.process import CORES_VARIABLE, EXIT_INTERRUPTED
from lmscale.results import Outcome, PlannedRun, read_plan

LONG = replace(RUN, tokens=2 * RUN.tokens)

TRAINER = f"""
import json, os, pathlib, shutil, signal, sys, time
assert sys.argv[1:4] == ["-m", "lmscale", "train"], sys.argv
config = pathlib.Path(sys.argv[4])
name, here = json.loads(config.read_text())["name"], pathlib.Path(__file__).parent
def note(*words):
    with (here / "journal").open("a") as file: print(config.parent.name, *words, file=file)
def stop(*_):
    note("asked")
    if name != "stubborn": sys.exit({EXIT_INTERRUPTED})
signal.signal(signal.SIGTERM, stop)
note("begun", os.getpid(), os.environ.get("{CORES_VARIABLE}"))
print("a word for the log", flush=True)
if name == "fail": print("lmscale: the disk is full"); sys.exit(2)
if name == "silent": os.truncate(1, 0); sys.exit(3)
if name == "killed": os.kill(os.getpid(), signal.SIGKILL)
while name in ("wait", "stubborn"): time.sleep(0.01)
shutil.copy(here / (config.parent.name + ".json"), config.parent / "outcome.json")
"""


@pytest.fixture(autouse=True)
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in lies; it finds there the outcomes that it hands in."""
    place = tmp_path / "trainer"
    place.mkdir()
    for config in (RUN, OTHER, LONG):
        outcome_of(config).write(place / config.run_id)
        (place / config.run_id / "outcome.json").rename(place / f"{config.run_id}.json")
    (place / "train.py").write_text(TRAINER)
    (place / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{place}/train.py" "$@"\n')
    (place / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(place / "python"))
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return place


@pytest.fixture(autouse=True)
def nothing_left_behind(trainer: Path) -> Iterator[None]:
    """After every test: no process lives, and Ctrl-C means what it meant before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    for words in journal(trainer):
        if words[1] == "begun":
            with pytest.raises(ProcessLookupError):
                os.kill(int(words[2]), 0)


def journal(trainer: Path) -> list[list[str]]:
    path = trainer / "journal"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


class Watcher:
    """Keeps what it is told; `on_start` is called as each run begins."""

    def __init__(self, on_start: Callable[[], None] = lambda: None) -> None:
        self.on_start = on_start
        self.told: list[tuple[str, ...]] = []

    def started(self, slot: Slot, run: PlannedRun) -> None:
        self.told.append(("started", run.config.run_id))
        self.on_start()

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        self.told.append(("advanced", run.config.run_id, row["step"]))

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        self.told.append(("ended", run.config.run_id, problem))


def go(folder: Path, *configs: RunConfig, watcher: Watcher | None = None, workers: int = 1) -> Summary:
    return launch.run("two", [PlannedRun(config) for config in configs], folder, watcher or Watcher(), workers=workers)


def named(config: RunConfig, name: str) -> RunConfig:
    return replace(config, name=name)


def test_only_what_is_missing_is_started_and_the_longest_first(trainer: Path, tmp_path: Path) -> None:
    runs, watcher = tmp_path / "runs", Watcher()
    outcome_of(OTHER).write(runs / OTHER.run_id)
    summary = go(runs, RUN, OTHER, LONG, watcher=watcher)
    assert summary == Summary(finished=3, diverged=0, failed={}, interrupted=False)
    assert [words[0] for words in journal(trainer)] == [LONG.run_id, RUN.run_id]
    assert watcher.told == [(what, run, *said) for run in (LONG.run_id, RUN.run_id)
                            for what, said in (("started", ()), ("ended", ("",)))]  # fmt: skip
    assert read_plan(runs) == ("two", [PlannedRun(config) for config in (RUN, OTHER, LONG)])
    assert RunConfig.from_json(json.loads((runs / RUN.run_id / "config.json").read_text())) == RUN
    assert (runs / RUN.run_id / "log.txt").read_text() == "a word for the log\n"


def test_a_second_launch_starts_nothing(trainer: Path, tmp_path: Path) -> None:
    go(tmp_path / "runs", RUN, OTHER, workers=2)
    once = journal(trainer)
    assert go(tmp_path / "runs", RUN, OTHER).finished == 2 and journal(trainer) == once


def test_a_failing_run_is_named_and_the_others_go_on(trainer: Path, tmp_path: Path) -> None:
    summary = go(tmp_path / "runs", named(LONG, "fail"), named(OTHER, "silent"), RUN)
    assert summary.failed == {LONG.run_id: "lmscale: the disk is full", OTHER.run_id: "exit status 3"}
    assert summary.finished == 1 and not summary.interrupted
    assert go(tmp_path / "runs", LONG, OTHER, RUN).finished == 3, "a failed run is started again"


def test_a_run_killed_from_outside_says_so_and_not_its_last_words(tmp_path: Path) -> None:
    summary = go(tmp_path / "runs", named(LONG, "killed"), RUN)
    assert summary.failed == {LONG.run_id: "killed by SIGKILL (out of memory?)"} and summary.finished == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_run_and_the_same_call_goes_on(trainer: Path, tmp_path: Path, number: int) -> None:
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
    assert [told[2] for told in watcher.told if told[0] == "ended"] == ["stopped", "stopped"]
    assert go(tmp_path / "runs", RUN, OTHER, LONG, workers=2).finished == 3


def wait_until(true: Callable[[], bool]) -> None:
    import time

    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_a_run_that_will_not_stop_is_killed(trainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STOP_SECONDS", 0.1)

    def interrupt() -> None:
        wait_until(lambda: bool(journal(trainer)))
        os.kill(os.getpid(), signal.SIGINT)

    assert go(tmp_path / "runs", named(RUN, "stubborn"), watcher=Watcher(interrupt)).interrupted
    assert [words[1] for words in journal(trainer)][1:] == ["asked"]


def test_trouble_of_the_launcher_stops_its_runs(trainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up as the second run is to begin."""

    def fill() -> None:
        wait_until(lambda: bool(journal(trainer)))
        monkeypatch.setattr(os, "fsync", full)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match=r"the disk that holds .*config\.json is full"):
        go(tmp_path / "runs", named(LONG, "wait"), RUN, watcher=Watcher(fill), workers=2)
    assert [words[1] for words in journal(trainer)] == ["begun", "asked"]
    assert not list((tmp_path / "runs").rglob("*.partial")) and not list((tmp_path / "runs").rglob("outcome.json"))


def test_a_folder_that_cannot_be_written_is_named(trainer: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*plan\.json: Not a directory; choose"):
        go(tmp_path / "file" / "runs", RUN)
    assert not journal(trainer)


def test_nothing_starts_beside_a_corrupt_outcome(trainer: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / OTHER.run_id).mkdir(parents=True)
    (tmp_path / "runs" / OTHER.run_id / "outcome.json").write_text("{")
    with pytest.raises(UserError, match=r"outcome\.json is corrupt"):
        go(tmp_path / "runs", RUN, OTHER)
    assert not journal(trainer)


def test_workers_are_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--workers 0: must be at least 1"):
        go(tmp_path / "runs", RUN, workers=0)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_slots_share_out_the_cores(monkeypatch: pytest.MonkeyPatch, trainer: Path, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 4, 6})

    def cores(workers: int | None) -> list[str]:
        return [slot.environment[CORES_VARIABLE] for slot in slots(workers)]

    assert cores(None) == ["1", "3", "4", "6"]
    assert cores(2) == ["1,4", "3,6"]
    assert cores(1) == ["1,3,4,6"]
    assert cores(6) == ["1", "3", "4", "6", "1", "3"]
    assert {slot.environment["JAX_PLATFORMS"] for slot in slots()} == {"cpu"}
    go(tmp_path / "runs", RUN, OTHER, workers=2)
    assert sorted(words[3] for words in journal(trainer)) == ["1,4", "3,6"]


def test_slots_are_gpus_where_there_are_some(monkeypatch: pytest.MonkeyPatch, trainer: Path) -> None:
    def gpus(workers: int | None = None) -> list[str]:
        return [slot.environment.get("CUDA_VISIBLE_DEVICES", "no") for slot in slots(workers)]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert gpus() == ["0", "2"] and gpus(1) == ["0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert set(gpus()) == {"no"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (trainer / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    (trainer / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{trainer}{os.pathsep}{os.environ['PATH']}")
    assert set(gpus()) == {"no"}, "JAX_PLATFORMS=cpu keeps off the GPUs"
    monkeypatch.delenv("JAX_PLATFORMS")
    assert gpus() == ["0", "1", "2"]


def test_the_watcher_hears_the_newest_row_once(tmp_path: Path) -> None:
    row = {"step": 7}

    def write() -> None:
        (tmp_path / "runs" / RUN.run_id / "metrics.jsonl").write_text('{"step": 3}\n' + json.dumps(row) + "\n")

    watcher = Watcher(write)
    go(tmp_path / "runs", RUN, watcher=watcher)
    assert watcher.told[1] == ("advanced", RUN.run_id, 7) and len(watcher.told) == 3


def test_a_line_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    assert last_row(tmp_path) is None
    path = tmp_path / "metrics.jsonl"
    for text, step in (("", None), ('{"st', None), ('{"step": 1}\n', 1), ('{"step": 1}\n{"step": 2', 1)):
        path.write_text(text)
        assert (last_row(tmp_path) or {}).get("step") == step
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(5000)))
    assert last_row(tmp_path) == {"step": 4999}
