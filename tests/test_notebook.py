"""A fit shows itself in a notebook: warnings, the table of allocations with intervals, and its text, escaped."""

import re
from dataclasses import replace

import pytest
from helpers.simulated import write_sweep

from lmscale.core.numerals import compact
from lmscale.study import fits
from lmscale.study.fits.results.common import Status


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fits.fit(write_sweep(tmp_path_factory.mktemp("sweep"), points=4), resamples=20, check=False)


def test_every_kind_of_fit_shows_its_allocations_with_intervals(results):
    assert [fit.approach for fit in results] == ["1", "2", "3"]
    for fit in results:
        shown = fit._repr_html_()
        body = re.findall(r"<tr>(.*?)</tr>", shown)[1:]
        for row, line in zip(fit.allocations(), body, strict=True):
            low, high = row["intervals"]["0.95"]["params"]
            cells = re.findall("<td>(.*?)</td>", line)
            assert cells[1:3] == [compact(row["params"]), f"{compact(low)} – {compact(high)}"]
            assert cells[-1] == f"{row['loss_nats']:.4f}"


def test_a_fit_without_draws_has_no_interval_and_a_warning_is_text(results):
    law = replace(results[2], samples=None, status=(Status("odd", "a < b & <script>", "warning"),))
    shown = law._repr_html_()
    assert "<td>–</td>" in shown and "<li>a &lt; b &amp; &lt;script&gt;</li>" in shown and "<script>" not in shown
