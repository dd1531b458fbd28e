"""One page for all that a sweep holds: stages, repeats beside a law, scores on tasks, time between attempts."""

import json
import re

import pandas as pd
import pytest
from helpers.simulated import BUDGETS
from helpers.staged import FOOT, IDLE_SECONDS, TUNED, write_staged

from lmscale.core.counting import count
from lmscale.core.plans import read_plan
from lmscale.study import report
from lmscale.study.fits.checks.stages import one_stage
from lmscale.study.report import abilities, run_time
from lmscale.study.report.kinds import ALLOCATION, REPEATS, kind_of, repeated
from lmscale.study.tables import read_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_staged(tmp_path_factory.mktemp("staged"))


@pytest.mark.long
def test_one_page_holds_every_stage_with_its_own_law(folder, tmp_path):
    page = report.of_sweep(folder, tmp_path, resamples=20)
    html, saved = page.read_text("utf-8"), json.loads((tmp_path / "fits.json").read_text())
    assert {"Stage: fine-tune", "Stages of training", "At which scale abilities appear"} <= {
        re.sub("<.*?>", "", title) for title in re.findall(r"<h2.*?</h2>", html)
    }
    identifiers = re.findall(r'<[^>]*? id="([^"]*)"', html)
    assert len(identifiers) == len(set(identifiers)), "an anchor leads to one place"
    tuned = saved["stages"]["fine-tune"]
    law = next(fit for fit in tuned["fits"] if fit["approach"] == "3")["parameters"]
    assert law["E"] == pytest.approx(TUNED.E, abs=0.1) and law["alpha"] == pytest.approx(TUNED.alpha, abs=0.1)
    assert tuned["answer"] and saved["answer"] and tuned["answer"] != saved["answer"]
    data = json.loads(re.search(r'id="page-data">(.*?)</script>', html, re.S)[1])
    assert {"loss", "valleys", "repeats", "scores", "fine-tune-loss", "fine-tune-valleys"} <= set(data["charts"])
    follow = {name for name, charts in data["charts"].items() if any(chart["follows"] for chart in charts)}
    assert follow and not any(name.startswith("fine-tune") for name in follow), "the slider is of the page's own stage"
    for name in ("fine-tune-loss", "fine-tune-valleys"):
        assert f'data-chart="{name}"' in html
    ids = {run.config.run_id: run.stage for run in read_plan(folder)[1]}
    drawn = {
        run for chart in data["charts"]["fine-tune-valleys"] for mark in chart["marks"] for run in mark.get("runs", [])
    }
    assert drawn and {ids[run] for run in drawn} == {"fine-tune"} and drawn <= set(data["runs"])
    assert (tmp_path / "figures/fine-tune/loss.svg").is_file()
    assert len(pd.read_csv(tmp_path / "table-fine-tune.csv")) == 28
    threshold = next(one for one in saved["emergence"] if one["task"] == "copy")
    assert threshold["class"] == "emergent" and threshold["interval"][0] < FOOT < threshold["interval"][1]
    assert "1 run took 2 attempts and lay idle between them for 30 min 00 s." in html


def test_repeats_stand_beside_a_law_and_alone_are_a_kind_of_their_own(folder):
    table = one_stage(read_table(folder), None)
    chosen = repeated(table)
    assert len(chosen) == 5 and sorted(chosen["epochs"]) == [0.4, 1, 2, 4, 8]
    assert kind_of(table) is ALLOCATION and kind_of(chosen) is REPEATS
    many = pd.concat([table, *[chosen.assign(run=chosen["run"] + str(n)) for n in range(9)]], ignore_index=True)
    assert kind_of(many) is ALLOCATION, "its runs that see nothing twice are a law of their own"
    few = pd.concat([many[many["epochs"] > 1], table[table["flops_budget"] == BUDGETS[2]]])
    assert kind_of(few) is REPEATS


def test_a_curve_is_drawn_with_its_threshold_and_interval(folder):
    verdicts = abilities.abilities_of(folder, "pretrain")
    first = verdicts.ordered[0]
    assert first.curve.task == "copy" and first.cls == "emergent"
    chart = abilities.chart(first)
    (interval,) = [mark for mark in chart.marks if mark.along == "x"]
    (foot,) = [mark for mark in chart.marks if mark.shape == "diamond"]
    assert (interval.low[0], interval.high[0]) == first.interval and foot.x[0] == first.threshold
    (points,) = [mark for mark in chart.marks if mark.kind == "points" and mark.shape == "circle"]
    assert list(points.y) == first.curve.score_S.tolist()
    params = {run.config.run_id: count(run.config).params for run in read_plan(folder)[1]}
    assert [params[run] for run in points.runs] == pytest.approx(list(points.x), rel=0.01), "each point names its run"
    assert all(chart.y.low < y < chart.y.high for y in (*points.y, *interval.y))
    assert any(mark.kind == "level" and list(mark.y) == [0.25] for mark in chart.marks)
    text = "".join(abilities.section(verdicts))
    assert "2 curves over params (parameters): 1 emergent" in text and "copy" in text and "count" in text


def test_scores_that_allow_no_verdict_and_none_at_all(folder, tmp_path):
    assert abilities.abilities_of(tmp_path) is None and abilities.section(None) == [] == abilities.sketches(None)
    none = abilities.abilities_of(folder, "distil")
    assert none.result is None and "allow no verdict" in "".join(abilities.section(none))
    assert abilities.sketches(none) == [] and none.to_json() == []


def test_time_between_attempts_is_no_training(folder):
    runs = [run.config.run_id for run in read_plan(folder)[1]]
    waiting = run_time.waiting_of(folder, runs)
    assert (waiting.runs, waiting.attempts, waiting.seconds, waiting.unknown) == (1, 2, IDLE_SECONDS, 0)
    table = pd.DataFrame({"seconds": [1800.0], "startup_seconds": [0.0], "paused_seconds": [0.0]})
    assert run_time.goodput(table, waiting) == 0.5 and run_time.goodput(table) == 1.0
    assert "between attempts" in "".join(run_time.section(table, waiting))
    assert run_time.waiting_of(folder, runs[1:]) is None and run_time.waiting_of(None, runs) is None


def test_an_attempt_whose_end_nobody_recorded_is_said(folder, tmp_path):
    attempts = tmp_path / "run" / "attempts"
    attempts.mkdir(parents=True)
    for number, began in (("0001", "2026-01-01T10:00:00+00:00"), ("0002", "2026-01-01T11:00:00+00:00")):
        (attempts / f"{number}.json").write_text(json.dumps({"began": began}))
    waiting = run_time.waiting_of(tmp_path, ["run"])
    assert (waiting.seconds, waiting.unknown) == (0.0, 1)
    table = pd.DataFrame({"seconds": [1800.0], "startup_seconds": [0.0]})
    assert "of 1 attempt nobody recorded the end" in "".join(run_time.section(table, waiting))
