"""Captions of a report's figures, and the sentences between its tables."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from helpers.report_fits import Line, budget, held_out_run, runs
from helpers.simulated import TRUTH

from lmscale.study import fits
from lmscale.study.fits.predict.held_out import HeldOut
from lmscale.study.fits.results.common import Dropped
from lmscale.study.report import figures, sections, sketch, tables


@pytest.fixture(scope="module")
def table():
    rows = [(1e5 * factor, c / (6e5 * factor), c, c) for c in (1e12, 1e13) for factor in (0.1, 0.3, 1, 3, 10)]
    frame = pd.DataFrame(rows, columns=["params", "tokens", "flops", "flops_budget"])
    names = [f"r{index}" for index in range(10)]
    return frame.assign(run=names, loss_nats=TRUTH.loss(frame["params"], frame["tokens"]), held_out=False)


@pytest.fixture(scope="module")
def valleys(table):
    return fits.isoflop(table, valley="parabola", resamples=20, noise_nats=0.001, check=False)


@pytest.fixture(scope="module")
def law(table):
    return fits.loss_law(table, resamples=0, check=False)


def test_the_caption_of_losses(table):
    def caption(curves=(), of=(), baselines=None):
        return figures._loss(table, dict.fromkeys(curves), of, baselines or {}, {}).caption

    start = "Points: final losses of the 10 runs that have one, by model size N. Thick line: their lower frontier"
    assert caption() == f"{start}."
    assert "training loss along 2 of them, averaged in steps of ln C" in caption(["r1", "r2", "another"])
    assert "training loss along each of them, averaged" in caption([f"r{index}" for index in range(10)])
    assert caption(of=[Line("2"), Line("3")]).endswith("L*(C) that the parametric law gives the best allocation.")
    low, high = float(table["loss_nats"].min()), float(table["loss_nats"].max())
    levels = {"pairs": (low + high) / 2, "perfect": 0.1 * low, "uniform": 9 * high}
    assert caption(baselines=levels).endswith(". Dotted: simple models on the same validation text (pairs).")


def test_the_caption_of_valleys(table, valleys):
    def caption(fit, checked=None):
        return figures._valleys(table, fit, checked, {}).caption

    start = "Each valley is one compute budget C; the curve is a parabola in ln N"
    assert caption(valleys) == (
        f"{start}; diamonds are the minima with 80 (thick) and 95 % (thin) intervals of N*, often narrower than the "
        f"diamond."
    )
    bare = replace(valleys, samples=None)
    assert caption(bare) == f"{start}; diamonds are the minima."
    assert "the curve is Akima interpolation of ln L on ln N; diamonds" in caption(replace(bare, method="akima"))
    assert f"{start} with the minimum found in the sizes within a factor 3 of the lowest run; diamonds" in caption(
        replace(bare, window=3.0)
    )
    lost = replace(bare, dropped=(Dropped("budget 1e+14", "flat"), Dropped("r1", "odd")))
    assert caption(lost).endswith(" Points without a curve: a budget whose minimum was rejected (1).")
    one, two = HeldOut("2", 0.9, (), (budget(1.0, 2.0),)), HeldOut("2", 0.9, (), (budget(1.0, 2.0), budget(1.0, None)))
    assert caption(bare, one).endswith(" Dashed and open: the held-out budget, which no fit saw.")
    assert caption(valleys, two).endswith(
        " Dashed and open: the held-out budgets, which no fit saw, with the 90 % interval alone."
    )


def test_the_captions_of_allocations(table, valleys, law):
    def captions(*of, checked=()):
        return [sketch.caption for sketch in figures._allocation(table, of, checked)]

    rest = (
        "Bands: 80 and 95 % intervals of the fits; dashed beyond the compute that was fitted. Points: minima of the "
        "budgets with their 95 % intervals."
    )
    assert captions(valleys, law) == [
        f"D*/N* beside the rule of 20 (dotted). {rest}",
        f"N* (left) and D* (right), beside 20 tokens per parameter (dotted). {rest}",
    ]
    assert captions(law)[0].endswith("(dotted). Dashed: beyond the compute that was fitted.")
    bare = replace(valleys, samples=None)
    assert captions(bare)[0].endswith("fitted. Points: minima of the budgets.")
    own = HeldOut("2", 0.95, (), (budget(1.0, 2.0),))
    assert captions(bare, checked=[own])[0].endswith("Points: minima of the budgets; open: held out.")
    assert captions(valleys, checked=[own])[0].endswith("with their 95 % intervals; open: held out.")
    other = captions(valleys, checked=[replace(own, level=0.9)])[0]
    assert other.endswith("with their 95 % intervals; open: held out, with 90 %.")
    assert "open" not in captions(valleys, checked=[HeldOut("2", 0.9, (), (budget(1.0, None),))])[0]


def test_the_captions_of_residuals_and_held_out_runs(law):
    (residuals,) = figures._residuals(law, None)
    assert residuals.caption == (
        "What the parametric law leaves unexplained, in per cent of the predicted loss. Shaded: twice the root mean "
        "square of the fitted runs."
    )
    check = HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0),))
    (residuals,) = figures._residuals(law, check)
    assert residuals.caption.endswith("fitted runs. Open: held-out runs.")
    start = "Losses (left) and errors (right) of runs that no fit saw."
    assert figures._held_out(check).caption == f"{start} Bars: the 90 % interval of one new run at that N and D."
    assert figures._held_out(HeldOut("3", 0.9, (held_out_run("a", 2.1, 2.0, math.nan),))).caption == start


def test_the_sentences_between_the_tables(valleys):
    end = "; rows in italics lie beyond the fitted compute: extrapolations."
    assert sections._allocation([valleys]) == f"N*, D* and D*/N* with their intervals{end}"
    assert sections._allocation([replace(valleys, samples=None)]) == f"N*, D* and D*/N*{end}"
    drawn = [sketch.DrawnFigure("loss", "Loss", "", "")]
    assert sections._files(drawn).endswith("its data as CSV with the ids of the runs).")
    assert sections._files([]) == "Beside this page: table.csv (every run), fits.json (every fitted number)."
    assert sections._no_answer(runs(loss_nats=[2.0] * 9 + [None])) == (
        "This table cannot answer the question: of its 10 runs 9 have a measured loss with N, D and C, and no fit "
        "through "
        "them fixes an allocation."
    )


def test_an_allocation_beyond_what_its_own_fit_saw_is_in_italics(table, valleys, law):
    html = tables.allocation(table, [replace(valleys, largest_flops=1e12), law], at=[1e12, 1e13, 1e14])
    rows = [line for line in html.splitlines() if line.startswith("<tr")]
    assert ['class="beyond"' in row.replace("'", '"') for row in rows] == [False, False, False, True, True, True]
    assert [row.rsplit("<td>", 1)[1].split("<")[0] for row in rows] == ["–", "–", "–", "10", "10", "100"]
