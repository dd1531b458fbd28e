"""`lmscale report --law`: the page about a law of any inputs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call

from lmscale import laws
from lmscale.core.errors import UserError
from lmscale.study import report

CLARK = laws.CLARK_2022_SBASE


def write_runs(path: Path) -> Path:
    """Runs of a law of experts, without tokens; the largest size is held out."""
    params, experts = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 6), [1.0, 4.0, 16.0, 64.0, 256.0]))
    loss = CLARK.loss(params, experts) * np.exp(2e-3 * np.random.default_rng(0).standard_normal(len(params)))
    table = pd.DataFrame({"run": range(len(params)), "dense": params, "experts": experts, "loss_nats": loss})
    table.assign(held_out=table["dense"] > 9e8).to_csv(path, index=False)
    return path


@pytest.mark.long
def test_a_law_without_tokens_has_a_page(tmp_path: Path) -> None:
    table, out = write_runs(tmp_path / "runs.csv"), tmp_path / "page"
    words = ("--law", "clark", "--columns", "params=dense", "--resamples", 30, "--output", out)
    assert call("report", table, *words) == 0
    page = (out / "report.html").read_text()
    assert "How does the loss depend on params and experts, by the law &#x27;clark&#x27;?" in page
    assert "log10 L = a log10 N" in page and "It misses the fitted runs by" in page and "E_max" in page
    assert "held-out run" in page and "experts per layer" in page
    (fit,) = json.loads((out / "fits.json").read_text())["fits"]
    assert fit["law"] == "clark" and fit["parameters"]["a"] == pytest.approx(CLARK.a, abs=0.01)
    assert (out / "figures" / "residuals.svg").is_file()


@pytest.mark.long
def test_a_law_with_an_optimum_at_a_given_input_states_it(tmp_path: Path) -> None:
    law = laws.Precision(1.7, 400.0, 600.0, 0.34, 0.3, 2.0)
    grid = np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5), [3.0, 4.0, 8.0, 16.0])
    params, tokens, bits = (x.ravel() for x in grid)
    table = pd.DataFrame({"params": params, "tokens": tokens, "weight_bits": bits})
    table["loss_nats"] = law.loss(params, tokens, bits)
    page = report.of_table(
        table.to_csv(tmp_path / "runs.csv", index=False) or tmp_path / "runs.csv", tmp_path / "page",
        law="precision", given={"weight_bits": 4.0}, resamples=0,
    ).read_text()  # fmt: skip
    assert "with weight_bits = 4" in page or "weight_bits = 4" in page
    best = law.optimum(6e20, weight_bits=4.0)
    assert f"N* = {best.params / 1e9:.3g}"[:8] in page


@pytest.mark.long
def test_chinchillas_page_takes_another_law_of_n_and_d(tmp_path: Path) -> None:
    page = report.of_table(
        "chinchilla", tmp_path / "page", law="outer-exponent", where="flops > 1e20", resamples=0
    ).read_text()
    assert "L = E + (A/N^alpha + B/D^beta)^gamma" in page and "Compute-optimal allocation" in page


def test_what_a_report_cannot_fit_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_runs(tmp_path / "runs.csv")
    assert call("report", table, "--law", "clarke", "--output", tmp_path / "page") == 2
    assert "did you mean 'clark'" in capsys.readouterr().err
    with pytest.raises(UserError, match="needs a column 'streams'"):
        report.of_table(table, tmp_path / "page", law="parscale", columns="params=dense")
