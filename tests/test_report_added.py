"""Sections beside the fits: lost time, forecasts, loss by position, rates, the checklist, a sweep under way."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call
from helpers.simulated import write_sweep

from lmscale.study import fits, plots, report
from lmscale.study.launch.states import read_states
from lmscale.study.report import checklist, figures, forecasts, run_time, stages, under_way
from lmscale.study.report.charts import contexts
from lmscale.study.tables import read_table


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"), points=40)


@pytest.fixture(scope="module")
def table(sweep):
    return read_table(sweep)


def test_the_time_is_split_into_training_start_and_pauses():
    runs = pd.DataFrame({"seconds": [3600.0, 1800.0, None], "startup_seconds": [600.0, 300.0, 5.0],
                         "paused_seconds": [None, 900.0, 7.0]})  # fmt: skip
    assert run_time.shares(runs) == {"training": 5400.0, "start": 900.0, "pauses": 900.0}
    assert run_time.goodput(runs) == 0.75
    text = "".join(run_time.section(runs))
    assert "Of 2 hours of 2 runs, 75.0 % were training (goodput)." in text and 'data-value="0.125"' in text


def test_a_table_without_times_has_no_such_section():
    assert run_time.section(pd.DataFrame({"loss_nats": [2.0]})) == [] and np.isnan(run_time.goodput(pd.DataFrame()))


def curve(loss):
    flops = np.geomspace(1e10, 1e12, 120)
    return pd.DataFrame({"flops": flops, "loss_nats": loss(flops)})


def test_a_curve_that_is_a_power_law_is_forecast_to_its_end():
    one = forecasts.forecast("a", curve(lambda x: 1.5 + 2 * (x / 1e10) ** -0.4))
    assert one.forecast_nats == pytest.approx(1.5 + 2 * 100**-0.4, rel=0.01) and abs(one.error) < 0.01


def test_a_run_whose_rate_decays_ends_below_its_forecast():
    def decaying(x):
        done = x / x.max()
        return 1.5 + 2 * (x / 1e10) ** -0.4 + 0.2 * (1 - done**2)

    one = forecasts.forecast("a", curve(decaying))
    assert one.error < -0.01
    text = "".join(forecasts.section({"a": curve(decaying)}, {"a": "N 10k"}))
    assert f"{100 * abs(one.error):.2f} % lower" in text and "N 10k" in text


def test_a_curve_of_few_points_is_not_forecast():
    short = pd.DataFrame({"flops": [1.0, 2.0, 4.0], "loss_nats": [3.0, 2.5, 2.2]})
    assert forecasts.forecast("a", short) is None and forecasts.section({"a": short}, {}) == []


@pytest.mark.long
def test_losses_by_position_are_read_and_drawn_at_the_middle_of_their_bins(sweep, table, tmp_path):
    runs = plots.measured_runs(table)
    first = str(runs["run"].iloc[0])
    path = sweep / first / "outcome.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "loss_by_position_nats": [3.0, 2.8, 2.7]}))
    try:
        positions = contexts.read_positions(sweep, runs)
        chart = contexts.by_position(runs, positions, {})
        drawn = figures.draw(table, [], [], {}, tmp_path, positions=positions)
    finally:
        path.write_text(before)
    assert positions == {first: [3.0, 2.8, 2.7]}
    (line,) = chart.marks
    assert line.run == first and list(line.y) == [3.0, 2.8, 2.7]
    assert list(line.x) == pytest.approx([1.0, np.sqrt(6), np.sqrt(28)])
    assert "positions" in {figure.name for figure in drawn} and (tmp_path / "positions.svg").is_file()


def test_rates_are_drawn_beside_the_law_where_a_size_was_run_at_several():
    rows = [
        {"run": f"r{n:g}-{rate}", "params": n, "tokens": 1e6, "flops": 6 * n * 1e6, "peak_lr": rate,
         "loss_nats": 3 + 0.1 * np.log(rate / 0.01) ** 2}
        for n in (1e4, 2e4) for rate in (0.005, 0.01, 0.02)
    ]  # fmt: skip
    runs = pd.DataFrame(rows)
    (sketch,) = figures._rate_valleys(runs)
    chart = sketch.charts()[0]
    best = [mark for mark in chart.marks if mark.shape == "diamond"]
    assert [mark.x[0] for mark in best] == pytest.approx([0.01, 0.01])
    points = next(mark for mark in chart.marks if mark.runs)
    assert list(points.runs) == runs["run"].tolist()
    assert figures._rate_valleys(runs.drop_duplicates("params")) == []


def test_the_checklist_states_what_the_records_hold_and_what_they_do_not(table):
    results = fits.fit(table, ("2", "3"), resamples=20, check=False)
    checks = [fits.held_out_check(fit, table) for fit in results]
    answers = dict(checklist.checklist(table, results, checks))
    assert answers["form of the law"].startswith("Approach 2: N* = G C^a; Approach 3: L = E + A/N^alpha")
    assert answers["runs planned, and measured"] == "28, 26" and answers["runs held out from every fit"] == "7"
    assert answers["tried on unseen runs"] == "7 held-out losses"
    assert answers["noise of one run"] == "not measured: no size and length was run with several seeds"
    bare = dict(checklist.checklist(pd.DataFrame(), []))
    assert bare["form of the law"] == "none was fitted" and bare["corpus"] == checklist.UNKNOWN


def test_the_noise_between_seeds_is_their_scatter():
    runs = pd.DataFrame({"params": [1.0, 1.0, 2.0, 2.0], "tokens": 5.0, "seed": [0, 1, 0, 1], "flops": 1.0,
                         "loss_nats": [2.0, 2.02, 1.9, 1.94]})  # fmt: skip
    rms = np.sqrt((0.02**2 / 2 + 0.04**2 / 2) / 2)
    assert dict(checklist.checklist(runs, []))["noise of one run"].startswith(f"{rms:.2g} nats between seeds, over 2")


@dataclass
class State:
    state: str
    flops: float = 1.0
    flops_done: float = 0.0


@pytest.mark.parametrize(
    ("states", "sentence", "refresh"),
    [
        (["finished", "diverged"], "", None),
        (["finished", "missing"], "1 of 2 planned runs is not finished: 1 missing.", None),
        (["running", "missing", "missing"], "3 of 3 planned runs are not finished: 2 missing, 1 running.", 60),
        (["finished", "scoring"], "1 of 2 planned runs is not finished: 1 scoring.", 60),
    ],
)
def test_a_sweep_under_way_says_what_is_missing_and_loads_itself_again(states, sentence, refresh):
    runs = [State(state) for state in states]
    assert under_way.note(runs).startswith(sentence) and bool(under_way.note(runs)) == bool(sentence)
    assert under_way.refresh_seconds(runs) == refresh
    half = [State("running", 2.0, 1.0), State("finished")]
    assert "; of their compute 50 % is done." in under_way.note(half)


@pytest.mark.long
def test_the_page_of_an_unfinished_sweep_is_whole_and_says_so(tmp_path):
    folder = write_sweep(tmp_path / "sweep", points=10)
    for run in read_states(folder)[1][10:]:
        for file in (folder / run.run_id).glob("*"):
            file.unlink()
    html = report.of_sweep(folder, resamples=20).read_text("utf-8")
    assert "of 28 planned runs are not finished" in html and html.rstrip().endswith("</html>")
    assert 'http-equiv="refresh"' not in html, "nobody is at work"


def test_a_watched_report_is_written_until_no_run_is_at_work(sweep, tmp_path, monkeypatch, capsys):
    at_work, written, page = iter([60, 60, None]), [], tmp_path / "report.html"
    page.with_name("fits.json").write_text('{"answer": ["N* is 5"]}')
    monkeypatch.setattr("lmscale.study.report.under_way.refresh_seconds", lambda runs: next(at_work))
    monkeypatch.setattr("lmscale.commands.report.write_report", lambda *a, **k: written.append(a) or page)
    monkeypatch.setattr("time.sleep", written.append)
    assert call("report", sweep, "--watch", 5) == 0
    assert len(written) == 5 and written[1] == written[3] == 5.0
    output = capsys.readouterr().out
    assert output.count("the report is") == 1 and output.count("N* is 5") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("chinchilla", "--watch", 5), "--watch is for a sweep's folder"), (("a", "b", "--watch", 5), "for one sweep"),
     (("chinchilla", "--watch", 0), "more than 0")],
)  # fmt: skip
def test_what_cannot_be_watched_is_one_sentence(words, sentence, capsys):
    assert call("report", *words) == 2 and sentence in capsys.readouterr().err


def test_other_stages_are_counted_with_the_command_of_their_page():
    runs = pd.DataFrame({"stage": ["pretrain", None, "fine-tune"]})
    counts = stages.runs_by_stage(runs)
    assert counts == {"pretrain": 2, "fine-tune": 1}
    text = "".join(stages.section(counts, "pretrain", "runs/mine"))
    assert "this page" in text and stages.command("runs/mine", "fine-tune") in text
    assert stages.command("runs/mine", "fine-tune").endswith("--output runs/mine/report-fine-tune")
    assert stages.section({"pretrain": 3}, "pretrain", "runs/mine") == [] == stages.section({}, "pretrain", "x")
