"""A comparison finds the compute that one sweep saves, states changes with intervals, and names what differs."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.simulated import TRUTH, write_sweep

import lmscale
from lmscale.commands.report import write_comparison
from lmscale.core.config import RunConfig
from lmscale.core.errors import UserError
from lmscale.core.plans import read_plan, write_plan
from lmscale.study import fits
from lmscale.study.report import comparison
from lmscale.study.report.comparison import charts, differences, laws, sections
from lmscale.study.report.comparison.sides import Side, comparable_unit, labels

CHEAPER = 1.5
"""The second sweep reaches every loss with so many times less compute."""


def table(saved=1.0, noise=0.002, **columns):
    """Runs of five budgets on the known law; with `saved` they have the losses of that much more data."""
    rng = np.random.default_rng(1)
    rows = []
    for budget in (3e11, 1e12, 3e12, 1e13, 3e13):
        best = float(TRUTH.optimum(budget).params)
        for params in best * np.geomspace(0.3, 3, 7):
            tokens = budget / (6 * params)
            rows.append((params, tokens, budget, budget, float(TRUTH.loss(params * saved**0.5, tokens * saved**0.5))))
    runs = pd.DataFrame(rows, columns=["params", "tokens", "flops", "flops_budget", "loss_nats"])
    runs["loss_nats"] += noise * rng.standard_normal(len(runs))
    return runs.assign(run=[f"r{index}" for index in range(len(runs))], **columns)


def side(label, runs, resamples=100):
    return Side(label, f"{label}.csv", runs, tuple(fits.fit(runs, ("3",), resamples=resamples, check=False)), None)


@pytest.fixture(scope="module")
def sides():
    return [side("a", table()), side("b", table(CHEAPER))]


@pytest.mark.long
def test_the_compute_that_one_saves_is_found(sides):
    result = laws.multiplier(*sides, comparable_unit(sides), (1.0, 1.0))
    low, high = result.multiplier.intervals["0.95"]
    assert low < CHEAPER < high and result.multiplier.multiplier == pytest.approx(CHEAPER, rel=0.1)


def test_changes_are_those_of_the_fits_with_intervals_of_independent_draws(sides):
    rows = {row.name: row for row in laws.compared(sides, comparable_unit(sides))}
    flops = laws.common_budget(sides)
    params = [float(one.fit.optimum(flops).params) for one in sides]
    change = rows["N*, parameters"].changes[0]
    assert change.value == params[1] / params[0]
    loss = rows["loss there, nats per token"]
    assert loss.changes[0].value == pytest.approx(loss.values[1].value - loss.values[0].value)
    assert loss.changes[0].interval[1] < 0, "the cheaper sweep has the lower loss, beyond noise"
    assert {f"{name} of the law" for name in ("E", "A", "B", "alpha", "beta")} <= set(rows)


def test_the_interval_of_a_difference_has_the_width_of_both():
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 0.3, 4000), rng.normal(5, 0.4, 4000)
    low, high = laws.change(2, 5, a, b, is_ratio=False).interval
    assert (low, high) == pytest.approx((3 - 1.96 * 0.5, 3 + 1.96 * 0.5), abs=0.05)
    assert all(map(math.isnan, laws.change(2, 5, a, None, is_ratio=True).interval))


def test_losses_of_different_tokens_are_compared_in_bits_per_byte():
    bytes_ = table(vocab=256)
    words = table(vocab=8192).assign(loss_nats=lambda one: 4 * one["loss_nats"])
    assert comparable_unit([side("a", bytes_, 0), side("b", words, 0)]).caution.startswith("The tokens differ")
    known = [side(name, one.assign(bits_per_byte=one["loss_nats"] / scale / math.log(2)), 0)
             for name, one, scale in (("a", bytes_, 1), ("b", words, 4))]  # fmt: skip
    unit = comparable_unit(known)
    assert unit.name == "bits per byte" and not unit.caution
    row = next(row for row in laws.compared(known, unit) if row.name.startswith("loss"))
    assert row.changes[0].value == pytest.approx(0, abs=1e-6)


def test_losses_on_different_texts_are_not_divided():
    pair = [side(name, table(data_fingerprint=name), 0) for name in "ab"]
    unit = comparable_unit(pair)
    assert "different texts" in unit.caution and laws.multiplier(*pair, unit, (1.0, 1.0)) == unit.caution


def test_fields_that_differ_are_named_with_their_values(tmp_path):
    one = write_sweep(tmp_path / "one", points=5)
    name, planned = read_plan(one)
    other = tmp_path / "other"
    write_plan(other, name, [replace(run, config=_with_seed(run.config, 7), trunk="") for run in planned])
    both = [Side(folder.name, str(folder), pd.DataFrame({"run": []}), (), folder) for folder in (one, other)]
    fields = dict(differences.differences(both))
    assert fields["seed"] == ["0", "7"] and "model.width" not in fields


@pytest.mark.long
def test_of_tables_the_columns_that_all_have_are_compared(tmp_path):
    folder = write_sweep(tmp_path / "one", points=5)
    sweep = pd.DataFrame(
        {"run": ["a", "b"], "vocab": [256, 256], "context": [128, 128], "layers": 2, "loss_nats": [3.0, 2.9]}
    )
    other = pd.DataFrame({"run": ["c", "d"], "vocab": [256.0, 256.0], "context": [64.0, 64.0], "heads": 4})
    both = [Side("one", "one", sweep, (), folder), Side("two", "two.csv", other, (), None)]
    assert dict(differences.differences(both)) == {"context": ["128", "64"]}


def _with_seed(config: RunConfig, seed: int) -> RunConfig:
    return replace(config, seed=seed)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (set(), "–"),
        ({"10", "9"}, "9, 10"),
        ({str(i) for i in range(8, 20)}, "12 values, 8 to 19"),
        ({"b", "1"}, "1, b"),
    ],
)
def test_values_are_listed_in_order_or_counted(values, text):
    assert differences.listed(values) == text


def test_sources_of_one_name_are_told_apart_and_one_given_twice_is_refused(tmp_path):
    for parent in ("x", "y"):
        (tmp_path / parent / "sweep").mkdir(parents=True)
    paths = [str(tmp_path / parent / "sweep") for parent in ("x", "y")]
    assert labels(paths) == ["x/sweep", "y/sweep"]
    with pytest.raises(UserError, match="given twice"):
        labels([paths[0], paths[0]])


@pytest.mark.long
def test_the_page_compares_three_and_names_every_run_by_its_side(tmp_path):
    for name, saved in (("a", 1.0), ("b", CHEAPER), ("c", 1 / CHEAPER)):
        table(saved).to_csv(tmp_path / f"{name}.csv", index=False)
    sources = [str(tmp_path / f"{name}.csv") for name in "abc"]
    page = write_comparison(sources, tmp_path / "out", resamples=50)
    html = page.read_text("utf-8")
    assert "times less compute than a" in html and "times more compute than a" in html
    assert "Laws side by side" in html and '"b: r3"' in html
    numbers = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert numbers["sides"] == ["a", "b", "c"] and len(numbers["multipliers"]) == 2
    figures = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert figures == {f"{name}.{kind}" for name in ("losses", "ratios") for kind in ("svg", "png", "csv")}


def test_what_is_for_one_source_is_refused_for_several():
    with pytest.raises(UserError, match="--where is for one sweep or table"):
        write_comparison(["a.csv", "b.csv"], Path("out"), where="params > 1")


@pytest.mark.long
def test_a_list_of_sources_is_compared(tmp_path):
    for name in "ab":
        table().to_csv(tmp_path / f"{name}.csv", index=False)
    sources = [tmp_path / "a.csv", str(tmp_path / "b.csv")]
    page = lmscale.report(sources, tmp_path / "out", resamples=20)
    assert page == tmp_path / "out" / "report.html" and "no difference that these runs show" in page.read_text("utf-8")
    with pytest.raises(UserError, match="title and question"):
        lmscale.report(sources, title="Mine")


def test_one_source_is_not_compared():
    with pytest.raises(UserError, match="two or more"):
        write_comparison(["a.csv"])


def test_a_source_without_a_measured_run_is_named(tmp_path):
    table().head(0).to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(UserError):
        comparison.write([str(tmp_path / "none.csv"), "chinchilla"], tmp_path / "out", resamples=0)


def test_a_figure_has_every_measured_run_and_its_side_s_colour(sides):
    chart = charts.losses(sides, comparable_unit(sides))
    points = [mark for mark in chart.marks if mark.kind == "points"]
    assert [mark.colour for mark in points] == [charts.colour(0), charts.colour(1)]
    assert [len(mark.x) for mark in points] == [35, 35] and points[1].runs[0] == "b: r0"


OF_STREAMS = """
from lmscale.study.laws import Law, Parameter
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class OfStreams(Law):
    E: Any
    A: Any
    B: Any
    NAME: ClassVar = "of-streams"
    INPUTS: ClassVar = ("params", "tokens", "streams")
    PARAMETERS: ClassVar = (Parameter("E", 1e-3, 10, (1.0,)), Parameter("A", 1, 1e6, (300.0,)),
                            Parameter("B", 1, 1e6, (300.0,)))

    def loss(self, params, tokens, streams):
        return self.E + self.A / (params * streams) ** 0.4 + self.B / tokens**0.4
"""


@pytest.fixture
def of_streams(tmp_path):
    """A law of a third input, by import path, and two tables of it, A twice as large in the second."""
    (tmp_path / "mine.py").write_text(OF_STREAMS, "utf-8")
    sources = []
    for name, scale in (("one", 200.0), ("two", 400.0)):
        runs = pd.concat([table(noise=0).assign(streams=float(streams)) for streams in (1, 4)], ignore_index=True)
        loss = 0.8 + scale / (runs["params"] * runs["streams"]) ** 0.4 + 250 / runs["tokens"] ** 0.4
        runs = runs.assign(
            loss_nats=loss * (1 + 1e-4 * np.sin(np.arange(len(runs)))), run=[f"r{i}" for i in runs.index]
        )
        sources.append(str(tmp_path / f"{name}.csv"))
        runs.to_csv(sources[-1], index=False)
    return f"{tmp_path / 'mine.py'}:OfStreams", sources


@pytest.mark.long
def test_parameters_of_a_law_of_three_inputs_are_compared_and_its_allocation_where_the_third_is_given(
    tmp_path, of_streams
):
    law, sources = of_streams
    page = write_comparison(sources, tmp_path / "out", resamples=20, law=law)
    numbers = json.loads((page.parent / "comparison.json").read_text())
    stated = {row["name"]: row["values"] for row in numbers["quantities"]}
    assert list(stated) == ["E of the law", "A of the law", "B of the law"]
    assert [one["value"] for one in stated["A of the law"]] == pytest.approx([200, 400], rel=0.02)
    assert "With --given streams=VALUE the allocations by the law of one and two" in page.read_text("utf-8")

    page = write_comparison(sources, tmp_path / "given", resamples=20, law=law, given={"streams": 4})
    numbers = json.loads((page.parent / "comparison.json").read_text())
    (ratio,) = [row["changes"][0]["value"] for row in numbers["quantities"] if row["name"] == "N*, parameters"]
    assert ratio == pytest.approx(2 ** (1 / 0.8), rel=0.02), "N* goes with (A / B)^(1 / (alpha + beta))"
    assert "fitted, with streams = 4." in page.read_text("utf-8")


@pytest.mark.long
def test_a_sweep_is_compared_by_the_law_it_was_planned_for(tmp_path):
    folder = write_sweep(tmp_path / "one", points=5)
    write_plan(folder, *read_plan(folder), purpose={"law": "kaplan"})
    sides = [comparison.read_side(str(folder), "one", resamples=0, law=law) for law in (None, "chinchilla")]
    assert [one.law.law.NAME for one in sides] == ["kaplan", "chinchilla"]


@pytest.mark.long
def test_laws_of_different_forms_share_no_parameter(tmp_path, of_streams):
    _, sources = of_streams
    both = [comparison.read_side(source, name, resamples=0, law=law)
            for source, name, law in zip(sources, "ab", ("chinchilla", "kaplan"))]  # fmt: skip
    names = [row.name for row in laws.compared(both, comparable_unit(both))]
    assert "N*, parameters" in names and not any("of the law" in name for name in names)


def test_a_law_whose_column_a_table_lacks_is_refused(tmp_path):
    for name in "ab":
        table().to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(UserError, match="needs a column 'experts'"):
        lmscale.report([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out", law="clark")


def test_a_law_that_is_read_outside_of_its_runs_is_said():
    """The largest common budget is the small runs' own, far below the smallest of the large ones."""
    small, large = table(), table()
    large = large.assign(**{name: large[name] * factor for name, factor in
                            (("params", 1e3), ("tokens", 1e3), ("flops", 1e6), ("flops_budget", 1e6))})  # fmt: skip
    large["loss_nats"] = TRUTH.loss(large["params"], large["tokens"])
    sides = [side("small", small), side("large", large)]
    (sentence,) = laws.extrapolated(sides)
    assert sentence.startswith("At C = 3e+13 FLOPs the law of large is read outside of its runs")
    assert "C = 3e+13 FLOPs is 10,000 times below the least, 3e+17" in sentence
    assert "N* = " in sentence and "D* = " in sentence
    page = "".join(sections.side_by_side(sides, comparable_unit(sides)))
    assert sentence in page.replace("&#x27;", "'")
    assert laws.extrapolated([sides[0], side("b", table(CHEAPER))]) == []
