"""What the page embeds for its scripts is what the fits say, and nothing but the package's own scripts may run."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from helpers.simulated import write_sweep

from lmscale.core.files import write_json
from lmscale.core.plans import read_plan
from lmscale.study import fits, plots, report
from lmscale.study.plots.isoflop import budget_points
from lmscale.study.report import assets, drawing, explore, page, sketch, summary
from lmscale.study.report.charts import allocations, isoflop, loss, quality
from lmscale.study.report.marks import COLUMNS, Axis, Chart, Mark, data_table, rounded
from lmscale.study.report.records import records, run_name
from lmscale.study.tables import read_table


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("sweep"), points=20)
    for run in read_plan(folder)[1][:3]:
        write_json(folder / run.config.run_id / "config.json", run.config.to_json())
    return folder


@pytest.fixture(scope="module")
def html(sweep):
    return report.of_sweep(sweep, resamples=60).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(sweep):
    return read_table(sweep)


@pytest.fixture(scope="module")
def both(table):
    return fits.fit(table, ("2", "3"), resamples=60, check=False)


@pytest.fixture(scope="module")
def law(both):
    return both[1]


@pytest.fixture(scope="module")
def checked(both, table):
    return [fits.held_out_check(fit, table) for fit in both]


def data_of(html):
    """What the page's scripts read."""
    text = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', html, re.DOTALL)[1]
    return json.loads(text)


class Inlined(HTMLParser):
    """The text of every script that runs and of every style sheet; the policy."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.styles, self.policy, self.at = [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        kinds = {"style": self.styles, "script": None if "type" in values else self.scripts}
        self.at = kinds.get(tag)
        if self.at is not None:
            self.at.append("")

    def handle_endtag(self, tag):
        self.at = None

    def handle_data(self, data):
        if self.at is not None:
            self.at[-1] += data


def sha256(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.long
def test_the_policy_lets_the_inlined_scripts_and_styles_run_and_no_others(html):
    inlined = Inlined(html)
    rules = dict(rule.split(" ", 1) for rule in inlined.policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [sha256(text) for text in inlined.scripts]
    assert rules["style-src"].split() == [sha256(text) for text in inlined.styles]
    assert len(inlined.scripts) == 2 and len(inlined.styles) == 1


def test_a_page_without_data_has_no_script():
    assert "<script" not in page.document("T", ["<p>x</p>"]) and "Security-Policy" not in page.document("T", [])


@pytest.mark.long
def test_the_library_ships_as_it_was_published_with_its_licence(html):
    origin = assets.origin()
    assert set(origin["sha256"]) == {"uPlot.iife.min.js", "uPlot.min.css", "LICENSE"}
    for name, digest in origin["sha256"].items():
        assert hashlib.sha256(assets.asset(f"uplot/{name}").encode()).hexdigest() == digest
    assert f"uPlot {origin['version']}" in html and "Permission is hereby granted, free of charge" in html


def test_no_text_of_a_run_can_end_the_script_that_holds_it():
    shown = page.embedded({"run": "</script><b>", "nats": float("nan"), "loss": np.float64(2.5)})
    assert "<" not in shown and json.loads(shown) == {"run": "</script><b>", "nats": None, "loss": 2.5}


@pytest.mark.long
def test_every_run_has_a_record_with_its_numbers_and_its_command(html, table, sweep):
    runs = data_of(html)["runs"]
    assert list(runs) == table["run"].tolist()
    for row in table[table["state"] == "finished"].to_dict("records"):
        record = runs[row["run"]]
        assert (record["params"], record["tokens"], record["flops"]) == (row["params"], row["tokens"], row["flops"])
        assert (record["loss"], record["rate"]) == (row["loss_nats"], row["peak_lr"])
    begun = table["run"].iloc[0]
    assert runs[begun]["command"] == f"lmscale train {sweep.name}/{begun}/config.json"
    assert runs[table["run"].iloc[-1]]["command"] == "", "of a run that has not begun there is no such line"
    held_out = [run for run, out in zip(table["run"], table["held_out"]) if out]
    assert all("held out" in runs[run]["use"] for run in held_out)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"run": "a", "params": 26112, "tokens": 1.2e6, "peak_lr": 0.01}, "N 26.1k, D 1.20M, rate 0.01"),
        ({"run": "a", "params": 26112, "tokens": None, "seed": float("nan")}, "N 26.1k"),
        ({"run": "a"}, "a"),
    ],
)  # fmt: skip
def test_a_run_is_named_by_what_is_known_of_it(row, name):
    assert run_name(row) == name


def test_the_slider_states_the_optima_and_intervals_of_all_draws(html, table, both):
    explored = data_of(html)["explore"]
    assert explored["flops"] == sorted(explored["flops"]) and len(explored["flops"]) <= explore.MOST_POSITIONS
    assert {3e11, 1e12, 3e12} <= set(explored["flops"]) and explored["flops"][explored["start"]] == 3e12
    for fit in both:
        quantities = explored["approaches"][fit.approach]["quantities"]
        for position in (0, explored["start"], len(explored["flops"]) - 1):
            flops = explored["flops"][position]
            for name in explore.QUANTITIES:
                stated = quantities[name]
                assert stated["centre"][position] == float(getattr(fit.optimum(flops), name))
                for level in (0.8, 0.95):
                    ends = fit.interval(lambda one: getattr(one.optimum(flops), name), level)  # noqa: B023
                    assert stated["intervals"][f"{level:g}"][position] == list(ends)


def test_the_page_shows_the_slider_s_numbers_without_a_script(html, law):
    best = law.optimum(3e12)
    assert f'data-cell="3:params:centre">{plots.compact(float(best.params))}<' in html


def test_a_parameter_moved_alone_gives_the_optimum_of_that_law(law):
    moved = explore.sensitivity(law)
    assert moved["flops"][0] == law.largest_flops and moved["steps"][moved["start"]] == 0
    for name, parameter in moved["parameters"].items():
        assert parameter["standard_error"] == pytest.approx(np.std(law.draws(name), ddof=1))
        for step in (0, moved["start"], len(moved["steps"]) - 1):
            changed = replace(law, law=replace(law.law, **{name: parameter["values"][step]}))
            for column, flops in enumerate(moved["flops"]):
                best = changed.optimum(flops)
                assert parameter["alone"]["params"][step][column] == pytest.approx(float(best.params), rel=1e-9)
                assert parameter["alone"]["loss_nats"][step][column] == pytest.approx(float(best.loss_nats), rel=1e-9)


def test_where_the_others_follow_an_error_carries_less_far(law):
    """A and alpha trade against each other: with A following alpha, N* moves by a fraction of what alpha alone does."""
    alpha = explore.sensitivity(law)["parameters"]["alpha"]
    last = len(explore.STEPS) - 1
    fitted = np.log(alpha["alone"]["params"][explore.STEPS.index(0)][0])
    alone, following = (abs(np.log(alpha[way]["params"][last][0]) - fitted) for way in ("alone", "following"))
    assert following < 0.5 * alone


def test_a_law_without_draws_has_no_sliders_over_its_parameters(law):
    assert explore.sensitivity(replace(law, samples=None)) is None and explore.sensitivity(None) is None


def test_the_figure_of_losses_has_every_run_and_its_curve(table, both, sweep):
    runs = plots.measured_runs(table)
    curves, _ = plots.read_curves(sweep, table)
    chart = loss.loss(runs, curves, both, {}, records(table, both))
    (points,) = [mark for mark in chart.marks if mark.kind == "points"]
    assert list(points.runs) == runs["run"].tolist() and list(points.y) == runs["loss_nats"].tolist()
    assert list(points.filled) == (~runs["held_out"].astype(bool)).tolist()
    assert {mark.run for mark in chart.marks if mark.run} == set(curves) & set(runs["run"])
    assert [switch.name for switch in chart.switches] == ["budget", "size"]
    assert chart.switches[0].values == ["3×10¹¹", "10¹²", "3×10¹²", "10¹³"]


def test_the_valleys_have_the_fit_s_minima_and_the_drawing_s_curves(table, both, checked):
    chart = isoflop.valleys(plots.measured_runs(table), both[0], checked[0], {})
    minima = [mark for mark in chart.marks if mark.shape == "diamond" and mark.filled[0]]
    assert [mark.x[0] for mark in minima] == [minimum.params for minimum in both[0].minima]
    curves = [part.curve for part in budget_points(table, both[0], checked[0]) if part.curve is not None]
    drawn = [mark for mark in chart.marks if mark.kind == "line"]
    assert len(drawn) == len(curves) == 4
    assert all(np.array_equal(mark.y, curve[1]) for mark, curve in zip(drawn, curves))


@pytest.mark.parametrize("quantity", ["params", "tokens", "tokens_per_param"])
def test_allocations_are_the_fits_optima_with_their_bands(both, checked, quantity):
    chart = allocations.allocation(both, quantity, (1e11, 1e15), (3e11, 3e12), checked)
    for fit in both:
        line = next(mark for mark in chart.marks if mark.name == plots.APPROACH_LABEL[fit.approach])
        assert list(line.y) == [float(getattr(fit.optimum(flops), quantity)) for flops in line.x]
        band = next(mark for mark in chart.marks if mark.name.startswith("95 %") and fit.approach in mark.name)
        at = fit.allocations([band.x[5]])[0]["intervals"]["0.95"][quantity]
        assert (band.low[5], band.high[5]) == at
    assert chart.follows == "flops"


def test_residuals_and_errors_are_measured_over_predicted(law, checked):
    points = quality.residuals(law, "params", checked[1]).marks[-1]
    measured, predicted = (np.asarray(law.residuals[name]) for name in ("measured", "predicted"))
    fitted = [y for y, filled in zip(points.y, points.filled) if filled]
    assert fitted == pytest.approx(100 * (measured / predicted - 1))
    errors = quality.prediction_errors(checked[1]).marks[-1]
    assert list(errors.y) == [100 * run.error for run in checked[1].runs]
    assert list(errors.runs) == [run.run for run in checked[1].runs]


def test_beside_every_figure_lies_its_data_with_the_runs(html, sweep, table):
    names = {path.stem for path in (sweep / "report" / "figures").glob("*.svg")}
    assert set(data_of(html)["charts"]) == names
    for name in names:
        listed = pd.read_csv(sweep / "report" / "figures" / f"{name}.csv")
        assert tuple(listed.columns) == COLUMNS and len(listed)
    valleys = pd.read_csv(sweep / "report" / "figures" / "valleys.csv").dropna(subset=["run"])
    losses = table.set_index("run")["loss_nats"]
    assert (valleys["y"] - losses[valleys["run"]].to_numpy()).abs().max() < 1e-9


def test_a_number_is_drawn_with_six_digits_and_listed_with_all():
    mark = Mark("points", "a", [1.23456789], [2.0], runs=["r"])
    assert mark.to_json()["x"] == [1.23457] and rounded([float("nan")]) == [None]
    assert list(mark.rows()) == [("a", "r", 1.23456789, 2.0, None, None)]
    assert data_table([]).empty


def test_what_has_no_point_is_not_handed_to_the_page():
    """The intervals of a fit without draws: a script that paints them would find no ends."""
    none, one = Mark("bars", "interval", [], low=[], high=[]), Mark("points", "a", [1.0], [2.0])
    axis = Axis("x", 1, 2)
    assert [mark["name"] for mark in Chart("", axis, axis, [none, one]).to_json()["marks"]] == ["a"]


def test_cells_keep_the_number_that_they_are_sorted_and_copied_by():
    html = page.table([("N", "")], [page.Row([page.Number("26.1k", 26112)], run="a"), ("", ["–"])], text_columns=())
    assert '<tr data-run="a"><td data-value="26112.0">26.1k</td></tr>' in html and "<td>–</td>" in html


def test_what_stands_between_backticks_is_code_and_what_is_in_it_is_escaped():
    said = "<code>fits.compare</code> of &lt;a&gt; or <code>&lt;b&gt;</code> and ` alone"
    sentence = "`fits.compare` of <a> or `<b>` and ` alone"
    assert page.paragraphs([sentence]) == f"<p>{said}</p>" and page.bullets([sentence]) == f"<ul><li>{said}</li></ul>"
    assert page.definitions([("a", sentence)]) == f"<dl><dt>a</dt><dd>{said}</dd></dl>"


def test_the_answer_in_one_line_is_the_first_fit_s(table, both, law):
    line = summary.line(both, table)
    best = law.optimum(3e12)
    low, high = law.interval(lambda one: one.optimum(3e12).tokens_per_param, 0.95)
    assert line == (
        f"At C = 3×10¹² FLOPs train {plots.compact(float(best.params))} parameters on "
        f"{plots.compact(float(best.tokens))} tokens: {plots.number(float(best.tokens_per_param))} tokens per "
        f"parameter (95 % interval {plots.number(low)} to {plots.number(high)}); more than 20."
    )
    assert summary.line([], table) == "" == summary.numbers([], table)


def test_the_contents_link_every_section(html):
    linked = re.search(r'<nav class="contents".*?</nav>', html)[0]
    anchors = re.findall(r'<h2 id="([^"]*)"', html)
    assert re.findall(r'href="#([^"]*)"', linked) == anchors and len(anchors) > 6


def test_words_of_the_page_name_no_colour(html):
    """Black is white in the dark: a mark is named by its form."""
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL).lower()
    assert not re.findall(r"\b(black|white|gr[ea]y|coloured|blue|orange|green)\b", text)


@pytest.mark.long
def test_a_figure_of_very_many_runs_is_a_picture_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sketch, "MOST_POINTS", 100)
    path = report.of_table("chinchilla", tmp_path, approaches=("3",), resamples=0)
    html = path.read_text("utf-8")
    charts = data_of(html)["charts"]
    assert charts["loss"] == [] and charts["residuals"] == [] and charts["allocation"] != []
    assert 'data-chart="loss"' not in html and "figures/loss.csv lists them" in html
    assert data_of(html)["runs"] == {} and len(pd.read_csv(tmp_path / "figures" / "loss.csv")) > 240


@pytest.mark.long
def test_marks_of_many_runs_are_pixels_inside_the_drawing(tmp_path, monkeypatch):
    monkeypatch.setattr(sketch, "MOST_SHAPES", 100)
    html = report.of_table("chinchilla", tmp_path, approaches=("3",), resamples=0).read_text("utf-8")
    drawings = dict(re.findall(r'<figure data-chart="(\w+)">.*?(<svg.*?</svg>)', html, re.DOTALL))
    assert all('href="data:image/png;base64,' in drawings[name] for name in ("loss", "residuals"))
    assert "<image" not in drawings["allocation"] and "training compute C" in drawings["loss"]


def test_points_without_a_run_of_their_own_count_as_shapes():
    """Scores are of scales, not of runs: 9,800 of them made drawings of 6 MB."""
    marks = [
        Mark("points", "score", [1.0, 2.0], [0.1, 0.2]),
        Mark("bars", "noise", [1.0, 2.0, 3.0], low=[0, 0, 0], high=[1, 1, 1]),
        Mark("line", "fitted", list(range(500)), list(range(500))),
    ]
    assert Chart("scores", Axis("N", 1, 3), Axis("score", 0, 1), marks).shapes == 5


def test_many_marks_are_drawn_finer_and_bars_stay_apart():
    few, many = (
        Mark("bars", "noise", list(range(n)), low=[0.0] * n, high=[1.0] * n, width=1.5) for n in (3, 2 * drawing.CROWD)
    )
    with plots.style():
        _, (ax,) = plots.canvas()
        for mark in (few, many):
            drawing.PAINTERS["bars"](ax, mark)
    assert [line.get_linewidth() for line in ax.lines] == [1.5, 0.75]
    x, y = ax.lines[0].get_data()
    assert list(x) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(y[:2]) == [0, 1] and np.isnan(y[2::3]).all()
