"""The curve of losses that a fine-tuned or taught run is compared with."""

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study.fits.loss_curve import LossCurve

TOKENS = np.array([1e5, 2e5, 8e5])
RUNS = pd.DataFrame({"tokens": TOKENS[::-1], "loss_nats": 3 * TOKENS[::-1] ** -0.2})


def test_a_power_law_is_a_straight_line() -> None:
    curve = LossCurve.through(RUNS, "tokens")
    between = np.geomspace(1.01e5, 7.9e5, 9)
    np.testing.assert_allclose(curve.loss(between), 3 * between**-0.2, rtol=1e-12)
    np.testing.assert_allclose(curve.amount(3 * between**-0.2), between, rtol=1e-9)
    assert curve.amounts_n.tolist() == TOKENS.tolist(), "whatever the order of the rows"


def test_beyond_the_ends_the_curve_is_nan() -> None:
    curve = LossCurve.through(RUNS, "tokens")
    shortest, longest = TOKENS[0], TOKENS[-1]
    assert np.isnan(curve.loss([0.99 * shortest, 1.01 * longest])).all()
    assert np.isnan(curve.amount([1.01 * float(curve.loss(shortest)), 0.99 * float(curve.loss(longest))])).all()
    assert not np.isnan(curve.loss([shortest, longest])).any()


@pytest.mark.parametrize("column", ["tokens", "loss_nats"])
def test_a_longer_run_with_no_lower_loss_is_refused(column: str) -> None:
    runs = RUNS.assign(**{column: [RUNS[column][1], RUNS[column][1], RUNS[column][2]]})
    with pytest.raises(UserError, match=r"the loss does not fall with tokens: it is .* give runs of one size"):
        LossCurve.through(runs, "tokens")


def test_one_run_is_no_curve() -> None:
    with pytest.raises(UserError, match="needs two runs of a size or more, not 1"):
        LossCurve.through(RUNS.head(1), "tokens")
