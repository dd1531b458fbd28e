"""Several processes train what one trains, end together, and go on in another number."""

import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny_runs import assert_close, ends, rows, run, saved_steps, start, start_several, wait_for, write_corpus

from lmscale.core.config import ExamConfig, MeshConfig, ModelConfig
from lmscale.core.errors import MemoryShortage, UserError
from lmscale.core.exit_status import EXIT_INTERRUPTED, EXIT_MEMORY, EXIT_USER_ERROR
from lmscale.core.run_folder import CHECKPOINT_FOLDER
from lmscale.lm.devices import distributed
from lmscale.lm.train.loop import train

WIDE = ModelConfig(width=16, layers=2, heads=4, context=16, residual_dropout=0.1)
"""What eight devices can share; dropout shows whether they draw the same numbers."""
SLOW = ModelConfig(width=96, layers=2, heads=2, context=128)
STEPS = 300
"""Enough for four lives of some seconds; at a low rate two ways of rounding then stay together."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def alone(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps of the wide model in this process, on one device."""
    folder = tmp_path_factory.mktemp("alone")
    train(run(corpus, 20, model=WIDE), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "mesh"),
    [(2, 4, MeshConfig(data=2, fsdp=2, tensor=2)), (4, 2, MeshConfig(fsdp=4, sequence=2)), (4, 1, MeshConfig(data=4))],
    ids=["2 x 4 devices", "4 x 2 devices", "4 x 1 device"],
)
def test_several_processes_learn_what_one_learns(
    corpus: str, alone: Path, tmp_path: Path, processes: int, devices: int, mesh: MeshConfig
) -> None:
    config = run(corpus, 20, model=WIDE, mesh=mesh)
    for status, output, complaints in ends(start_several(config, tmp_path, processes, devices)):
        assert (status, complaints) == (0, "")
        assert "finished: validation loss" in output  # Gloo may have said something before
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 21))
    assert_close(tmp_path, alone)


@pytest.mark.slow
def test_experts_of_several_processes_learn_what_those_of_one_learn(corpus: str, tmp_path: Path) -> None:
    """Tokens go to experts in another process and back; validation and checkpoints, too, are as on one device."""
    config = run(corpus, 20, model=replace(WIDE, residual_dropout=0.0, experts=8, experts_per_token=2))
    train(config, tmp_path / "one")
    cut = replace(config, mesh=MeshConfig(data=2, expert=4))
    for status, output, complaints in ends(start_several(cut, tmp_path / "several", 4, 2)):
        assert (status, complaints) == (0, "")
        assert "finished: validation loss" in output
    assert_close(tmp_path / "several", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 4)], ids=["8 devices", "2 x 4 devices"])
def test_tasks_are_scored_as_on_one_device(corpus: str, tmp_path: Path, processes: int, devices: int) -> None:
    folders = {name: tmp_path / name for name in ("one", "several")}
    items = [
        {"question": f"the {word}", "choices": ["fox", "lazy dog", "box é"], "gold": number % 3, "answers": ["fox"]}
        for number, word in enumerate(("quick", "brown", "lazy", "seven", "jumps"))
    ]
    task = {"name": "words", "metrics": ["accuracy", "gold_probability", "exact_match"], "items": items}
    (tmp_path / "words.json").write_text(json.dumps({**task, "longest_answer": 6}), "utf-8")
    exam = ExamConfig(tasks=(f"task:{tmp_path / 'words.json'}",), shots=(0, 1), at=(0.5, 1.0))
    config = run(corpus, 20, model=WIDE, exam=exam)
    train(config, folders["one"])
    cut = replace(config, mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    for status, _, complaints in ends(start_several(cut, folders["several"], processes, devices)):
        assert (status, complaints) == (0, "")
    single, several = (
        [json.loads(line) for line in (folder / "scores.jsonl").read_text("utf-8").splitlines()]
        for folder in folders.values()
    )
    assert [(row["step"], row["metric"], row["shots"]) for row in single] == [
        (step, metric, shots) for step in (10, 20) for shots in (0, 1) for metric in task["metrics"]
    ]
    assert [row["score"] for row in single] == pytest.approx([row["score"] for row in several], abs=1e-4)


@pytest.mark.slow
def test_stopped_damaged_killed_and_continued_in_another_number(corpus: str, tmp_path: Path) -> None:
    """One process, stopped; two, one of them stopped; two after the newest checkpoint is damaged, one killed; one."""
    single, double = (
        run(corpus, STEPS, model=SLOW, peak_lr=0.001, mesh=MeshConfig(data=data), checkpoint_seconds=0.2)
        for data in (1, 2)
    )
    folder, expected = tmp_path / "several", tmp_path / "expected"

    process = start(single, folder)
    wait_for(lambda: bool(saved_steps(folder)), process)
    process.terminate()
    ((status, output, complaints),) = ends([process])
    assert (status, complaints) == (75, "")
    last = saved_steps(folder)[-1]
    assert f"stopped after step {last:,} of {STEPS:,}; a checkpoint is saved" in output

    several = start_several(double, folder, 2)
    wait_for(lambda: saved_steps(folder)[0] > last, several[1])
    several[1].terminate()
    both = ends(several)
    assert [(status, complaints) for status, _, complaints in both] == [(75, ""), (75, "")]
    assert f"going on from step {last:,} of" in both[0][1]
    before, last = saved_steps(folder)
    assert all(f"stopped after step {last:,} of {STEPS:,}; a checkpoint is saved" in output for _, output, _ in both)

    for path in (folder / CHECKPOINT_FOLDER / str(last)).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    several = start_several(double, folder, 2)
    wait_for(lambda: saved_steps(folder)[0] > last, several[0])
    several[1].kill()
    (status, output, complaints), killed = ends(several)
    assert killed[0] == -signal.SIGKILL
    assert (status, complaints.count("\n")) == (75, 1), complaints
    assert "another process of this run is gone" in complaints and "they go on" in complaints
    assert f"the checkpoint of step {last} in" in output and f"going on from step {before:,} of" in output

    last = saved_steps(folder)[-1]
    ((status, output, complaints),) = ends([start(single, folder)])
    assert (status, complaints) == (0, "")
    assert f"going on from step {last:,} of" in output
    train(single, expected)
    assert_close(folder, expected)


@pytest.mark.long
def test_an_abort_ends_with_a_sentence_and_asks_to_be_started_again() -> None:
    program = "import os\nfrom lmscale.lm.devices import distributed\ndistributed._exit_at_abort('gone')\nos.abort()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (EXIT_INTERRUPTED, "lmscale: gone\n")


class Orderly(Exception):
    """What all processes raise together."""


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (UserError("no such thing; take another"), EXIT_USER_ERROR, "lmscale: no such thing; take another"),
        (MemoryShortage("too large"), EXIT_MEMORY, "lmscale: too large"),
        (
            OSError("Connection reset by peer"),
            EXIT_INTERRUPTED,
            "lmscale: another process of this run is gone",
        ),
        (ZeroDivisionError("a defect"), 1, "Traceback"),
    ],
    ids=["user", "memory", "connection", "defect"],
)
def test_an_error_in_one_of_several_processes_ends_it_at_once(
    error: Exception, status: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)), distributed.abort_on_error(Orderly):  # alone: the caller's to handle
        raise error
    waited: list[float] = []
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.time, "sleep", waited.append)
    monkeypatch.setattr(distributed.os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as end, distributed.abort_on_error(Orderly):
        raise error
    assert end.value.code == status and capsys.readouterr().err.startswith(sentence)
    assert waited == [distributed.LEAVE_SECONDS]  # the first process is the one that the others are connected to
    with pytest.raises(Orderly), distributed.abort_on_error(Orderly):
        raise Orderly


@pytest.mark.slow
def test_the_first_process_does_not_wait_for_ever(corpus: str, tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--coordinator", address, "--processes", 2, "--process", 0, "--wait-seconds", 2
    ((status, output, complaints),) = ends([start(run(corpus, 3, mesh=MeshConfig(data=2)), tmp_path, *flags)])
    assert (status, output) == (75, "")
    sentence = "not all processes came within 2 s, so process 0 of 2 ends; start all of them again"
    assert complaints.splitlines()[-1] == f"lmscale: {sentence}"
