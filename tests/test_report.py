"""The page answers the question with the fits' numbers, keeps every run in sight, and stands alone."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from helpers.simulated import TRUTH, write_sweep

from lmscale.core.errors import UserError
from lmscale.study import fits, report
from lmscale.study.report import answer, figures
from lmscale.study.report.source import fit_and_check
from lmscale.study.tables import read_table


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"), points=20)


@pytest.fixture(scope="module")
def page(sweep):
    path = report.of_sweep(sweep, resamples=200)
    return path.read_text(encoding="utf-8")


@pytest.mark.long
def test_baselines_come_in_bits_and_are_drawn_in_nats_where_all_tokens_are_alike(sweep, tmp_path):
    bits = {"bigram": 3.0}
    path = report.of_sweep(sweep, tmp_path, resamples=20, baselines=bits)
    text = path.read_text("utf-8")
    assert ">bigram</text>" in text and "Dotted: simple models on the same validation text (bigram)." in text
    runs = read_table(sweep)
    assert figures._in_nats(runs, bits)["bigram"] == pytest.approx(3 * np.log(2))
    runs.loc[runs.index[0], "bits_per_byte"] *= 1.1
    assert figures._in_nats(runs, bits) == {}


class Outline(HTMLParser):
    """Ids, tags, attributes and visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.tags, self.names, self.words, self.inside = [], [], set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.names |= {name for name, _ in attrs}
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.mark.long
def test_the_page_stands_alone(page):
    outline = Outline(page)
    assert "img" not in outline.tags and "link" not in outline.tags
    assert outline.tags.count("svg") == 6 and outline.tags.count("script") == 3
    assert not [name for name in outline.names if name.startswith("on")], "no handler stands in an attribute"
    html = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#)', html), "nothing is loaded from elsewhere"
    assert len(outline.ids) == len(set(outline.ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', html):
        assert target in outline.ids


@pytest.mark.long
def test_colours_follow_the_reader_s_theme(page):
    assert "prefers-color-scheme:dark" in page
    svg = page[page.index("<svg") : page.rindex("</svg>")]
    assert "var(--ink-text)" in svg and not re.search(r"#(1c1e21|ffffff|0668b0|c4500a)", svg, re.IGNORECASE)


def test_sections_come_in_the_order_a_reader_asks(page):
    heads = re.findall("<h2[^>]*>([^<]+)<", page)
    titles = [
        "Was the prediction right?",
        "At any budget",
        "Figures",
        "Compute-optimal allocation",
        "Runs",
        "What was left out, and why",
    ]
    titles += [
        "Approach 2, IsoFLOP minima: the fit and its checks",
        "Approach 3, parametric law: the fit and its checks",
    ]
    assert [head for head in heads if head != "Before using these numbers"] == [
        *titles,
        "Curves forecast from their first half",
        "Where the time went",
        "Conventions",
        "Checklist",
        "How to reproduce",
    ]
    assert page.index("is the answer 20 tokens") < page.index("FLOPs train ") < page.index("Over 19 fitted runs")
    assert page.index("Over 19 fitted runs") < page.index('<nav class="contents"') < page.index("<h2")
    assert (
        page.index("Was the prediction right?</h2>")
        < page.index('data-chart="held_out"')
        < page.index("At any budget</h2>")
    )


def test_the_answer_states_the_fits_numbers_with_intervals_and_conventions(page, sweep):
    text = Outline(page).text
    for fit in fits.fit(read_table(sweep), ("2", "3"), resamples=200, check=False):
        low, high = fit.interval("a", 0.95)
        assert f"{fit.exponents()['params']:.3f} (95 % interval {low:.3f} to {high:.3f})" in text
        ratio, low, high = answer.ratio(fit, 3e12)
        assert f"{ratio:.3g} (95 % interval {low:.3g} to {high:.3g}; 20 lies below it)" in text
        true = float(TRUTH.optimum(3e12, fit.compute).tokens_per_param)
        assert low / 1.05 < true < high * 1.05
    assert "a token is one byte" in text and "need not be 20" in text
    assert "embeddings and output head included" in text and "C/6ND = " in text


def test_a_run_that_never_finished_stays_in_sight_with_its_reason(page, sweep):
    table, text = read_table(sweep), Outline(page).text
    missing, diverged = (table["run"][table["state"] == state].item() for state in ("missing", "diverged"))
    assert "28 runs: 26 finished" in text
    assert f"missing: no outcome was written – 1 run: {missing}" in text
    assert f"diverged: the loss became NaN at step 212 – 1 run: {diverged}" in text
    row = next(line for line in page.splitlines() if "<tr" in line and f">{missing}<" in line)
    assert "no: missing" in row and "–" in row


def test_the_held_out_verdict_is_the_check_s(page, sweep):
    table, text = read_table(sweep), Outline(page).text
    isoflop, law = fits.fit(table, ("2", "3"), resamples=200, check=False)
    (budget,) = fits.held_out_check(isoflop, table).budgets
    off = abs(100 * (budget.predicted_params / budget.measured_params - 1))
    assert f"so the prediction was {off:.1f} % too" in text
    runs = fits.held_out_check(law, table).runs
    assert f"{sum(run.inside for run in runs)} of 7 measured losses lie inside" in text
    assert all(f"{run.measured:.4f}" in text for run in runs)


def test_the_folder_holds_every_number(page, sweep):
    folder = sweep / "report"
    stated = json.loads((folder / "fits.json").read_text())
    assert [fit["approach"] for fit in stated["fits"]] == ["2", "3"] and len(stated["held_out"]) == 2
    assert len(pd.read_csv(folder / "table.csv")) == 28
    names = {"loss", "valleys", "tokens_per_param", "allocation", "residuals", "held_out"}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{n}.{k}" for n in names for k in ("svg", "png", "csv")
    }


def test_the_versions_that_the_runs_were_trained_with_are_stated(page):
    assert "trained with</dt><dd>jax 0.11.2, lmscale 0.1.0, python 3.12.4</dd>" in page


def test_no_path_of_this_machine_is_printed(page, sweep):
    assert str(sweep.parent) not in page and f"lmscale report {sweep.name}" in page


@pytest.mark.long
def test_a_published_table_needs_no_metrics_and_no_held_out_runs(tmp_path):
    path = report.of_table("chinchilla", tmp_path, approaches=("3",), resamples=50, title="<Chinchilla> & co")
    text = path.read_text(encoding="utf-8")
    assert "&lt;Chinchilla&gt; &amp; co" in text and "<Chinchilla>" not in text
    assert "0.514 (95 % interval" in text and "240 fitted runs" in text
    assert "left out by Besiroglu 2024" in text and "prediction right" not in text


def small(count):
    params = np.geomspace(1e4, 1e6, max(count, 1))[:count]
    return pd.DataFrame({"run": [f"r{i}" for i in range(count)], "params": params, "tokens": 20 * params,
                         "flops": 120 * params**2, "loss_nats": TRUTH.loss(params, 20 * params)})  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_table_too_small_to_fit_gets_a_page_that_says_so(tmp_path, count):
    table = small(count)
    results, checked, notes = fit_and_check(table, resamples=20)
    path = report.write(table, results, tmp_path, title="Small", held_out=checked, notes=notes)
    text = Outline(path.read_text(encoding="utf-8")).text
    assert "cannot answer the question" in text and "Nothing could be fitted" in text
    assert all(run in text for run in table["run"])


@pytest.mark.long
def test_a_law_that_cannot_be_identified_gives_no_answer(tmp_path):
    results, _, notes = fit_and_check(small(12), ("3",), resamples=20)
    path = report.write(small(12), results, tmp_path, title="A line", notes=notes)
    text = Outline(path.read_text(encoding="utf-8")).text
    assert "cannot answer the question" in text and "all runs lie on the line D = 20 N" in text
    assert "Compute-optimal allocation" not in text


def test_a_folder_without_a_plan_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no plan"):
        report.of_sweep(tmp_path)
