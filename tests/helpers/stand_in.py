"""A small program that stands in for training: it does what the run's name says, and notes how it was called."""

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.outcomes import OTHER, RUN, outcome_of
from lmscale.core.config import RunConfig
from lmscale.core.exit_status import EXIT_BUSY, EXIT_INTERRUPTED, EXIT_MEMORY, EXIT_STORAGE, EXIT_USER_ERROR
from lmscale.core.host import CORES_VARIABLE
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome
from lmscale.study import launch
from lmscale.study.launch import Slot, Summary, failures, pool
from lmscale.study.launch.process import start_of

LONG = replace(RUN, tokens=2 * RUN.tokens)
REAL_PYTHON = sys.executable

TRAINER = f"""
import json, os, pathlib, shutil, signal, sys, time
from lmscale.core import signals
from lmscale.core.errors import Busy
from lmscale.study.launch import lease
assert sys.argv[1:4] == ["-m", "lmscale", "train"], sys.argv
assert sys.argv[-2] == "--wandb", sys.argv
files, here = [pathlib.Path(word) for word in sys.argv[4:-2]], pathlib.Path(__file__).parent
config, folders, values = files[0], [file.parent for file in files], [json.loads(file.read_text()) for file in files]
value, name = values[0], max(value["name"] for value in values)  # one name among them, or none
def note(*words):
    with (here / "journal").open("a") as file: print(config.parent.name, *words, file=file)
def stop(*_):
    if name != "stubborn": signal.signal(signal.SIGTERM, signal.SIG_IGN)  # both launcher and stop file may ask
    note("asked")
    if name != "stubborn": sys.exit({EXIT_INTERRUPTED})
signal.signal(signal.SIGTERM, stop)
lease.WATCH_SECONDS = 0.01
signals.end_with_launcher()
try:
    with lease.hold(folders, {{"together": len(files)}}):
        if (config.parent / "outcome.json").exists(): sys.exit(0)
        others = [folder.name for folder in folders[1:]]
        note("begun", os.getpid(), os.environ.get("{CORES_VARIABLE}"), value["optimizer"]["micro_batches"], *others)
        tries = (here / "journal").read_text().count(config.parent.name + " begun")
        print("a word for the log", flush=True)
        if name == "fail": print("lmscale: the tokens are missing"); sys.exit({EXIT_USER_ERROR})
        if name == "silent": os.truncate(1, 0); sys.exit(3)
        if name == "killed" and tries < 3: os.kill(os.getpid(), signal.SIGKILL)
        if name == "crowded" and len(files) > 2: sys.exit({EXIT_MEMORY})
        if name == "large" and value["optimizer"]["micro_batches"] < 4: sys.exit({EXIT_MEMORY})
        if name == "full" and tries < 6: print("lmscale: the disk is full"); sys.exit({EXIT_STORAGE})
        if name == "shy": sys.exit({EXIT_INTERRUPTED})
        while name in ("wait", "stubborn"): time.sleep(0.01)
        time.sleep(0.1 if name == "slow" else 0)
        for folder in folders: shutil.copy(here / (folder.name + ".json"), folder / "outcome.json")
except Busy: sys.exit({EXIT_BUSY})
"""


@pytest.fixture(autouse=True, name="trainer")
def a_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(pool, "ELSEWHERE_SECONDS", 0.05)
    monkeypatch.setattr(failures, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return place


@pytest.fixture(autouse=True, name="nothing_left_behind")
def none_left_behind(trainer: Path) -> Iterator[None]:
    """After every test: no process lives, and Ctrl-C means what it meant before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    for words in journal(trainer):
        if words[1] == "begun":
            assert start_of(int(words[2])) is None


def journal(trainer: Path) -> list[list[str]]:
    path = trainer / "journal"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


class Watcher:
    """Records the events of every run; `on_start` is called as each run begins."""

    def __init__(self, on_start: Callable[[], None] = lambda: None) -> None:
        self.on_start = on_start
        self.events: list[tuple[str, ...]] = []

    def started(self, slot: Slot, run: PlannedRun) -> None:
        self.events.append(("started", run.config.run_id))
        self.on_start()

    def advanced(self, slot: Slot, run: PlannedRun, row: dict[str, Any]) -> None:
        self.events.append(("advanced", run.config.run_id, row["step"]))

    def ended(self, slot: Slot, run: PlannedRun, outcome: Outcome | None, problem: str) -> None:
        self.events.append(("ended", run.config.run_id, problem))


def go(
    folder: Path, *configs: RunConfig, watcher: launch.Watcher | None = None, workers: int | None = 1, pack: int = 1
) -> Summary:
    runs = [PlannedRun(config) for config in configs]
    return launch.run("two", runs, folder, watcher or Watcher(), workers=workers, pack=pack)


def named(config: RunConfig, name: str) -> RunConfig:
    return replace(config, name=name)


def begun(trainer: Path) -> list[list[str]]:
    return [words for words in journal(trainer) if words[1] == "begun"]
