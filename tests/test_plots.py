"""Figures say what the fits say, name their units, and never draw a point that is not there."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from helpers.simulated import write_sweep

from lmscale.core.errors import UserError
from lmscale.core.run_folder import METRICS_FILE
from lmscale.study import fits, plots
from lmscale.study.fits.results.common import span
from lmscale.study.plots.axes import end_labels
from lmscale.study.plots.isoflop import MOST_NAMED
from lmscale.study.tables import read_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"), points=20)


@pytest.fixture(scope="module")
def table(folder):
    return read_table(folder)


@pytest.fixture(scope="module")
def both(table):
    return fits.fit(table, ("2", "3"), resamples=100, check=False)


@pytest.fixture(scope="module")
def checked(both, table):
    return [fits.held_out_check(fit, table) for fit in both]


def lines_of(ax, colour):
    return [line for line in ax.lines if line.get_color() == colour and len(line.get_xdata()) > 2]


@pytest.mark.parametrize(
    "value, text",
    [(26100, "26.1k"), (1.4e6, "1.40M"), (67.3e9, "67.3B"), (999.7e3, "1.00M"), (0.5, "0.500"), (None, "–")],
)
def test_counts_are_compact(value, text):
    assert plots.compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (23.98, "24.0"),
        (20.14, "20.1"),
        (8.0, "8"),
        (0.5139, "0.514"),
        (1.5e-4, "0.00015"),
        (104.6, "105"),
        (1040.2, "1,040"),
    ],
)
def test_a_number_has_three_digits_and_a_whole_number_its_own(value, text):
    assert plots.number(value) == text


@pytest.mark.parametrize(
    ("ends", "spec", "text"),
    [
        ((18.2, 23.98), ".3g", "[18.2, 24.0]"),
        ((0.347, 0.39504), ".5g", "[0.34700, 0.39504]"),
        ((103.7, 9.99e5), ".3g", "[104, 9.99e+05]"),
        ((2e6, 3.5e6), ".1g", "[2e+06, 4e+06]"),
        ((1.0, 2.5), ".2f", "[1.00, 2.50]"),
    ],
)
def test_the_ends_of_an_interval_have_all_of_their_digits(ends, spec, text):
    assert span(ends, spec) == text


@pytest.mark.parametrize("value, text", [(3e12, "3×10¹²"), (1e18, "10¹⁸"), (5.76e23, "5.76×10²³"), (2e-3, "2×10⁻³")])
def test_budgets_are_powers_of_ten(value, text):
    assert plots.power(value) == text


def test_the_frontier_holds_only_runs_that_nothing_cheaper_beats():
    flops, loss = [1.0, 1.01, 2.0, 3.0, 10.0], [3.0, 2.5, 2.6, 2.0, 1.9]
    x, y = plots.lower_frontier(flops, loss)
    assert list(x) == [1.01, 3.0, 10.0] and list(y) == [2.5, 2.0, 1.9]


def test_points_inside_a_schedule_never_feed_the_frontier(table):
    run = table["run"].iloc[0]
    below = pd.DataFrame({"flops": [1e10, 1e11], "loss_nats": [0.5, 0.4]})
    with plots.style():
        _, (ax,) = plots.canvas()
        plots.curves(ax, table, {run: below})
    (frontier,) = lines_of(ax, plots.INK["text"])
    assert min(frontier.get_ydata()) == table["loss_nats"].min()
    assert "validation (points)" in ax.get_ylabel() and "nats per token" in ax.get_ylabel()
    assert plots.loss_label(table.assign(stage="prefer")) == "loss, per pair of answers"


def test_baselines_are_lines_that_share_words_and_leave_the_runs_their_room(table):
    lowest = float(table["loss_nats"].min())
    given = {"pairs": 1.1 * lowest, "near": 1.101 * lowest, "program": 0.8 * lowest, "far": 0.3 * lowest}
    with plots.style():
        _, (ax,) = plots.canvas()
        plots.curves(ax, table, baselines=given)
    drawn = sorted(line.get_ydata()[0] for line in ax.lines if line.get_color() == plots.INK["muted"])
    assert drawn == [given["program"], given["pairs"], given["near"]]
    assert {"pairs, near", "program"} <= {text.get_text() for text in ax.texts}
    assert 0.3 * lowest < ax.get_ylim()[0] < 0.8 * lowest


def test_a_valley_is_lowest_where_the_fit_says_and_its_held_out_points_are_open(table, both, checked):
    isoflop = both[0]
    with plots.style():
        _, (ax,) = plots.canvas()
        plots.valleys(ax, table, isoflop, checked[0])
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 80]
    assert len(drawn) == 4
    for minimum, line in zip(isoflop.minima, drawn):
        x, y = line.get_xdata(), line.get_ydata()
        assert x[y.argmin()] == pytest.approx(minimum.params, rel=0.03)
        assert y.min() == pytest.approx(minimum.loss_nats, abs=1e-3)
    open_points = [
        line for line in ax.lines if line.get_marker() == "o" and line.get_markerfacecolor() == plots.INK["paper"]
    ]
    assert sum(len(line.get_xdata()) for line in open_points) == table["held_out"].sum()
    assert "all parameters" in ax.get_xlabel() and "nats per token" in ax.get_ylabel()


def test_a_rejected_budget_keeps_its_points_and_has_no_curve(table):
    crooked = table.copy()
    first = crooked["flops_budget"] == 3e11
    crooked.loc[first, "loss_nats"] = np.linspace(3.6, 3.0, int(first.sum()))
    isoflop = fits.isoflop(crooked, resamples=20, check=False)
    with plots.style():
        _, (ax,) = plots.canvas()
        plots.valleys(ax, crooked, isoflop)
    assert "3×10¹¹, no minimum" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("quantity", ["params", "tokens", "tokens_per_param"])
def test_allocation_draws_the_optimum_and_twenty_tokens_per_parameter(both, checked, quantity):
    span = (1e11, 1e15)
    with plots.style():
        _, (ax,) = plots.canvas()
        plots.allocation(ax, both, quantity, span=span, data=(3e11, 3e12), held_out=checked)
    for fit in both:
        dashed = lines_of(ax, plots.INK[fit.approach])[0]
        flops = float(dashed.get_xdata()[7])
        assert dashed.get_ydata()[7] == pytest.approx(float(getattr(fit.optimum(flops), quantity)))
        assert dashed.get_linestyle() == "--"
        solid = lines_of(ax, plots.INK[fit.approach])[1].get_xdata()
        assert (solid[0], solid[-1]) == pytest.approx((3e11, 3e12)), "solid where runs were fitted, dashed beyond"
    (rule,) = lines_of(ax, plots.INK["rule"])
    flops, value, compute = rule.get_xdata()[3], rule.get_ydata()[3], both[0].compute
    params = {"params": value, "tokens": value / 20, "tokens_per_param": (flops / compute.k) ** 0.5}[quantity]
    if quantity == "tokens_per_param":
        assert value == 20
    else:
        assert compute.flops(params, 20 * params) == pytest.approx(flops)
    assert "FLOPs" in ax.get_xlabel() and ax.get_ylabel().split(", ")[-1].split()[0] in ("all", "tokens")


def test_allocation_names_the_nearest_quantity(both):
    _, (ax,) = plots.canvas()
    with pytest.raises(UserError, match="did you mean 'tokens'"):
        plots.allocation(ax, both, "token", span=(1e11, 1e12))


def test_residuals_and_predictions_show_measured_against_predicted(both, checked):
    law, verdict = both[1], checked[1]
    with plots.style():
        _, axes = plots.canvas(panels=3)
        plots.residuals(axes[0], law, "tokens", verdict)
        plots.predictions(axes[1], verdict)
        plots.prediction_errors(axes[2], verdict)
    drawn = next(line for line in axes[0].lines if len(line.get_xdata()) == law.n_runs)
    expected = 100 * (law.residuals["measured"] / law.residuals["predicted"] - 1)
    assert drawn.get_ydata() == pytest.approx(expected)
    (dots,) = (line for line in axes[1].lines if line.get_marker() == "o")
    assert list(zip(dots.get_xdata(), dots.get_ydata())) == [
        (run.measured, run.prediction.loss_nats) for run in verdict.runs
    ]
    assert all("nats per token" in label for label in (axes[1].get_xlabel(), axes[1].get_ylabel()))


def test_logarithmic_axes_have_few_round_ticks(table):
    with plots.style():
        figure, (ax,) = plots.canvas()
        plots.curves(ax, table)
        figure.canvas.draw()
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        ticks = [tick for tick in axis.get_majorticklocs() if limits[0] <= tick <= limits[1]]
        assert 2 <= len(ticks) <= 9
        assert all(float(f"{tick:.1e}") == pytest.approx(tick) for tick in ticks)


@pytest.mark.long
def test_figures_are_text_small_and_the_same_every_time(table, both, tmp_path):
    def drawn():
        with plots.style():
            figure, (ax,) = plots.canvas()
            plots.valleys(ax, table, both[0])
            return figure, plots.render(figure, "svg")

    (figure, once), (_, again) = drawn(), drawn()
    assert once == again
    assert type(figure.get_layout_engine()).__name__ == "ConstrainedLayoutEngine"  # what is added later finds its room
    assert b">model size N, all parameters</text>" in once and len(once) < 80_000
    assert plots.save(figure, tmp_path / "valleys.svg").read_bytes()[:5] == b"<?xml"
    with pytest.raises(UserError, match=r"\.svg or \.png"):
        plots.save(figure, tmp_path / "valleys.bmp")


def test_a_cut_off_last_line_is_passed_over_and_a_corrupt_one_is_named(tmp_path, table):
    whole, cut, bad = table["run"].iloc[:3]
    row = json.dumps({"step": 1, "flops": 10, "loss_nats": 2.0})
    for run, text in (
        (whole, f"{row}\n{row}\n"),
        (cut, f'{row}\n{{"step": 2, "fl'),
        (bad, f"{row}\nnonsense\n{row}\n"),
    ):
        (tmp_path / run).mkdir()
        (tmp_path / run / METRICS_FILE).write_text(text)
    curves, notes = plots.read_curves(tmp_path, table)
    assert {run: len(rows) for run, rows in curves.items()} == {whole: 2, cut: 1, bad: 1}
    assert len(notes) == 1 and bad in notes[0] and "line 2" in notes[0]


def test_importing_plots_and_report_loads_neither_jax_nor_matplotlib():
    heavy = ("jax", "matplotlib", "pandas")
    code = f"import lmscale.study.plots, lmscale.study.report, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_large_sweep_shows_some_curves_evenly_along_compute(tmp_path):
    """At most `MOST_CURVES` curves are read, those of the cheapest and the dearest run among them."""
    count = plots.MOST_CURVES + 50
    table = pd.DataFrame({"run": [f"{place:04}" for place in range(count)], "flops": np.arange(count, 0, -1.0)})
    for run in table["run"]:
        (tmp_path / run).mkdir()
        (tmp_path / run / "metrics.jsonl").write_text('{"step": 1, "flops": 1.0, "loss_nats": 2.0}\n')
    curves, notes = plots.read_curves(tmp_path, table)
    assert len(curves) == plots.MOST_CURVES and not notes
    assert list(curves) == sorted(curves) and {"0000", f"{count - 1:04}"} <= set(curves)


def test_runs_that_did_not_finish_are_not_drawn(table):
    states = table.assign(state=["crashed", *["finished"] * (len(table) - 1)])
    assert len(plots.measured_runs(states)) == len(plots.measured_runs(table)) - 1


@pytest.mark.parametrize("count", [3, 100])
def test_labels_beside_lines_never_touch_and_say_how_many_there_are(count):
    with plots.style():
        figure, (ax,) = plots.canvas(9.0, 4.4)
        ends = np.geomspace(1, 3, count)
        for end in ends:
            ax.plot([0, 1], [1, end])
        end_labels(ax, [(float(end), f"N = {end:.3f}", plots.INK["3"]) for end in ends])
        plots.render(figure, "svg")  # a layout without room would warn
    texts = [text for text in ax.texts if text.get_text().startswith("N =")]
    boxes = sorted((box.y0, box.y1) for box in (text.get_window_extent() for text in texts))
    assert all(below[1] <= above[0] + 1 for below, above in pairwise(boxes))
    assert boxes[0][0] >= 0 and boxes[-1][1] <= figure.bbox.height
    hint = [text.get_text() for text in ax.texts if text not in texts]
    assert (len(texts), hint) == (3, []) if count == 3 else (len(texts) > 8 and hint == [f"{len(texts)} of 100:"])


@pytest.mark.long
def test_of_many_valleys_some_are_named():
    rows = [{"params": n * b**0.5, "tokens": b**0.5 / (6 * n), "flops": b, "flops_budget": b, "run": f"{b:.3g}-{n:.2g}",
             "loss_nats": 3 + 0.1 * np.log(n / 0.03) ** 2 - 0.1 * np.log10(b / 1e12)}
            for b in np.geomspace(1e12, 1e18, 30) for n in 0.03 * np.geomspace(0.3, 3, 4)]  # fmt: skip
    many = pd.DataFrame(rows)
    (fit,) = fits.fit(many, ("2",), resamples=0, check=False)
    with plots.style():
        figure, (ax,) = plots.canvas()
        plots.valleys(ax, many, fit)
        plots.render(figure, "svg")
    assert len(ax.texts) == MOST_NAMED and f"{MOST_NAMED} of 30 valleys" in ax.get_title(loc="left")
