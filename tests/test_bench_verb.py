"""`lmscale bench --sweep` measures shapes over the whole sweep, one process in every slot at the same time."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.outcomes import RUN
from rich.console import Console

from lmscale.commands import bench
from lmscale.commands.bench import SHAPES, BenchArgs, spread_of_sizes
from lmscale.core import measured_speeds
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.host import CORES_VARIABLE
from lmscale.core.plans import PlannedRun
from lmscale.study import launch
from lmscale.study.launch import Slot

STAND_IN = f"""
import json, os, pathlib, sys
words = sys.argv[1:]
os.fstat(int(os.environ["LMSCALE_LIFELINE"]))  # of a pipe that the verb holds open
assert words[:4] == ["-m", "lmscale", "bench", "--config"] and words[5:8] == ["--steps", "7", "--json"], words
slot, width = os.environ["{CORES_VARIABLE}"], json.loads(pathlib.Path(words[4]).read_text())["model"]["width"]
with (pathlib.Path(__file__).parent / "journal").open("a") as file: print(slot, width, file=file)
if width == 24 and slot == "1": print("note", file=sys.stderr); sys.exit("lmscale: no memory")
if width == 40: sys.exit(3)
pathlib.Path(words[8]).write_text(json.dumps({{"flops_per_second": 1e9 * (1 + int(slot))}}))
"""


def of_width(width: int, seed: int = 0) -> PlannedRun:
    return PlannedRun(replace(RUN, seed=seed, model=replace(RUN.model, width=width)))


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two slots, and a program that stands in for Python: it notes slot and width and writes its figure."""
    (tmp_path / "bench.py").write_text(STAND_IN)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{tmp_path}/bench.py" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(launch, "slots", lambda: [Slot(f"cpu {core}", {CORES_VARIABLE: str(core)}) for core in (0, 1)])
    return tmp_path / "journal"


def measure(tmp_path: Path, *runs: PlannedRun) -> str:
    """What the verb prints about a plan of `runs`."""
    plan = tmp_path / "plan.json"
    write_json(plan, {"sweep": "some", "runs": [run.to_json() for run in runs]})
    console = Console(file=io.StringIO(), width=200)
    bench.main(BenchArgs(sweep=plan, steps=7), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_size_is_measured_in_every_slot_at_once(journal: Path, tmp_path: Path) -> None:
    text = measure(tmp_path, of_width(16), of_width(32), of_width(16, seed=1))
    assert sorted(journal.read_text().splitlines()) == ["0 16", "0 32", "1 16", "1 32"]
    small, large = text.splitlines()
    params = count(of_width(16).config).params
    assert small.startswith("16 x 1, ") and large.startswith("32 x 1, ") and f"{params / 1e3:.3g}k parameters" in small
    assert small.endswith("1e+09 to 2e+09 FLOP/s per run, 2 at once")


@pytest.mark.parametrize(("width", "reason"), [(24, "no memory"), (40, "the process failed")])
def test_a_shape_that_cannot_be_measured_is_named(journal: Path, tmp_path: Path, width: int, reason: str) -> None:
    with pytest.raises(UserError, match=f"the shape {width} x 1 cannot be measured: {reason}$"):
        measure(tmp_path, of_width(width))


def test_measured_sizes_span_the_sweep() -> None:
    runs = [of_width(8 * size, seed) for size in range(1, 9) for seed in range(2)]
    sizes = [run.config.model.width for run in spread_of_sizes(runs)]
    assert sizes == sorted(set(sizes)) and len(sizes) == SHAPES and (sizes[0], sizes[-1]) == (8, 64)
    assert [run.config.seed for run in spread_of_sizes(runs)] == [0] * SHAPES, "the first planned run of a size"
    assert len(spread_of_sizes(runs[:2])) == 1


@pytest.mark.long
def test_one_shape_is_printed_written_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LMSCALE_CACHE", str(tmp_path))
    monkeypatch.setattr("lmscale.lm.devices.machine.matmul_peak", lambda dtype: 1e11)
    args = BenchArgs(layers=1, width=16, heads=1, context=32, batch=2, steps=2, json=tmp_path / "speed.json")
    bench.main(args, Console())
    speed = json.loads((tmp_path / "speed.json").read_text())
    (remembered,) = measured_speeds.of_this_machine()
    assert (remembered.flops_per_second, remembered.config.model.width) == (speed["flops_per_second"], 16)
    assert f"{speed['tokens_per_second']:,.0f}" in capsys.readouterr().out
