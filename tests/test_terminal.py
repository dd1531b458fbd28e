"""What a person sees: every digit whole, on a terminal of 80 columns and in a pipe."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from test_results import OTHER, RUN, outcome_of

from lmscale import sweep, terminal
from lmscale.config import DataConfig
from lmscale.counting import count
from lmscale.errors import UserError
from lmscale.launch import Slot
from lmscale.progress import Bars, label, quantity
from lmscale.results import PlannedRun, collect, write_plan
from lmscale.sweep import Device, Plan, Sweep

ROW = {"step": 500, "flops": 0, "tokens_per_second": 123_456.0, "mfu": 0.254, "loss_nats": 2.3456}


def screen(width: int = 160, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False, color_system=None)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_quantities_and_durations() -> None:
    assert [quantity(value) for value in (7, 950, 33_400, 1_234_567, 7.25e9, 3e12)] == [
        "7", "950", "33.4k", "1.23M", "7.25B", "3T",
    ]  # fmt: skip
    assert [terminal.duration(value) for value in (0.4, 59, 61, 3599, 3600, 7810)] == [
        "0 s", "59 s", "1 min 01 s", "59 min 59 s", "1 h 00 min", "2 h 10 min",
    ]  # fmt: skip


def planned(**changes: object) -> Plan:
    points = [{"seed": 0, "flops": 1e9}, {"seed": 1, "flops": 3e9}]
    made = Sweep("two", points, lambda p: replace(RUN, seed=p["seed"]), lambda p: p["flops"] > 1e9, **changes)  # type: ignore[arg-type]
    return sweep.plan(made)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_plan_keeps_every_digit_on_any_screen(tmp_path: Path, width: int) -> None:
    console = screen(width)
    terminal.show_plan(planned(question="Which?"), tmp_path, console)
    text, counts = said(console), count(RUN)
    assert "two: Which?" in text and "…" not in text
    (first,) = (line for line in text.splitlines() if RUN.run_id in line)
    assert first.split()[:7] == [
        RUN.run_id, "16", "x", "1", quantity(counts.params), "64k", f"{counts.tokens_per_param:.3g}",
    ]  # fmt: skip
    assert f"{counts.flops:.2e}" in first and "1,000" in first and "0.01" in first and "MiB" in first
    assert "held out" not in first and "held out" in next(line for line in text.splitlines() if OTHER.run_id in line)
    assert "2 runs, 1 of them held out" in text and not list(tmp_path.iterdir())


def test_a_plan_says_where_its_times_come_from(tmp_path: Path) -> None:
    console = screen(400)
    terminal.show_plan(planned(), tmp_path, console)
    terminal.show_plan(planned(device=Device("one machine", 1e6, runs_at_once=2)), tmp_path, console)
    outcome_of(RUN, seconds=1000.0).write(tmp_path / RUN.run_id)
    terminal.show_plan(planned(), tmp_path, console)
    sources = re.findall(r"about ([^(]*) \((.*)\)\.", said(console))
    assert sources[0][1].startswith("assuming 30% of this machine's float32 matmul peak")
    assert sources[1][1] == "at 1e+06 FLOP/s on one machine"
    assert sources[2][1].endswith("the median of the 1 finished here")
    seconds = terminal.STARTUP_SECONDS + (count(RUN).flops + count(RUN).flops / 3 * 131_072 * 8 / RUN.tokens) / 1e6
    assert sources[1][0] == terminal.duration(seconds)  # two runs, two at once


def test_a_plan_refuses_a_corpus_too_small_once_it_is_prepared(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(f"line {number} of few" for number in range(5000)))
    config = replace(RUN, data=DataConfig(source=str(tmp_path / "text.txt")), tokens=6_400_000)
    plan = sweep.plan(Sweep("one", [{}], lambda point: config))
    terminal.show_plan(plan, tmp_path, console := screen())
    assert "epochs are unknown until the corpus is prepared" in said(console)
    terminal.prepare_data(config.data, screen())
    for verb in (terminal.show_plan, terminal.run_sweep):
        with pytest.raises(UserError, match=r"D = 6,400,000 tokens would be 79\.3 epochs of the .* unique tokens"):
            verb(plan, tmp_path / "runs", screen())
    assert not (tmp_path / "runs").exists()


def test_preparing_data_says_what_is_there_and_draws_only_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(f"line {number} of some" for number in range(3000)))
    config = DataConfig(source=str(tmp_path / "text.txt"))
    terminal.prepare_data(config, console := screen())
    (line,) = said(console).splitlines()
    assert re.match(r"corpus .*text\.txt.* training tokens in .* documents, .* validation tokens in", line), line
    terminal.prepare_data(DataConfig(source="synthetic:zipf-facts"), console := screen())
    assert said(console).strip() == "corpus synthetic:zipf-facts: made as it is read, without end"


def drive(bars: Bars, runs: list[PlannedRun]) -> None:
    """Two runs: the first finishes, the second is under way."""
    slot = Slot("cpu 0")
    with bars.shown():
        for run in runs:
            bars.started(slot, run)
            bars.advanced(slot, run, {**ROW, "flops": count(run.config).flops / 2})
        bars.ended(slot, runs[0], outcome_of(runs[0].config), "")


def test_bars_fit_into_eighty_columns() -> None:
    runs = [PlannedRun(RUN), PlannedRun(OTHER, held_out=True)]
    drive(Bars(runs, 0, console := screen(80, terminal=True)), runs)
    text = said(console)
    assert "…" not in text
    assert f"{label(runs[1])} ━" in text and "50% 123k tokens/s MFU 0.25 loss 2.346" in text
    (whole,) = set(re.findall(r"all runs +.*?(\d+)%", text)[-1:])
    assert whole == "75", "one whole run and half of the other"
    assert re.search(r"loss 2\.346 (--:--|\d\d:\d\d) left", text)


def test_in_a_pipe_every_ended_run_is_one_line() -> None:
    runs = [PlannedRun(RUN), PlannedRun(OTHER, held_out=True)]
    bars = Bars(runs, 0, console := screen())
    drive(bars, runs)
    slot = Slot("cpu 0")
    bars.ended(slot, runs[1], outcome_of(OTHER, state="diverged", reason="loss [nan] at step 3", loss_nats=None), "")
    bars.started(slot, runs[0])
    bars.ended(slot, runs[0], None, "OSError: [/red] no")
    assert said(console).splitlines() == [
        f"{label(runs[0])}  loss 2.5000 ± 0.0100 nats/token  2 s  MFU 0.25",
        f"{label(runs[1])}  diverged: loss [nan] at step 3  held out",
        f"{label(runs[0])}  OSError: [/red] no",
    ]


def test_status_tells_finished_begun_missing_and_diverged_apart(tmp_path: Path) -> None:
    configs = [replace(RUN, seed=seed) for seed in range(4)]
    write_plan(tmp_path, "four", [PlannedRun(config, held_out=config.seed == 2) for config in configs])
    outcome_of(configs[0]).write(tmp_path / configs[0].run_id)
    outcome_of(configs[1], state="diverged", reason="the loss was [nan]", loss_nats=None).write(
        tmp_path / configs[1].run_id
    )
    (tmp_path / configs[2].run_id).mkdir()
    (tmp_path / configs[2].run_id / "config.json").write_text("{}")
    row = {**ROW, "flops": count(RUN).flops // 4}
    (tmp_path / configs[2].run_id / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    terminal.status(tmp_path, console := screen(40))
    text = said(console)
    lines = [next(line for line in text.splitlines() if config.run_id in line) for config in configs]
    assert [line.split()[3:5] for line in lines] == [
        ["finished", "100%"], ["diverged", "100%"], ["begun", "25%"], ["missing", "0%"],
    ]  # fmt: skip
    assert "2.5000" in lines[0] and "[nan]" in lines[1] and "2.3456" in lines[2] and "held out" in lines[2]
    assert "1 finished, 1 diverged, 1 begun, 1 missing" in text.replace(" \n", " ") and "training loss" in re.sub(
        r"\s+", " ", text
    )


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_table_is_the_same_in_every_format(tmp_path: Path, ending: str) -> None:
    write_plan(tmp_path, "two", [PlannedRun(RUN, flops_budget=1e9), PlannedRun(OTHER)])
    outcome_of(RUN).write(tmp_path / RUN.run_id)
    path = tmp_path / f"runs.{ending}"
    terminal.table_of(tmp_path, path)
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda path: pd.read_json(path, lines=True)}
    columns = ["run", "state", "params", "tokens", "flops", "loss_nats", "flops_budget", "held_out"]
    table = read[ending](path)[columns]
    pd.testing.assert_frame_equal(table, collect(tmp_path)[columns], check_dtype=False)


def test_a_table_of_no_known_format_is_refused(tmp_path: Path) -> None:
    write_plan(tmp_path, "one", [PlannedRun(RUN)])
    with pytest.raises(UserError, match=r"x\.xls: the ending says the format, one of \.csv, \.jsonl, \.parquet"):
        terminal.table_of(tmp_path, tmp_path / "x.xls")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json"]


def test_a_finished_sweep_is_said_to_be_there(smoke: Path, root: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke / "runs", tmp_path / "runs")
    plan = sweep.plan(sweep.load(root / "sweeps" / "smoke.py"))
    assert terminal.run_sweep(plan, tmp_path / "runs", console := screen()) == 0
    assert f"all 12 runs of smoke are there: {tmp_path / 'runs' / 'smoke'}" in said(console).replace("\n", "")
