"""The estimate of least cost where errors on one side cost more than on the other."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import call

from lmscale import fits, read_table
from lmscale.core.errors import UserError
from lmscale.study.fits.results.loss_law import LossLaw

AT = {"params": 1e9, "tokens": 2e10}


@pytest.fixture(scope="module")
def fit() -> LossLaw:
    return fits.loss_law(read_table("chinchilla"), resamples=200, seed=0, check=False)


@pytest.fixture(scope="module", params=[AT, {"params": 1e11, "tokens": 2e12}], ids=["inside", "beyond"])
def inputs(request: pytest.FixtureRequest) -> dict[str, float]:
    return dict(request.param)


@pytest.fixture(scope="module")
def quantiles(fit: LossLaw, inputs: dict[str, float]) -> np.ndarray:
    """Evenly spaced quantiles of one new run, from its central intervals."""
    levels = (np.arange(60) + 0.5) / 60
    return np.sort(np.concatenate([fit.predict(level, **inputs).interval for level in levels]))


@pytest.mark.long
@pytest.mark.parametrize(("over", "under"), [(3.0, 1.0), (1.0, 9.0), (2.0, 2.0)])
def test_no_other_estimate_costs_less(
    fit: LossLaw, quantiles: np.ndarray, over: float, under: float, inputs: dict[str, float]
) -> None:
    """The expected cost is computed by its definition, at every candidate."""
    candidates = np.linspace(quantiles[0], quantiles[-1], 4001)
    error = candidates[:, None] - quantiles
    costs = np.where(error > 0, over * error, -under * error).mean(axis=1)
    cheapest = fits.estimate(fit, over, under, **inputs)
    assert cheapest.loss_nats == pytest.approx(candidates[costs.argmin()], abs=0.01 * (quantiles[-1] - quantiles[0]))
    assert cheapest.prediction == fit.predict(**inputs)


def test_equal_costs_give_the_median_and_dear_ones_keep_away(fit: LossLaw) -> None:
    careful, even, bold = (fits.estimate(fit, over, 1.0, **AT).loss_nats for over in (4.0, 1.0, 0.25))
    assert careful < even < bold
    assert even == pytest.approx(fit.predict(1e-12, **AT).interval[0], abs=1e-12)
    low, high = fit.predict(0.6, **AT).interval
    assert (careful, bold) == pytest.approx((low, high), abs=1e-12)


def test_costs_on_the_command_line(fit: LossLaw, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, answer = tmp_path / "fit.slaw", tmp_path / "answer.json"
    fits.save(fit, file)
    words = ("predict", file, "--params", 1e9, "--tokens", 2e10)
    assert call(*words, "--costs", 3, 1, "--json", answer) == 0
    expected = fits.estimate(fit, 3.0, 1.0, **AT)
    assert json.loads(answer.read_text())["estimate"] == {
        "loss_nats": expected.loss_nats, "share": 0.25, "over": 3.0, "under": 1.0,
    }  # fmt: skip
    assert (
        f"a nat too low 1: {expected.loss_nats:.4f}, below which 25 % of such runs come out" in capsys.readouterr().out
    )
    assert call(*words, "--costs", 3, 0) == 2
    assert "a nat under costs 0: give a positive number" in capsys.readouterr().err
    assert call("predict", file, "--flops", 1e22, "--costs", 3, 1) == 2
    assert "--costs is of the loss of one run" in capsys.readouterr().err


def test_a_fit_without_intervals_has_no_estimate() -> None:
    fit = fits.loss_law(read_table("chinchilla"), resamples=0, check=False)
    with pytest.raises(UserError, match="states no interval of one new run"):
        fits.estimate(fit, 3.0, 1.0, **AT)
