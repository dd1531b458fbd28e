"""A run with experts: resumed bit for bit, packed as alone, its routing in every log, its bias moved by every batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_runs import assert_same, final_parameters, outcome, rows, run, write_corpus

from lmscale.core.config import ModelConfig, RouterConfig, RunConfig
from lmscale.core.results import Outcome
from lmscale.core.run_folder import METRICS_FILE, last_metrics, read_metrics, reported
from lmscale.lm.train.loop import Interrupted, train, train_packed

pytestmark = pytest.mark.usefixtures("known_peak", "compiled_programs")

STEPS = 8
MODEL = ModelConfig(
    width=16, layers=2, heads=2, context=16, experts=4, experts_per_token=2, expert_width=16,
    router=RouterConfig(gate="sigmoid", bias_rate=0.01, z_loss=0.001, capacity=1.25),
)  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"))
    return run(corpus, STEPS, model=MODEL, validations=2, optimizer={"batch_sequences": 4})


@pytest.fixture(scope="module")
def whole(config: RunConfig, tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmscale.lm.devices.machine.matmul_peak", lambda dtype: 1e11)
        patch.setattr("lmscale.lm.train.loop.LOG_ROWS", 2)
        train(config, folder)
    return folder


@pytest.mark.long
def test_an_interrupted_run_ends_as_one_that_was_not(
    config: RunConfig, whole: Path, tmp_path: Path, stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within a row of metrics, whose loads are of both parts."""
    monkeypatch.setattr("lmscale.lm.train.loop.LOG_ROWS", 2)
    stop_after(3)
    with pytest.raises(Interrupted):
        train(config, tmp_path)
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmscale.lm.devices.machine.matmul_peak", lambda dtype: 1e11)
        patch.setattr("lmscale.lm.train.loop.LOG_ROWS", 2)
        train(config, tmp_path)
    assert_same(config, tmp_path, whole)


@pytest.mark.long
def test_what_is_logged(whole: Path) -> None:
    row = rows(whole)[-1]
    by_layer = row["experts"]
    assert by_layer == outcome(whole)["experts"] == Outcome.read(whole).experts  # type: ignore[union-attr]
    assert np.shape(by_layer["load"]) == (2, 4)
    np.testing.assert_allclose(np.sum(by_layer["load"], axis=1), 1, rtol=1e-3)
    assert all(len(values) == 2 for values in by_layer.values())
    assert np.max(by_layer["router_entropy_nats"]) <= np.log(4) + 1e-3 and np.min(by_layer["load_entropy_nats"]) > 0
    figures = {"balance_loss", "router_z_loss", "busiest_expert", "dead_experts", "dropped_share"}
    assert set(reported(row)) == figures == outcome(whole)["reported"].keys()
    assert row["busiest_expert"] == pytest.approx(4 * np.max(by_layer["load"]), rel=1e-3)


def test_a_row_of_many_experts_is_read_and_a_spoiled_one_is_not(whole: Path, tmp_path: Path) -> None:
    text = (whole / METRICS_FILE).read_text("utf-8").splitlines()
    long = text[-1].replace('"load": [[', '"load": [[' + "0.123, " * 2000)
    (tmp_path / METRICS_FILE).write_text("\n".join([*text[:-1], long, ""]), "utf-8")
    newest = last_metrics(tmp_path)
    assert newest is not None and newest["step"] == STEPS and len(newest["experts"]["load"][0]) == 2004
    for spoiled in ('"load": [["x", ', '"load": [[null, ', '"load": [[[1], ', '"load": {}, "rest": [[ '):
        (tmp_path / METRICS_FILE).write_text(text[-1].replace('"load": [[', spoiled) + "\n", "utf-8")
        assert last_metrics(tmp_path) is None and read_metrics(tmp_path) == ([], 1)


def test_the_bias_has_moved_by_whole_steps_of_its_rate(config: RunConfig, whole: Path) -> None:
    bias_LE = final_parameters(config, whole)["router_bias"]
    assert bias_LE.any() and np.abs(bias_LE).max() <= STEPS * 0.01 + 1e-6
    np.testing.assert_allclose(bias_LE / 0.01, np.round(bias_LE / 0.01), atol=1e-3)


@pytest.mark.long
def test_runs_of_one_program_route_as_they_do_alone(config: RunConfig, whole: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmscale.lm.train.loop.LOG_ROWS", 2)
        outcomes = train_packed([config, replace(config, seed=1)], folders)
    alone = outcome(whole)
    assert outcomes[0].loss_nats == pytest.approx(alone["loss_nats"], rel=1e-3)
    assert outcomes[0].experts is not None and outcomes[0].experts != outcomes[1].experts
    np.testing.assert_allclose(outcomes[0].experts["load"], alone["experts"]["load"], atol=0.03)
