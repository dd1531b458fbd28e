"""Trouble of a verb is one sentence: damaged files, a full disk, little memory, an interrupt. (See test_errors.py.)"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import call

from lmscale.core.plans import read_plan


@pytest.mark.parametrize("words", [(), ("bogus",), ("run",), ("run", "x.py", "--workers", "two"), ("status", "a", "b")])
def test_a_call_that_cannot_be_parsed_is_status_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*words) == 2
    assert "help" in capsys.readouterr().err


def spoil(folder: Path, name: str, text: str) -> None:
    """Put `text` into the file `name` of the sweep's first run."""
    _, planned = read_plan(folder)
    (folder / planned[0].config.run_id / name).write_text(text)


SOURCE = "from lmscale.study.sweep import Sweep\nfrom lmscale import recipes\n"


BAD: dict[str, tuple[Callable[[Path], Any], tuple[str, ...], str]] = {
    "recipe": (
        lambda _: Path("x.py").write_text(
            f"{SOURCE}SWEEP = Sweep('x', [{{'flops': 1e9}}], lambda point: point['params'])"
        ),
        ("plan", "x.py"),
        "point(flops=1e+09): the recipe of sweep 'x' fails at x.py, line 3: KeyError: 'params'",
    ),
    "nonsense": (
        lambda _: Path("x.py").write_text(f"{SOURCE}SWEEP = Sweep('x', [{{}}], str)"),
        ("run", "x.py"),
        "returned str for point(), not a RunConfig",
    ),
    "epochs": (
        lambda _: Path("x.py").write_text(
            f"{SOURCE}SWEEP = Sweep('x', [{{'flops': 1e15, 'params': 1e5}}], recipes.cpu, tokens_per_param=(1, 1e9))"
        ),
        ("run", "x.py"),
        "epochs of the",
    ),
    "tfds": (lambda _: None, ("data", "tfds:lm1b"), "tfds:lm1b is not prepared"),
    "source": (lambda _: None, ("data", "stdlb"), "did you mean 'stdlib'?"),
    "outcome": (lambda runs: spoil(runs, "outcome.json", "{"), ("report", "runs/smoke"), "outcome.json is corrupt"),
    "parent": (lambda _: None, ("status", "runs"), "runs is no sweep's folder: give one of runs/smoke"),
    "plan": (lambda runs: (runs / "plan.json").write_text("{}"), ("fit", "runs/smoke"), "plan.json is corrupt"),
    "table": (lambda _: Path("t.csv").write_text('a,b\n"1,2'), ("fit", "t.csv"), "t.csv"),
    "format": (lambda _: None, ("table", "runs/smoke", "--output", "x.xls"), "the ending says the format"),
    "another sweep": (
        lambda runs: runs.rename("runs/isoflop_cpu"),
        ("run", "@isoflop_cpu"),
        "runs/isoflop_cpu holds the sweep 'smoke'; give this one another name",
    ),
    "partition": (lambda _: None, ("run", "@smoke", "--launcher", "slurm"), "there is no sbatch on this machine"),
    "retry": (lambda _: None, ("retry", "runs/smoke", "zzz"), "runs/smoke plans no run 'zzz'"),
    "logs": (lambda _: None, ("logs", "zzz"), "no run below runs begins with 'zzz'"),
    "jobs": (lambda _: None, ("export-jobs", "@smoke", "--format", "k8s"), "say which --image"),
    "import": (lambda _: None, ("import", "absent.csv", "--output", "o.csv"), "there is no table at absent.csv"),
    "unwritable": (lambda _: Path("f").touch(), ("run", "@smoke", "--runs", "f/runs"), "cannot write f/runs/smoke"),
    "workers": (lambda _: None, ("run", "@smoke", "--workers", "0"), "--workers 0: must be at least 1"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_nothing_half_written(
    name: str, runs: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, words, sentence = BAD[name]
    monkeypatch.delenv("LMSCALE_ALLOW_DOWNLOAD", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path.cwd() / "tfds"))
    monkeypatch.setenv("PATH", "")
    prepare(runs)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert call(*(str(root / "sweeps" / f"{word[1:]}.py") if word.startswith("@") else word for word in words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmscale: ") and error.count("\n") == 1 and sentence in error, error
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_corrupt_outcome_fails_its_own_run_only(
    runs: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(runs, "outcome.json", "{}")
    assert call("run", root / "sweeps" / "smoke.py") == 1
    assert "outcome.json is corrupt or of another version" in " ".join(capsys.readouterr().out.split())
    assert call("table", runs) == 0
    table = capsys.readouterr()
    assert table.out.count(",finished,") == 11 and table.out.count(",corrupt,") == 1
    assert table.err.startswith("note: the outcome ") and "next: lmscale " in table.err.splitlines()[-1]
    assert call("status", runs) == 0 and "1 corrupt" in capsys.readouterr().out


def test_a_full_disk_is_one_sentence(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert call("table", runs, "--output", "runs.csv") == 74
    assert "the disk that holds runs.csv is full" in capsys.readouterr().err
    assert not list(Path().glob("*runs.csv*"))


def test_train_names_the_file_with_the_unknown_field(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, planned = read_plan(runs)
    config = runs / planned[0].config.run_id / "config.json"
    value = json.loads(config.read_text())
    value["model"]["widht"] = value["model"].pop("width")
    config.write_text(json.dumps(value))
    assert call("train", config) == 2
    assert capsys.readouterr() == ("", f"lmscale: {config}.model has no field 'widht'; did you mean 'width'?\n")


def test_too_little_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def greedy(args: object, console: object) -> int:
        raise MemoryError("Unable to allocate 7.45 GiB for an array")

    monkeypatch.setattr("lmscale.commands.status.main", greedy)
    assert call("status", "anywhere") == 71
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs more memory than there is (Unable to allocate 7.45 GiB" in line


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: object, console: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("lmscale.commands.status.main", interrupted)
    assert call("status", "x") == 130
    assert capsys.readouterr().err == "lmscale: stopped\n"


@pytest.mark.long
@pytest.mark.parametrize("verb", ["table", "status"])
def test_a_reader_that_leaves_is_no_trouble(workspace: Path, verb: str) -> None:
    command = [sys.executable, "-m", "lmscale", verb, "runs/smoke"]
    process = subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "is no sweep's folder: there is no plan at"),
        ("run", "it is the folder of a run; give that of its sweep, "),
        (".", "is no sweep's folder: give one of runs/smoke"),
        ("plan.json", "is the plan of a sweep: give its folder, runs/smoke"),
        ("page.pdf", "is no table by its name"),
    ],
)
@pytest.mark.parametrize("verb", ["report", "fit"])
def test_what_is_no_sweeps_folder_is_answered_with_what_is(
    verb: str, name: str, sentence: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs.parent / "empty").mkdir()
    (runs.parent / "page.pdf").write_text("%PDF")
    places = {"run": next(runs.glob("*/config.json")).parent, "plan.json": runs / name}
    assert call(verb, places.get(name, runs.parent / name)) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
