"""How the launcher shares out cores, memory and GPUs among runs."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.outcomes import OTHER, RUN
from helpers.stand_in import LONG, REAL_PYTHON, Watcher, a_trainer, begun, go, journal, named, none_left_behind  # noqa: F401

from lmscale.core.errors import UserError
from lmscale.core.host import CORES_VARIABLE, MEMORY_VARIABLE
from lmscale.study.launch import slot, slots


def test_workers_are_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--workers 0: must be at least 1"):
        go(tmp_path / "runs", RUN, workers=0)


@pytest.mark.long
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


def test_runs_side_by_side_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "_gpus", lambda: [])
    one, two = (int(slots(workers)[0].environment[MEMORY_VARIABLE]) for workers in (1, 2))
    assert 0.8 < one / 2 / two < 1.2
    monkeypatch.setenv(MEMORY_VARIABLE, "1000")
    assert {slot.environment[MEMORY_VARIABLE] for slot in slots(4)} == {"250"}


@pytest.mark.long
def test_a_run_of_several_devices_takes_several_gpus(
    monkeypatch: pytest.MonkeyPatch, trainer: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    wide = replace(LONG, mesh=replace(LONG.mesh, data=2))
    watcher = Watcher()
    watcher.started = lambda slot, run: watcher.events.append((run.config.run_id, slot.name))  # type: ignore[method-assign]
    assert go(tmp_path / "runs", wide, RUN, OTHER, watcher=watcher, workers=None).finished == 3
    assert watcher.events[0] == (wide.run_id, "gpu 4,5") and "gpu 6" in {words[1] for words in watcher.events}
    with pytest.raises(UserError, match=r"is spread over 4 devices, and 3 are here"):
        go(tmp_path / "more", replace(LONG, mesh=replace(LONG.mesh, data=4)), workers=None)


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
