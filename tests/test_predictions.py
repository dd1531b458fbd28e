"""Saved fits and predictions that were edited or damaged, misses and signs of held-out runs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.fits.predict import preregister
from lmscale.study.fits.predict.held_out import HeldOut, HeldOutRun
from lmscale.study.fits.results.common import Prediction
from lmscale.study.fits.uncertainty.simulate import isoflop_design, simulate
from lmscale.study.laws import CHINCHILLA_REFIT


@pytest.fixture(scope="module")
def table() -> Any:
    design = isoflop_design(CHINCHILLA_REFIT, (1e17, 1e18, 1e19))
    return simulate(CHINCHILLA_REFIT, design, 0.002, np.random.default_rng(0))


@pytest.fixture(scope="module")
def law(table: Any) -> Any:
    return fits.loss_law(table, resamples=50, check=False)


@pytest.fixture
def prediction(law: Any, tmp_path: Path) -> Path:
    path = tmp_path / "prediction.json"
    fits.register(law, [{"params": 1e9, "tokens": 2e10}], path)
    return path


def rehashed(path: Path, change: Any) -> None:
    """The file with `change` made to its value, and a hash that fits."""
    value = json.loads(path.read_text())
    change(value)
    value["hash"] = preregister._hash(value)
    path.write_text(json.dumps(value))


DAMAGE = {
    "no predictions": lambda value: value.pop("predictions"),
    "predictions of another type": lambda value: value.update(predictions=["a", 3]),
    "no prediction": lambda value: value.update(predictions=[]),
    "loss as text": lambda value: value["predictions"][0].update(loss_nats="2.5"),
    "loss true": lambda value: value["predictions"][0].update(loss_nats=True),
    "an integer of 400 digits": lambda value: value["predictions"][0].update(loss_nats=10**399),
    "an input of 400 digits": lambda value: value["predictions"][0]["inputs"].update(params=10**399),
    "no inputs": lambda value: value["predictions"][0].pop("inputs"),
    "intervals a list": lambda value: value["predictions"][0].update(intervals=[1, 2]),
    "an interval of three": lambda value: value["predictions"][0]["intervals"].update({"0.95": [1, 2, 3]}),
    "an interval upside down": lambda value: value["predictions"][0]["intervals"].update({"0.95": [3.0, 2.0]}),
    "no 95 % interval": lambda value: value["predictions"][0]["intervals"].pop("0.95"),
    "target a number": lambda value: value.update(target=3),
    "no time": lambda value: value.pop("written"),
    "no code hash": lambda value: value.pop("code_hash"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_prediction_is_one_sentence(prediction: Path, damage: str) -> None:
    rehashed(prediction, DAMAGE[damage])
    with pytest.raises(UserError) as caught:
        fits.check(prediction, loss_nats=2.5)
    assert str(prediction) in str(caught.value) and len(str(caught.value)) < 400


def test_an_edited_prediction_has_no_verdict_and_the_command_fails(
    prediction: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = json.loads(prediction.read_text())
    value["predictions"][0]["intervals"]["0.95"] = [0.1, 9.0]
    prediction.write_text(json.dumps(value))
    assert call("check", prediction, "--loss", "2.5") == 2
    printed = "".join(capsys.readouterr())
    assert "not as it was written" in printed and "HELD" not in printed


@pytest.mark.parametrize("given", ["folder", "list", "text", "deep", "fit"])
def test_what_is_no_prediction_is_one_sentence(law: Any, tmp_path: Path, given: str) -> None:
    path = tmp_path / "p.json"
    content = {"list": "[1]", "text": "a text", "deep": "[" * 100_000, "fit": json.dumps(law.to_json())}
    if given != "folder":
        path.write_text(content[given])
    else:
        path.mkdir()
    with pytest.raises(UserError, match=r"p\.json"):
        fits.check(path, loss_nats=2.5)


@pytest.mark.parametrize("loss", [0.0, -1.0, np.nan, np.inf])
def test_a_measured_loss_is_positive_and_finite(prediction: Path, loss: float) -> None:
    with pytest.raises(UserError, match="positive and finite"):
        fits.check(prediction, loss_nats=loss)


def test_the_interval_that_is_printed_is_the_one_that_judges(prediction: Path) -> None:
    """Outside the 80 % interval and inside the 95 % one: held, by the interval that stands beside the word."""
    value = json.loads(prediction.read_text())["predictions"][0]["intervals"]
    loss = (value["0.8"][1] + value["0.95"][1]) / 2
    verdict = fits.check(prediction, loss_nats=loss)
    (one,) = verdict["verdicts"]
    assert one["held"] and not one["inside"]["0.8"] and verdict["judged_by"] == "0.95"
    head, line = preregister.verdict_lines(verdict)
    assert "Judged by the 95 % interval of one new run" in head
    assert line.startswith("  HELD") and f"{value['0.95'][1]:.4f}] (95 %)" in line and "(80 %)" not in line
    assert one["error"] == pytest.approx(loss / one["predicted"] - 1)


FIT_DAMAGE = {
    "parameters of text": lambda value: value["parameters"].update({next(iter(value["parameters"])): "x"}),
    "a parameter of 400 digits": lambda value: value["parameters"].update({next(iter(value["parameters"])): 10**399}),
    "no parameters": lambda value: value.pop("parameters"),
    "parameters a list": lambda value: value.update(parameters=[1, 2]),
    "compute model a text": lambda value: value.update(compute_model="6ND"),
    "allocations a number": lambda value: value.update(allocations=3),
    "status of texts": lambda value: value.update(status=["ok"]),
    "objective a list": lambda value: value.update(objective=[1]),
    "dropped null": lambda value: value.update(dropped=None),
}


@pytest.mark.long
@pytest.mark.parametrize("damage", FIT_DAMAGE)
@pytest.mark.parametrize("approach", ["1", "2", "3"])
def test_a_damaged_fit_is_one_sentence(table: Any, law: Any, approach: str, damage: str) -> None:
    fit = law if approach == "3" else fits.fit(table, approach, resamples=0, check=False)[0]
    value = json.loads(json.dumps(fit.to_json()))
    assert type(fit).from_json(value).to_json() is not None
    FIT_DAMAGE[damage](value)
    with pytest.raises(UserError, match="saved fit") as caught:
        type(fit).from_json(value)
    assert len(str(caught.value)) < 400


def checked(errors: list[float], inside: list[bool]) -> HeldOut:
    """Held-out runs with these relative errors, measured minus predicted, inside their intervals or not."""
    runs = []
    for index, (error, within) in enumerate(zip(errors, inside)):
        measured = 3.0 * (1 + error)
        ends = (measured - 0.1, measured + 0.1) if within else (measured + 0.1, measured + 0.2)
        at = {"params": 1e8, "tokens": 2e9}
        runs.append(HeldOutRun(f"run {index}", Prediction(at, 3.0, (2.9, 3.1), ends, 0.95), measured))
    return HeldOut("3", 0.95, tuple(runs))


def test_runs_of_another_stage_are_no_measurement_of_a_prediction(
    prediction: Path, law: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fine-tuned run of the same N and D is neither averaged with the run that was predicted nor held out from it."""
    rows = pd.DataFrame(
        {
            "run": ["a", "b"],
            "params": [1e9, 1e9],
            "tokens": [2e10, 2e10],
            "loss_nats": [float(law.law.loss(1e9, 2e10)), 1.0],
            "stage": ["pretrain", "fine-tune"],
            "held_out": [True, True],
        }
    )
    verdicts = [preregister.check(prediction, table=rows, stage=stage)["verdicts"][0] for stage in (None, "fine-tune")]
    assert [(one["runs"], one["held"]) for one in verdicts] == [(["a"], True), (["b"], False)]
    path = prediction.with_name("runs.csv")
    rows.to_csv(path, index=False)
    call("check", prediction, "--table", path, "--stage", "fine-tune")
    assert "FAILED" in capsys.readouterr().out
    assert [run.run for run in fits.held_out_check(law, rows).runs] == ["a"]
    assert [run.run for run in fits.held_out_check(law, rows, stage="fine-tune").runs] == ["b"]
    with pytest.raises(UserError, match="stage = 'distil': the table holds"):
        fits.held_out_check(law, rows, stage="distil")


def test_the_mean_error_is_absolute_and_the_bias_is_signed() -> None:
    check = checked([0.02, -0.01, 0.005], [True] * 3)
    assert check.mean_absolute_error == pytest.approx(0.035 / 3)
    assert check.bias == pytest.approx(0.015 / 3)
    assert "mean absolute error 1.17 %, bias +0.50 %, largest 2.00 %" in str(check)
    assert "measured minus predicted" in str(check)
    assert check.to_json()["mean_absolute_error"] == pytest.approx(0.035 / 3)


@pytest.mark.parametrize(("inside", "runs", "missed"), [(4, 7, True), (5, 7, True), (6, 7, False), (7, 7, False),
                                                        (0, 1, False), (0, 2, True), (17, 20, False),
                                                        (16, 20, True), (1880, 2000, True)])  # fmt: skip
def test_so_few_inside_are_a_miss_where_the_binomial_says_so(inside: int, runs: int, missed: bool) -> None:
    from scipy.stats import binom

    check = checked([0.01] * runs, [True] * inside + [False] * (runs - inside))
    assert check.chance == pytest.approx(binom.cdf(inside, runs, 0.95))
    assert check.missed == missed == (check.chance < 0.05)
    assert ("a miss" in str(check)) == missed and ("a miss" in check.counted_inside()) == missed


def test_figures_and_tables_have_one_sign() -> None:
    from matplotlib.figure import Figure

    from lmscale.study import plots
    from lmscale.study.report import tables

    check = checked([0.02, -0.01], [True, True])
    ax = Figure().subplots()
    plots.prediction_errors(ax, check)
    drawn = [float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "o"]
    assert drawn == pytest.approx([100 * run.error for run in check.runs])
    import pandas as pd

    html = tables.held_out([check], pd.DataFrame({"run": ["run 0", "run 1"], "flops": [1e18, 1e18]}))
    assert "+2.00" in html and "meas. − pred." in html


def at_the_point(**columns: Any) -> pd.DataFrame:
    """Runs at the predicted point, with the loss 2.6 unless another is given."""
    rows = pd.DataFrame({"loss_nats": 2.6, **columns} if "loss_nats" not in columns else columns)
    return rows.assign(params=1e9, tokens=2e10, run=[f"r{place}" for place in range(len(rows))])


@pytest.mark.parametrize(
    ("columns", "runs"),
    [
        ({"state": ["crashed", "finished"]}, ["r1"]),
        ({"exit_code": [0, 137]}, ["r0"]),
        ({"loss_nats": [math.inf, 2.6]}, ["r1"]),
        ({"loss_nats": [-1.0, 2.6]}, ["r1"]),
        ({"loss_nats": [2.9, 2.6, 2.8], "peak_lr": [0.1, 0.01, 0.001]}, ["r1"]),
    ],
)
def test_a_prediction_is_held_against_results_alone(
    prediction: Path, law: Any, columns: dict[str, list[Any]], runs: list[str]
) -> None:
    rows = at_the_point(**columns)
    (verdict,) = preregister.check(prediction, table=rows)["verdicts"]
    assert verdict["runs"] == runs and verdict["measured"] == pytest.approx(2.6)
    held_out = fits.held_out_check(law, rows.assign(held_out=True))
    assert [run.run for run in held_out.runs] == runs
    left_out = {one["run"] for one in held_out.to_json()["dropped"]}
    assert left_out == set(rows["run"]) - set(runs) and all(name in str(held_out) for name in left_out)


def test_a_run_is_measured_once(prediction: Path) -> None:
    rows = at_the_point(loss_nats=[2.51234, 2.51234, 2.58766])
    rows["run"] = ["a", "a", "b"]
    (verdict,) = preregister.check(prediction, table=rows)["verdicts"]
    assert verdict["runs"] == ["a", "b"] and verdict["measured"] == pytest.approx(2.55)


def test_a_point_without_a_result_has_no_verdict(prediction: Path) -> None:
    with pytest.raises(UserError, match=r"no finished run of the table lies within 2%.*finished run: crashed"):
        preregister.check(prediction, table=at_the_point(state=["crashed"]))
    near = at_the_point(loss_nats=[2.6]).assign(params=1e9 * 1.021)
    with pytest.raises(UserError, match="no finished run of the table lies within 2%"):
        preregister.check(prediction, table=near)
    assert preregister.check(prediction, table=near.assign(params=1e9 * 1.019))["verdicts"]
