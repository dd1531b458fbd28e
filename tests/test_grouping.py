"""Values within about a per cent are one; chains of close values do not drift."""

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study import fits
from lmscale.study.emergence.curves import curves_along
from lmscale.study.emergence.scores import canonical
from lmscale.study.fits import learning_rates
from lmscale.study.fits.predict.compare import split
from lmscale.study.fits.runs import usable
from lmscale.study.grouping import group_count, group_index, group_values, in_largest_group, point_index
from lmscale.study.laws import Chinchilla

LAW = Chinchilla(E=1.8, A=480.0, B=2000.0, alpha=0.35, beta=0.37)
BUDGETS = (1e18, 3e18, 1e19, 3e19)


def valleys(jitter: float = 0.0, noise: float = 1e-3) -> pd.DataFrame:
    """Four budgets of seven sizes; each row states its budget up to a relative `jitter`."""
    rng = np.random.default_rng(5)
    rows = []
    for flops in BUDGETS:
        for factor in np.geomspace(0.25, 4, 7):
            params = float(LAW.optimum(flops).params) * factor
            tokens = flops / (6 * params)
            loss = float(LAW.loss(params, tokens)) * np.exp(noise * rng.standard_normal())
            rows.append({"params": params, "tokens": tokens, "flops": flops, "loss_nats": loss, "flops_budget": flops})
    table = pd.DataFrame(rows)
    table["flops_budget"] *= 1 + jitter * np.linspace(-1, 1, len(table))[rng.permutation(len(table))]
    return table


def test_groups_are_numbered_upwards_and_missing_values_have_none() -> None:
    index = group_index([3e18, 1e18, np.nextafter(1e18, 2e18), np.nan, 1.009e18, 0.0, -1.0, np.inf])
    assert index.tolist() == [1, 0, 0, -1, 0, -1, -1, -1]
    assert group_count([]) == 0 and group_values([]).tolist() == []
    assert np.isnan(group_values([np.nan])).all()


def test_the_edge_of_a_group() -> None:
    assert group_count([100.0, 101.0]) == 1
    assert group_count([100.0, 101.2]) == 2
    assert group_count([100.0, 102.0]) == 2


def test_a_chain_of_close_values_does_not_drift_into_one_group() -> None:
    chain = 1e18 * 1.008 ** np.arange(50)
    index = group_index(chain)
    for group in range(group_count(chain)):
        members = chain[index == group]
        assert members.max() / members.min() <= 1.01**2 * (1 + 1e-8)
    assert group_count(chain) == 17  # three steps of 0.8 % in every group


def test_a_group_stands_for_one_of_its_values() -> None:
    values = [1.003e18, 1e18, 0.997e18, 5e18]
    assert group_values(values).tolist() == [1e18, 1e18, 1e18, 5e18]
    assert in_largest_group(values).tolist() == [False, False, False, True]


def test_points_agree_in_every_column() -> None:
    columns = {"params": [1e8, 1.002e8, 1e8, 1e8], "tokens": [2e9, 2e9, 4e9, np.nan], "seed": [100, 100, 100, 101]}
    points = point_index(columns)
    assert points[0] == points[1] and len(set(points.tolist())) == 3
    assert len(set(point_index({"seed": [100, 101]}).tolist())) == 2  # a seed is no scale
    assert len(set(point_index({"source": ["a", None, None]}).tolist())) == 2


@pytest.mark.parametrize("jitter", [1e-16, 5e-4, 4e-3])
def test_jittered_budgets_give_the_same_valleys(jitter: float) -> None:
    exact, jittered = (fits.isoflop(valleys(j), resamples=50, check=False) for j in (0.0, jitter))
    assert [minimum.n_runs for minimum in jittered.minima] == [7] * 4
    assert jittered.a == pytest.approx(exact.a, abs=2e-3)


def test_flops_that_nearly_agree_are_budgets_and_a_cloud_of_runs_is_none() -> None:
    table = valleys().drop(columns="flops_budget")
    table["flops"] *= 1 + 3e-3 * np.linspace(-1, 1, len(table))
    assert len(fits.isoflop(table, resamples=0, check=False).minima) == 4
    rng = np.random.default_rng(0)
    cloud = table.assign(flops=np.exp(rng.uniform(np.log(1e18), np.log(1e19), len(table))))
    with pytest.raises(UserError, match="no column flops_budget above 0"):
        fits.isoflop(cloud, resamples=0, check=False)


def test_the_largest_budget_is_predicted_whole() -> None:
    _, unseen, rule = split(valleys(4e-3))
    assert len(unseen) == 7 and "the largest budget, 3" in rule


def test_held_out_budgets_are_counted_by_groups() -> None:
    table = valleys(4e-3)
    table["held_out"] = table["flops_budget"] > 2e19
    fit = fits.isoflop(table, resamples=20, check=False)
    checked = fits.held_out_check(fit, table)
    assert len(checked.budgets) == 1 and checked.budgets[0].measured_params is not None


def test_a_ladder_of_jittered_budgets_has_one_point_per_budget() -> None:
    table = valleys(4e-3)
    ratio = fits.compute_multiplier(table, table, resamples=20)
    assert ratio.multiplier.multiplier == pytest.approx(1.0)
    with pytest.raises(UserError, match="ladder has 2 budgets"):
        fits.compute_multiplier(table[table["flops_budget"] < 5e18], table)


def test_budgets_as_strata_are_grouped_and_seeds_are_not() -> None:
    from lmscale.study.fits.uncertainty.bootstrap import labels

    runs = usable(valleys(4e-3).assign(seed=np.arange(100.0, 128.0)))
    assert len(set(labels(runs, "budget"))) == 4
    assert len(set(labels(runs, "seed"))) == 28


def test_rates_and_points_that_nearly_agree_are_one_cell() -> None:
    rows = pd.DataFrame({"params": [1e8, 1.001e8, 0.999e8], "tokens": 2e9, "lr": [1e-3, 2e-3, 4e-3],
                         "loss_nats": [3.1, 3.0, 3.2]})  # fmt: skip
    (cell,) = learning_rates.cells(rows, "loss_nats")
    assert cell.bracketed and len(cell.rows) == 3


def scores(scales: list[float]) -> pd.DataFrame:
    rows = [{"task": "t", "metric": "m", "kind": "hard", "flops": x, "score": 0.5, "n": 100, "chance": 0.25}
            for x in scales]  # fmt: skip
    return canonical(pd.DataFrame(rows))


def test_scales_of_an_ability_are_counted_by_groups() -> None:
    """Twelve exact FLOPs within three budgets are three scales, too few for a shape."""
    jittered = [flops * (1 + 2e-4 * k) for flops in (2e10, 6e10, 1.8e11) for k in range(4)]
    with pytest.raises(UserError, match="the most is 3"):
        curves_along(scores(jittered), "flops")
    (curve,), _, _ = curves_along(scores([1e10, 2e10, 4e10, 8e10, 16e10]), "flops")
    assert len(curve.x_S) == 5
