"""What a person sees: every digit whole, on a terminal of 80 columns and in a pipe."""

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.outcomes import OTHER, RUN, outcome_of
from rich.console import Console

from lmscale.commands.console import fitted, print_indented
from lmscale.commands.progress import Bars, label
from lmscale.commands.run import exit_status_of, prepare_data, run_sweep
from lmscale.core.config import DataConfig
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.core.quantities import duration, quantity, rough_duration
from lmscale.study import sweep
from lmscale.study.launch import Slot
from lmscale.study.sweep import Sweep

ROW = {"step": 500, "flops": 0, "tokens_per_second": 123_456.0, "mfu": 0.254, "loss_nats": 2.3456}


def screen(width: int = 160, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, highlight=False, color_system=None)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_quantities_and_durations() -> None:
    assert [quantity(value) for value in (7, 950, 33_400, 1_234_567, 7.25e9, 3e12)] == [
        "7", "950", "33.4k", "1.23M", "7.25B", "3T",
    ]  # fmt: skip
    assert [duration(value) for value in (0.4, 59, 61, 3599, 3600, 7810)] == [
        "0 s", "59 s", "1 min 01 s", "59 min 59 s", "1 h 00 min", "2 h 10 min",
    ]  # fmt: skip


def test_an_estimate_of_time_is_no_finer_than_it_is_good() -> None:
    assert [rough_duration(value) for value in (0.4, 59, 64, 594, 596, 3426, 3599, 7810)] == [
        "0 s", "59 s", "1 min 00 s", "9 min 50 s", "10 min", "57 min", "1 h 00 min", "2 h 10 min",
    ]  # fmt: skip


def test_sentences_break_between_words_on_a_terminal_and_nowhere_else() -> None:
    row = "   1e+19   2.62e+08   6.36e+09    24.31      [23.3, 26.2]"
    text = f"{row}\n - outliers: the law misses one run by more than ten times the usual\nshort"
    assert fitted(text, screen(40)) == text, "a file or a pipe"
    broken = fitted(text, screen(40, terminal=True)).split("\n")
    assert broken[0] == row and broken[-1] == "short", "a table's row stays whole"
    assert broken[1:-1] == [" - outliers: the law misses one run by", "       more than ten times the usual"]
    print_indented("[bold]a sentence[/bold] that is longer than a row", console := screen(24))
    assert output(console).splitlines() == ["  a sentence that is", "  longer than a row"]


def test_a_corpus_too_small_is_refused_before_training(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(f"line {number} of few" for number in range(5000)))
    config = replace(RUN, data=DataConfig(source=str(tmp_path / "text.txt")), tokens=6_400_000)
    plan = sweep.plan(Sweep("one", [{}], lambda point: config))
    prepare_data(config.data, screen())
    with pytest.raises(UserError, match=r"D = 6,400,000 tokens would be 79\.3 epochs of the .* unique tokens"):
        run_sweep(plan, tmp_path / "runs", screen())
    assert not (tmp_path / "runs").exists()


def test_preparing_data_says_what_is_there_and_draws_only_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(f"line {number} of some" for number in range(3000)))
    config = DataConfig(source=str(tmp_path / "text.txt"))
    prepare_data(config, console := screen())
    (line,) = output(console).splitlines()
    assert re.match(r"corpus .*text\.txt.* training tokens in .* documents, .* validation tokens in", line), line
    prepare_data(DataConfig(source="synthetic:zipf-facts"), console := screen())
    assert output(console).strip() == "corpus synthetic:zipf-facts: generated as it is read, without end"


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
    text = output(console)
    assert "…" not in text
    assert f"{label(runs[1])} ━" in text and "50% 123k tokens/s MFU 0.25 loss 2.346" in text
    (whole,) = set(re.findall(r"all runs +.*?(\d+)%", text)[-1:])
    assert whole == "75", "one whole run and half of the other"
    assert re.search(r"loss 2\.346 (--:--|\d\d:\d\d) left", text)


def test_a_bar_says_that_its_run_is_being_scored() -> None:
    """And promises no end: nobody can tell how long that takes."""
    run, slot = PlannedRun(RUN), Slot("cpu 0")
    bars = Bars([run], 0, console := screen(100, terminal=True))
    with bars.shown():
        bars.started(slot, run)
        bars.advanced(slot, run, {**ROW, "flops": count(RUN).flops, "scored_on": "being scored on [x] (2 of 7)"})
    last = [line for line in re.split(r"[\r\n]+", output(console)) if "being scored" in line][-1]
    assert f"s{RUN.seed}" in last and "100% being scored on [x] (2 of 7)" in last and "left" not in last


def test_in_a_pipe_every_ended_run_is_one_line() -> None:
    runs = [PlannedRun(RUN), PlannedRun(OTHER, held_out=True)]
    bars = Bars(runs, 0, console := screen())
    drive(bars, runs)
    slot = Slot("cpu 0")
    bars.ended(slot, runs[1], outcome_of(OTHER, state="diverged", reason="loss [nan] at step 3", loss_nats=None), "")
    bars.started(slot, runs[0])
    bars.ended(slot, runs[0], None, "OSError: [/red] no")
    assert output(console).splitlines() == [
        f"{label(runs[0])}  loss 2.5000 ± 0.0100 nats/token  2 s  MFU 0.25",
        f"{label(runs[1])}  diverged: loss [nan] at step 3  held out",
        f"{label(runs[0])}  OSError: [/red] no",
    ]


def test_a_finished_sweep_is_said_to_be_there(workspace: Path, root: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "runs", tmp_path / "runs")
    plan = sweep.plan(sweep.load(root / "sweeps" / "smoke.py"))
    assert exit_status_of(run_sweep(plan, tmp_path / "runs", console := screen())) == 0
    assert f"all 12 runs of smoke are there: {tmp_path / 'runs' / 'smoke'}" in output(console).replace("\n", "")


def test_a_bar_names_the_stage_that_follows_pretraining() -> None:
    tuned = PlannedRun(replace(RUN, init_from=RUN.run_id))
    assert label(tuned) == f"fine-tune {label(PlannedRun(RUN))}"
