"""Sweeps that fix no law are compared where both ran: best rates, losses with the noise of seeds, benchmark scores."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.outcomes import outcome_of

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.core.run_folder import SCORES_FILE
from lmscale.study.report import comparison
from lmscale.study.report.comparison import charts, point_sections, points, scores
from lmscale.study.report.comparison.sides import Side, comparable_unit
from lmscale.study.report.source import kind_of_runs

SIZES = (1e4, 4e4, 1.6e5)
RATES = (0.0025, 0.005, 0.01, 0.02, 0.04)
NOISE = 0.004


def tuned(best: float, lower: float = 0.0, seeds: int = 2, noise: float = NOISE, sizes=SIZES, rates=RATES):
    """Runs at several rates, whose losses are parabolas in ln rate about `best`, lower by `lower` nats."""
    rng = np.random.default_rng([seeds, round(1e4 * lower)])
    rows = [
        {"params": size, "tokens": 1e6, "flops": 6e6 * size, "peak_lr": rate, "seed": seed,
         "loss_nats": 1.5 + 60 * size**-0.4 - lower + 0.05 * math.log(rate / best) ** 2}
        for size in sizes for rate in rates for seed in range(seeds)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table["loss_nats"] += noise * rng.standard_normal(len(table))
    return table


def side(label: str, table: pd.DataFrame) -> Side:
    table = table.assign(run=[f"{label}{index}" for index in range(len(table))])
    return Side(label, f"{label}.csv", table, (), None, kind_of_runs(table, None))


def answer(*sides: Side) -> str:
    unit = comparable_unit(sides)
    common = points.common_points(sides)
    return " ".join(point_sections.answer(sides, unit, common, 1))


def test_the_best_rates_lie_between_the_rates_tried_beside_them():
    common = points.common_points([side("a", tuned(0.01, noise=0)), side("b", tuned(0.04, noise=0))])
    assert len(common) == len(SIZES)
    for point in common:
        first, other = point.sides
        assert first is not None and other is not None
        assert first.rate == pytest.approx(0.01) and first.bracket == (0.005, 0.02) and len(first.runs) == 2
        assert other.rate == pytest.approx(0.04) and other.bracket == (0.02, math.inf), "at the edge: it may lie beyond"
        change = points.rate_change(first, other)
        assert change is not None and change.value == pytest.approx(4) and change.interval == (1.0, math.inf)


def test_a_rate_that_diverged_brackets_the_best():
    table = tuned(0.04, noise=0, seeds=1).assign(state="finished")
    lost = table.assign(peak_lr=0.08, state="diverged", loss_nats=math.nan).drop_duplicates("params")
    (point, *_) = points.common_points([side("a", pd.concat([table, lost])), side("b", table)])
    assert point.sides[0].bracket == (0.02, 0.08) and point.sides[1].bracket == (0.02, math.inf)


def test_the_change_of_the_loss_has_the_interval_of_the_noise_of_seeds():
    sides = [side("a", tuned(0.01)), side("b", tuned(0.01, lower=0.02, seeds=3))]
    unit = comparable_unit(sides)
    noise = points.seed_noise(sides, unit)
    assert noise.freedom == len(SIZES) * len(RATES) * (1 + 2) and noise.sd == pytest.approx(NOISE, rel=0.3)
    common = points.common_points(sides)
    change, source = points.mean_change(common, 1, (1.0, 1.0), noise)
    low, high = change.interval
    assert low < -0.02 < high < 0 and source == "the noise of seeds"
    half = 2.0141 * noise.sd * math.sqrt(len(SIZES) * (1 / 2 + 1 / 3)) / len(SIZES)  # Student's t, 45 degrees
    assert (high - low) / 2 == pytest.approx(half, rel=1e-3)
    assert "95 % interval" in answer(*sides) and "no difference" not in answer(*sides)


def test_without_seeds_the_points_scatter_or_nothing_is_claimed():
    single = [side(name, tuned(0.01, lower=lower, seeds=1)) for name, lower in (("a", 0.0), ("b", 0.02))]
    assert "of the scatter of the points" in answer(*single)
    few = [replace(one, table=one.table[one.table["params"] < 2e4]) for one in single]
    assert "no seeds show the noise, so that no interval can be stated" in answer(*few)


def test_runs_that_share_a_seed_are_no_seeds():
    twice = pd.concat([tuned(0.01, seeds=1), tuned(0.01, seeds=1).assign(loss_nats=lambda one: one["loss_nats"] + 1)])
    assert points.seed_noise([side("a", twice)], comparable_unit([side("a", twice)])).freedom == 0


def test_best_rates_that_differ_by_more_than_the_steps_are_named():
    text = answer(side("a", tuned(0.005, noise=0)), side("b", tuned(0.02, noise=0)))
    assert "differ by more than the steps of those tried at 3 of 3 points: 0.005 against 0.02 at N = 10.0k" in text
    same = answer(side("a", tuned(0.01, noise=0)), side("b", tuned(0.012, noise=0)))
    assert "those tried allow that they are the same at all 3 points" in same


def test_a_setting_that_one_side_varies_tells_points_apart():
    rows = [
        {"params": 1e5, "tokens": 1e6, "flops": 6e11, "context": context, "seed": seed, "loss_nats": 2 - context / 1e3}
        for context in (64, 128, 256) for seed in range(2)
    ]  # fmt: skip
    long = pd.DataFrame(rows)
    short = long[long["context"] < 200].assign(loss_nats=lambda one: one["loss_nats"] + 0.1)
    common = points.common_points([side("a", long), side("b", short)])
    assert [dict(point.coordinates)["context"] for point in common] == [64, 128]
    for first, other in (point.sides for point in common):
        assert first is not None and other is not None and other.loss_nats - first.loss_nats == pytest.approx(0.1)


def test_repeats_are_matched_by_their_passes():
    rows = [{"params": 1e5, "tokens": 4e6, "flops": 2.4e12, "unique_tokens": 4e6 / passes, "epochs": passes,
             "loss_nats": 2 + passes / 100} for passes in (1, 4, 16)]  # fmt: skip
    table = pd.DataFrame(rows)
    common = points.common_points([side("a", table), side("b", table.iloc[[0, 2]])])
    assert [dict(point.coordinates)["passes"] for point in common] == [1, 16]


def test_seeds_are_compared_by_their_noise_too():
    rng = np.random.default_rng(0)
    tables = [
        pd.DataFrame({"params": 1e5, "tokens": 1e6, "flops": 6e11, "seed": range(40),
                      "loss_nats": 2 + sd * rng.standard_normal(40)}) for sd in (0.01, 0.03)
    ]  # fmt: skip
    text = answer(side("a", tables[0]), side("b", tables[1]))
    assert "standard deviation between seeds" in text and ": no difference that these runs show" not in text
    ratio = points.noise_ratio(points.SeedNoise(1.0, 39), points.SeedNoise(3.0, 39))
    assert ratio is not None and ratio.interval == pytest.approx(
        (3 / math.sqrt(1.8907), 3 * math.sqrt(1.8907)), rel=1e-3
    )


def test_where_no_size_and_length_is_common_one_sentence_says_so():
    text = answer(side("a", tuned(0.01)), side("b", tuned(0.01, sizes=(1e3, 3e3))))
    assert "nothing to compare" in text and "a: N from 10.0k to 160k and D = 1.00M" in text


def test_losses_on_different_texts_are_not_subtracted_and_rates_are_still_compared():
    sides = [side(name, tuned(0.01).assign(data_fingerprint=name)) for name in "ab"]
    assert "different texts" in answer(*sides) and "best learning rates" in answer(*sides)


def test_a_figure_names_every_run_of_a_point():
    sides = [side("a", tuned(0.01)), side("b", tuned(0.02))]
    common = points.common_points(sides)
    chart = charts.best_rates(sides, common)
    assert chart is not None
    marks = [mark for mark in chart.marks if mark.kind == "points"]
    assert marks[0].runs[0] == "a: a4; a: a5", "the two seeds at the best rate of the smallest size"
    assert charts.best_rates(sides, []) is None


def scored_sweep(folder: Path, share: float) -> Side:
    """A sweep of two sizes whose runs answered half, or `share`, of a task's 400 questions."""
    planned = []
    for width, score in ((16, 0.5), (64, share)):
        model = ModelConfig(width=width, layers=2, heads=2)
        config = RunConfig(model=model, optimizer=OptimizerConfig(peak_lr=0.01, batch_sequences=16), tokens=20480)
        planned.append(PlannedRun(config))
        outcome_of(config, loss_nats=2.0).write(folder / config.run_id)
        row = {"run_id": config.run_id, "model": "m", "step": config.steps, "params": width * 1000, "task": "copy",
               "metric": "exact_match", "kind": "hard", "shots": 0, "score": score, "n": 400,
               "chance": 0.0}  # fmt: skip
        (folder / config.run_id / SCORES_FILE).write_text(json.dumps(row) + "\n")
    write_plan(folder, folder.name, planned)
    return Side(folder.name, str(folder), pd.DataFrame({"run": []}), (), folder)


def test_scores_are_compared_at_common_sizes(tmp_path):
    sides = [scored_sweep(tmp_path / "one", 0.5), scored_sweep(tmp_path / "two", 0.8)]
    small, large = scores.score_rows(sides, None)
    assert small.change(1).value == 0 and large.change(1).value == pytest.approx(0.3)
    low, high = large.change(1).interval
    share = (0.8 * 400 + 0.5) / 401
    variance = (0.25 + share * (1 - share)) / 400 * (1 + 399 * 0.003)
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(variance), rel=1e-3)
    assert "of 2 at common sizes 1 is better and 0 worse" in scores.answer(sides, (small, large), 1)
    assert scores.score_rows([sides[0], side("table", tuned(0.01))], None) == []


@pytest.mark.long
def test_the_page_of_rates_and_scores_states_what_comparison_json_does(tmp_path):
    for name, best, lower in (("a", 0.01, 0.0), ("b", 0.02, 0.03)):
        table = tuned(best, lower=lower)
        table.assign(run=[f"{name}{index}" for index in range(len(table))]).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    page = comparison.write([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out", resamples=20)
    html = page.read_text("utf-8")
    assert "The same points, side by side" in html and "Laws side by side" not in html
    assert "20 tokens per parameter" not in html
    numbers = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert len(numbers["points"]) == len(SIZES)
    change = numbers["points"][0]["changes"][0]["loss"]
    assert f"{change['value']:+.4f}" in html and f"{change['interval'][0]:+.4f}" in html
    figures = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
    assert figures == {"losses", "changes", "best_rates"}
