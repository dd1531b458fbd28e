"""Buying runs for a law, as `experiments/bench_scalebench.py` does it: on a made task whose truth is known."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmscale.study import laws

SCRIPT = Path(__file__).parents[1] / "experiments" / "bench_scalebench.py"
TRUTH = laws.PARSCALE_2025_PILE


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="loaded")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Small models of parallel streams to buy, and three large ones to predict."""
    sizes, streams = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 4e9, 8), [1.0, 2.0, 4.0, 8.0]))
    small = pd.DataFrame({"num_params": sizes, "parallel_size": streams, "split": "train"})
    large = pd.DataFrame({"num_params": [1e10, 2e10, 4e10], "parallel_size": [1.0, 8.0, 4.0], "split": "test"})
    rows = pd.concat([small, large], ignore_index=True).assign(group="made")
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(rows))
    return rows.assign(loss=TRUTH.loss(rows["num_params"], rows["parallel_size"]) * np.exp(noise))


@pytest.mark.long
def test_chosen_runs_predict_what_they_are_chosen_for(bench: dict[str, Any], table: pd.DataFrame) -> None:
    task = next(task for task in bench["TASKS"] if task.name == "parallel_pile")
    (pool,) = bench["pools"](task, table)
    assert len(pool.cost_n) == 32 and pool.truth_mt.shape == (3, 1)
    buyer = bench["Buyer"](pool, task, "improve", np.random.default_rng(0))
    for share in (0.1, 0.3):
        buyer.spend_up_to(share * pool.cost_n.sum())
        assert len(set(buyer.bought)) == len(buyer.bought)
        assert pool.cost_n[buyer.bought].sum() <= share * pool.cost_n.sum()
    assert bench["r_squared"](pool.truth_mt, buyer.predicted()) > 0.9
    exact = TRUTH.loss(np.array([1e10, 2e10, 4e10]), np.array([1.0, 8.0, 4.0]))
    assert buyer.predicted()[:, 0] == pytest.approx(exact, rel=0.02)


def test_nothing_bought_is_the_worst_score(bench: dict[str, Any], table: pd.DataFrame) -> None:
    task = next(task for task in bench["TASKS"] if task.name == "parallel_pile")
    groups = bench["pools"](task, table.assign(num_params=1e9))
    first, *_ = bench["scores"](task, groups, "random", 0)
    assert first == (-1.0, 0)
    assert bench["r_squared"](np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 1.0


@pytest.mark.long
def test_the_table_is_printed_whichever_way_it_goes(
    bench: dict[str, Any], table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.to_csv(tmp_path / "scalebench_parallel_pile.csv", index=False)
    bench["main"](tmp_path, "parallel_pile", 1)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("random", "D-optimal", "V-optimal", "improve", "MSPE", "of 3;"))
