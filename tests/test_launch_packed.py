"""Runs that are alike share a program and a slot; a pack that fails is tried again in smaller ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import RUN, outcome_of
from helpers.stand_in import LONG, Watcher, a_trainer, begun, go, journal, named, none_left_behind  # noqa: F401

from lmscale.core.config import MeshConfig, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED, EXIT_MEMORY
from lmscale.core.run_folder import ATTEMPTS_FOLDER
from lmscale.study.launch import failures


@pytest.fixture
def alike(trainer: Path) -> list[RunConfig]:
    """Four runs of one shape, whose outcomes the stand-in has."""
    rates = [replace(RUN.optimizer, peak_lr=0.01 / 2**seed) for seed in range(4)]
    configs = [replace(RUN, name="", seed=seed, optimizer=optimizer) for seed, optimizer in enumerate(rates)]
    for config in configs:
        outcome_of(config).write(trainer / config.run_id)
        (trainer / config.run_id / "outcome.json").rename(trainer / f"{config.run_id}.json")
    return configs


def programs(trainer: Path) -> list[list[str]]:
    """The runs of every program that was started."""
    return [[words[0], *words[5:]] for words in begun(trainer)]


def ids(configs: list[RunConfig]) -> list[str]:
    return [config.run_id for config in configs]


@pytest.mark.long
def test_runs_of_one_shape_share_a_program(trainer: Path, tmp_path: Path, alike: list[RunConfig]) -> None:
    """Another length is another program; each has its folder, and a log that says where its words are."""
    runs, watcher = tmp_path / "runs", Watcher()
    assert go(runs, *alike, LONG, pack=3, watcher=watcher).finished == 5
    assert programs(trainer) == [[LONG.run_id], ids(alike[:3]), ids(alike[3:])]
    assert [words[:2] for words in watcher.events].count(("ended", alike[1].run_id)) == 1
    logs = [(runs / run_id / "log.txt").read_text() for run_id in ids(alike[:2])]
    assert logs == [
        "a word for the log\n",
        f"in one program with run {alike[0].run_id}: see its log\n",
    ]


@pytest.mark.long
def test_every_slot_gets_a_share(trainer: Path, tmp_path: Path, alike: list[RunConfig]) -> None:
    assert go(tmp_path / "runs", *alike, workers=2, pack=4).finished == 4
    assert sorted(programs(trainer)) == sorted([ids(alike[:2]), ids(alike[2:])])


@pytest.mark.long
def test_a_run_of_several_devices_stays_alone(trainer: Path, tmp_path: Path, alike: list[RunConfig]) -> None:
    spread = [replace(config, mesh=MeshConfig(data=2)) for config in alike[:2]]
    assert go(tmp_path / "runs", *spread, pack=2).finished == 2
    assert programs(trainer) == [[config.run_id] for config in spread]


@pytest.mark.long
def test_a_pack_too_large_for_the_memory_is_halved(trainer: Path, tmp_path: Path, alike: list[RunConfig]) -> None:
    """None of its runs is divided into more micro-batches for that."""
    watcher = Watcher()
    assert go(tmp_path / "runs", *(named(one, "crowded") for one in alike), pack=4, watcher=watcher).finished == 4
    assert programs(trainer) == [ids(alike), ids(alike[:2]), ids(alike[2:])]
    assert {words[4] for words in begun(trainer)} == {"1"}
    problems = {words[2] for words in watcher.events if words[0] == "ended"} - {""}
    assert problems == {"a word for the log; once more with 2 in one program instead of 4"}


@pytest.mark.long
@pytest.mark.parametrize("fault", ["fail", "silent", "large"])
def test_the_failing_run_of_a_pack_is_found_and_the_others_finish(
    trainer: Path, tmp_path: Path, alike: list[RunConfig], fault: str
) -> None:
    summary = go(tmp_path / "runs", alike[0], named(alike[1], fault), *alike[2:], pack=4)
    assert summary.finished == (4 if fault == "large" else 3)
    assert set(summary.failed) == (set() if fault == "large" else {alike[1].run_id})
    assert programs(trainer)[:3] == [ids(alike), ids(alike[:2]), ids(alike[2:])]
    assert len(programs(trainer)) == {"fail": 5, "silent": 8, "large": 7}[fault]


def test_the_next_launch_remembers_how_packs_ended(tmp_path: Path) -> None:
    """Their endings count against no run, except a stop, which is no failure."""
    ends = [(8, EXIT_MEMORY), (4, 1), (4, EXIT_INTERRUPTED), (1, 3)]
    (tmp_path / ATTEMPTS_FOLDER).mkdir()
    for number, (together, status) in enumerate(ends, 1):
        value = {"together": together, "end": {"status": status, "reason": ""}}
        (tmp_path / ATTEMPTS_FOLDER / f"{number:04}.json").write_text(json.dumps(value))
    tally = failures.tally(tmp_path)
    assert tally.max_pack_size == 2 and dict(tally.counts) == {"stopped": 1, "crash": 1}


@pytest.mark.long
def test_one_run_of_a_pack_is_stopped_and_the_others_continue(
    trainer: Path, tmp_path: Path, alike: list[RunConfig]
) -> None:
    class Stopper(Watcher):
        def started(self, *words: Any) -> None:
            super().started(*words)
            (tmp_path / "runs" / alike[1].run_id / "stop").touch()

    patient = named(alike[1], "wait")
    summary = go(tmp_path / "runs", alike[0], patient, pack=2, watcher=Stopper())
    assert summary.failed == {patient.run_id: "stopped by `lmscale stop`"} and summary.finished == 1
    assert [words[1] for words in journal(trainer)].count("asked") == 1
    assert programs(trainer) == [ids(alike[:2]), ids(alike[:1])]


def test_a_pack_below_1_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--pack 0: must be at least 1"):
        go(tmp_path / "runs", RUN, pack=0)
