"""A sweep's folder says of every run how far it is, and why it is not further."""

import io
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.outcomes import RUN, outcome_of
from rich.console import Console

from lmscale.commands import status
from lmscale.commands.sparkline import sparkline
from lmscale.commands.status import StatusArgs
from lmscale.core.config import DataConfig, Reinforcement
from lmscale.core.counting import count
from lmscale.core.errors import UserError
from lmscale.core.files import write_json
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.study.launch import lease
from lmscale.study.launch.process import Process
from lmscale.study.launch.states import RunState, read_states

CONFIGS = [replace(RUN, seed=seed) for seed in range(8)]
ROW = {"step": 500, "tokens": RUN.tokens // 4, "flops": count(RUN).flops // 4, "tokens_per_second": 1000.0, "mfu": 0.25,
       "loss_nats": 2.3456}  # fmt: skip
LEFT = RUN.tokens * 3 / 4 / 1000


def attempt(place: Path, end: dict[str, Any] | None = None, number: int = 1, **holder: Any) -> None:
    value = {"holder": {**asdict(Process.this()), **holder}, "micro_batches": number, **({"end": end} if end else {})}
    write_json(place / "attempts" / f"{number:04}.json", value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight runs: finished, diverged, at work, stopped, killed, failed, far away and silent, missing."""
    write_plan(tmp_path, "eight", [PlannedRun(config, held_out=config.seed == 7) for config in CONFIGS])
    places = [tmp_path / config.run_id for config in CONFIGS]
    outcome_of(CONFIGS[0]).write(places[0])
    outcome_of(CONFIGS[1], state="diverged", reason="the loss was [nan]", loss_nats=None).write(places[1])
    for place in places[2:7]:
        place.mkdir()
        (place / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")
    attempt(places[2], number=2)
    attempt(places[3], {"status": 75, "reason": "stopped"})
    attempt(places[4], started="1")
    attempt(places[5], {"status": 1, "reason": "exit status 3"})
    write_json(places[5] / "failed.json", {"reason": "exit status 3", "log": []})
    attempt(places[6], machine="another", host="far")
    return tmp_path


def status_text(folder: Path, **options: bool) -> str:
    console = Console(file=io.StringIO(), width=40, color_system=None)
    status.main(StatusArgs(folder, **options), console)
    assert isinstance(console.file, io.StringIO)
    table, _, sentences = console.file.getvalue().partition("finished,")
    return table + re.sub(r"\s+", " ", sentences)  # those are wrapped


def test_every_state_is_told_with_its_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, runs = read_states(folder)
    assert name == "eight" and [run.run_id for run in runs] == [config.run_id for config in CONFIGS]
    assert [run.state for run in runs] == [
        "finished", "diverged", "running", "stopped", "stopped", "failed", "running", "missing",
    ]  # fmt: skip
    assert [run.remark for run in runs] == [
        "", "the loss was [nan]", "attempt 2, 2 micro-batches", "", "ended without a word", "exit status 3",
        f"by process {Process.this().pid} on far", "held out",
    ]  # fmt: skip
    assert [run.seconds_left for run in runs] == [None, None, LEFT, None, None, None, LEFT, None]
    assert [run.loss_nats for run in runs][:3] == [2.5, None, 2.3456]
    monkeypatch.setattr(lease, "STALE_SECONDS", -1.0)
    assert read_states(folder)[1][6].state == "silent"


def test_what_is_printed_is_whole_on_any_screen(folder: Path) -> None:
    text = status_text(folder)
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert "[nan]" in lines[CONFIGS[1].run_id] and "…" not in text
    assert lines[CONFIGS[2].run_id].split()[4:9] == ["running", "25%", "2.3456", "0.25", "48"]
    assert " 1 diverged, 2 running, 2 stopped, 1 failed, 1 missing" in text
    flops = count(RUN).flops
    assert f"spent {3.25 * flops:.3g} of {8 * flops:.3g} training FLOPs planned (41%)" in text
    assert "finished runs took 4 s" in text and "training loss" in text and "lmscale retry" in text


def test_of_many_runs_those_in_need_are_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "SHOWN", 4)
    text, everything = status_text(folder), status_text(folder, all=True)
    assert all((config.run_id in text) == (config.seed in (1, 2, 3, 4)) for config in CONFIGS)
    assert "... 4 more: --all shows every run" in text
    assert all(config.run_id in everything for config in CONFIGS)


def test_watching_ends_with_the_last_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plan(tmp_path, "one", [PlannedRun(RUN)])
    monkeypatch.setattr(status.time, "sleep", lambda seconds: outcome_of(RUN).write(tmp_path / RUN.run_id))
    assert "1 finished" in status_text(tmp_path, watch=True)


def test_a_corrupt_outcome_harms_no_other_line(folder: Path) -> None:
    (folder / CONFIGS[0].run_id / "outcome.json").write_text("{")
    _, runs = read_states(folder)
    assert (runs[0].state, runs[1].state) == ("corrupt", "diverged") and "delete it" in runs[0].remark


def test_a_reason_of_several_lines_stays_in_its_row(folder: Path) -> None:
    outcome_of(CONFIGS[1], state="failed", reason="the disk\n9 finished", loss_nats=None).write(
        folder / CONFIGS[1].run_id
    )
    console = Console(file=io.StringIO(), width=200, color_system=None)
    status.main(StatusArgs(folder), console)
    assert isinstance(console.file, io.StringIO)
    assert "the disk\\x0a9 finished" in console.file.getvalue()


def test_a_plan_without_counts_is_counted(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    for line in plan["runs"]:
        del line["params"], line["flops"], line["tokens"]
    (folder / "plan.json").write_text(json.dumps(plan))
    assert read_states(folder)[1][0].params == count(RUN).params
    plan["runs"][0].pop("config")
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="config"):
        read_states(folder)


@pytest.mark.parametrize("indent", [1, 2, None])
def test_a_plan_is_read_however_it_is_laid_out(folder: Path, indent: int | None) -> None:
    """As `write_plan` lays it out, a configuration is compared as text; seeds and states are the same otherwise."""
    for config in CONFIGS[:2]:
        write_json(folder / config.run_id / "config.json", config.to_json())
    before = read_states(folder)[1]
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan, indent=indent))
    assert read_states(folder)[1] == before
    assert [run.seed for run in before] == list(range(8)) and [run.state for run in before][:2] == [
        "finished",
        "diverged",
    ]
    plan["runs"][1]["config"]["model"]["width"] = True
    (folder / "plan.json").write_text(json.dumps(plan, indent=indent))
    finished, other, *_ = read_states(folder)[1]
    assert finished == before[0] and (other.state, other.seed) == ("corrupt", 1) and "ModelConfig.width" in other.remark


def test_a_configuration_of_another_run_is_noticed_whatever_its_text(folder: Path) -> None:
    path = folder / CONFIGS[0].run_id / "config.json"
    write_json(path, CONFIGS[0].to_json())
    path.write_text(json.dumps(json.loads(path.read_text())))  # the same values as another text
    assert read_states(folder)[1][0].state == "finished"
    write_json(path, CONFIGS[1].to_json())
    state = read_states(folder)[1][0]
    assert state.state == "corrupt" and f"is that of run {CONFIGS[1].run_id}" in state.remark


def test_what_an_objective_reports_is_shown_while_a_run_trains_and_after(folder: Path) -> None:
    running, finished = CONFIGS[2], CONFIGS[0]
    (folder / running.run_id / "metrics.jsonl").write_text(json.dumps({**ROW, "accuracy": 0.41234}) + "\n")
    outcome_of(finished, reported={"accuracy": 0.75, "margin": None}).write(folder / finished.run_id)
    assert [run.reported for run in read_states(folder)[1]][:3] == [{"accuracy": 0.75}, {}, {"accuracy": 0.41234}]
    lines = status_text(folder).splitlines()
    assert "accuracy 0.412" in next(line for line in lines if running.run_id in line)
    assert "accuracy 0.75" in next(line for line in lines if finished.run_id in line)


def test_a_run_that_is_being_scored_says_so_and_promises_no_end(folder: Path) -> None:
    """100 % done and 00:00 left for a minute looked like a run that hangs."""
    running, stopped = (folder / CONFIGS[number].run_id for number in (2, 3))
    for place in (running, stopped):  # the process of the second was killed meanwhile
        write_json(place / "scoring.json", {"task": "copy", "number": 2, "of": 7})
    _, runs = read_states(folder)
    assert (runs[2].state, runs[2].seconds_left, runs[3].state) == ("scoring", None, "stopped")
    assert runs[2].remark == "being scored on copy (2 of 7), attempt 2, 2 micro-batches"
    assert "1 scoring" in status_text(folder)
    (running / "scoring.json").write_text("[" * 100_000)
    assert read_states(folder)[1][2].state == "running"


def test_rate_and_seed_are_shown(folder: Path) -> None:
    header, *lines = status_text(folder).splitlines()[1:10]
    assert header.split()[-3:] == ["left", "tokens/s", "seed"]
    assert lines[2].split()[-6:-4] == ["1k", "2"]
    assert lines[7].split()[-3:] == ["7", "held", "out"]


def test_stages_are_told_apart(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    life = tmp_path_factory.mktemp("life")
    write_plan(life, "life", [PlannedRun(RUN), PlannedRun(replace(RUN, init_from=RUN.run_id))])
    header, first, second = (line.split() for line in status_text(life).splitlines()[1:4])
    assert header[:2] == ["run", "stage"] and (first[1], second[1]) == ("pretrain", "fine-tune")
    assert second.count("fine-tune") == 1
    assert "stage" not in status_text(folder)


def test_what_reinforcement_minimises_is_not_called_nats(tmp_path: Path) -> None:
    language = 'synthetic:tasks(only="copy", letters=2, length=2)'
    policy = replace(
        RUN,
        model=replace(RUN.model, vocab=256, context=32),
        data=DataConfig(source=language),
        tokens=64 * RUN.optimizer.batch_sequences * 32,
        objective=Reinforcement(group=2, answer_tokens=3, kl_weight=0.0),
        init_from=RUN.run_id,
    )
    write_plan(tmp_path, "policy", [PlannedRun(policy)])
    place = tmp_path / policy.run_id
    place.mkdir()
    (place / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")
    sentence = "Of a run of reinforcement at work it is what a step minimises, and no loss of text."
    assert sentence not in re.sub(r"\s+", " ", status_text(tmp_path))
    attempt(place)
    assert sentence in re.sub(r"\s+", " ", status_text(tmp_path))


def test_the_states_are_written_as_json(folder: Path, tmp_path: Path) -> None:
    status.main(StatusArgs(folder, json=tmp_path / "status.json"), Console(file=io.StringIO()))
    value = json.loads((tmp_path / "status.json").read_text())
    assert value["sweep"] == "eight" and value["states"]["running"] == 2
    assert value["runs"] == [asdict(run) for run in read_states(folder)[1]]
    assert value["runs"][0]["tokens"] == RUN.tokens and value["runs"][0]["peak_lr"] == RUN.optimizer.peak_lr
    with pytest.raises(UserError, match="leave --watch out"):
        status.main(StatusArgs(folder, watch=True, json=tmp_path / "again.json"), Console(file=io.StringIO()))


def test_a_watched_sweep_shows_curves_and_the_time_left(folder: Path) -> None:
    running = CONFIGS[2].run_id
    rows = [{"step": step, "loss_nats": loss} for step, loss in enumerate((9.0, 8.0, 4.0, 2.0, 3.0, 1.0), 1)]
    (folder / running / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert status._curves(folder, read_states(folder)[1])[running] == "▅█▁"
    more = {"run_id": "", "params": 1, "active_params": 1, "state": "running", "flops_done": 100.0}
    runs = [RunState(**more, flops=100), RunState(**more, flops=300, seconds_left=50.0)]
    assert status._bar(runs).endswith("50% of the FLOPs, about 50 s left at the speed of the runs at work")
    assert status._bar(runs).count("█") == status._bar(runs).count("░") == 15


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([0.0, 7.0, 3.0], "▁█▄"),
        ([0, 0, 7, 7, 0, 0], "▁█▁"),
        ([1, math.nan, 2], "▁█"),
    ],
)
def test_a_row_of_numbers_is_a_line_of_heights(values: list[float], line: str) -> None:
    assert sparkline(values, 3) == line
