"""Runs that share a program learn what they learn alone."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.stand_in import Watcher
from helpers.tiny_runs import final_parameters, rows, run, write_corpus

from lmscale.core.config import MeshConfig, ModelConfig, OptimizerConfig, RunConfig, packable
from lmscale.core.errors import UserError
from lmscale.core.plans import PlannedRun
from lmscale.core.results import Outcome
from lmscale.core.run_folder import CHECKPOINT_FOLDER, LOG_FILE, METRICS_FILE
from lmscale.lm.devices import machine
from lmscale.lm.train import pack
from lmscale.lm.train.loop import Interrupted, train, train_packed
from lmscale.study import launch

pytestmark = pytest.mark.usefixtures("known_peak", "compiled_programs")

MODEL = ModelConfig(width=16, layers=1, heads=2, context=16, residual_dropout=0.1)
STEPS = 20
ROUNDING = 2e-4
"""Relative difference of losses near 5 nats after twenty steps of products summed in another order."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def one(corpus: str, seed: int = 0, peak_lr: float = 0.01, **optimizer: Any) -> RunConfig:
    settings = {"model": MODEL, "validations": 2, "optimizer": {"batch_sequences": 4, **optimizer}}
    return run(corpus, STEPS, seed=seed, peak_lr=peak_lr, **settings)


@pytest.fixture(scope="module")
def configs(corpus: str) -> list[RunConfig]:
    """Three runs that differ in everything in which they may."""
    return [
        one(corpus),
        one(corpus, seed=1, peak_lr=0.003, weight_decay=0.3, warmup_steps=5),
        one(corpus, seed=2, schedule="wsd", cooldown="linear", cooldown_fraction=0.5, final_lr_fraction=0.1),
    ]


@pytest.fixture(scope="module")
def alone(configs: list[RunConfig], tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> list[Path]:
    """Their folders, trained one after the other."""
    folders = [tmp_path_factory.mktemp("alone") for _ in configs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        for config, folder in zip(configs, folders):
            train(config, folder)
    return folders


def places(folder: Path, count: int) -> list[Path]:
    return [folder / str(number) for number in range(count)]


def assert_same(config: RunConfig, folder: Path, expected: Path) -> None:
    """Two folders hold the same run, to rounding."""
    outcome, expected_outcome = (Outcome.read(place) for place in (folder, expected))
    assert outcome is not None and expected_outcome is not None
    assert (outcome.run_id, outcome.state, outcome.tokens) == (expected_outcome.run_id, "finished", config.tokens)
    assert outcome.loss_nats == pytest.approx(expected_outcome.loss_nats, rel=ROUNDING)
    assert outcome.train_loss_nats == pytest.approx(expected_outcome.train_loss_nats, rel=ROUNDING)
    assert [row["step"] for row in rows(folder)] == list(range(1, STEPS + 1))
    for row, other in zip(rows(folder), rows(expected)):
        assert set(row) == set(other)
        assert row["run_id"] == other["run_id"] == config.run_id
        for name in set(row) - {"run_id", "tokens_per_second", "mfu"}:
            assert row[name] == pytest.approx(other[name], rel=10 * ROUNDING if name == "grad_norm" else ROUNDING), name
    theirs = final_parameters(config, expected)
    for name, value in final_parameters(config, folder).items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=2e-3, err_msg=name)


@pytest.mark.long
def test_each_learns_what_it_learns_alone(configs: list[RunConfig], alone: list[Path], tmp_path: Path) -> None:
    outcomes = train_packed(configs, places(tmp_path, 3))
    losses = [outcome.loss_nats for outcome in outcomes]
    assert len(set(losses)) == 3 and None not in losses
    for config, folder, expected, outcome in zip(configs, places(tmp_path, 3), alone, outcomes):
        assert outcome == Outcome.read(folder)
        assert outcome.device.endswith("shared by 3 runs in one program")
        assert_same(config, folder, expected)


@pytest.mark.long
def test_one_that_diverges_harms_no_other(configs: list[RunConfig], alone: list[Path], tmp_path: Path) -> None:
    wild = one(configs[0].data.source, seed=3, peak_lr=1e38)
    folders = places(tmp_path, 3)
    outcomes = train_packed([configs[1], wild, configs[2]], folders)
    assert [outcome.state for outcome in outcomes] == ["finished", "diverged", "finished"]
    assert "not finite at step" in outcomes[1].reason and outcomes[1].tokens < wild.tokens
    assert not (folders[1] / CHECKPOINT_FOLDER).exists()
    for number, place in ((1, 0), (2, 2)):
        assert_same(configs[number], folders[place], alone[number])


@pytest.mark.long
def test_a_run_goes_on_alone_and_the_rest_together(
    configs: list[RunConfig], alone: list[Path], tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    """All stop after 6 steps; the first goes on by itself to 9, then all together from where each is."""
    folders = places(tmp_path, 3)
    stop_after(6)
    with pytest.raises(Interrupted, match="stopped after step 6 of 20; a checkpoint is saved"):
        train_packed(configs, folders)
    assert all((folder / CHECKPOINT_FOLDER / "6").is_dir() for folder in folders)
    stop_after(3)
    with pytest.raises(Interrupted, match="stopped after step 9 of 20"):
        train(configs[0], folders[0])
    stop_after(10**6)
    train_packed(configs, folders)
    for config, folder, expected in zip(configs, folders, alone):
        assert_same(config, folder, expected)


@pytest.mark.long
def test_a_finished_run_is_left_out(configs: list[RunConfig], alone: list[Path], tmp_path: Path) -> None:
    folders = places(tmp_path, 2)
    shutil.copytree(alone[0], folders[0])
    before = (folders[0] / METRICS_FILE).stat().st_mtime_ns
    outcomes = train_packed(configs[:2], folders)
    assert outcomes[0] == Outcome.read(alone[0]) and (folders[0] / METRICS_FILE).stat().st_mtime_ns == before
    assert "shared" not in outcomes[1].device, "the only run that was left"
    assert outcomes[1].loss_nats == pytest.approx(Outcome.read(alone[1]).loss_nats, rel=ROUNDING)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"model": dataclasses.replace(MODEL, width=32)}, r"model\.width"),
        ({"optimizer": OptimizerConfig(peak_lr=0.01, batch_sequences=4, kind="lion")}, r"optimizer\.kind"),
        ({"tokens": 2 * STEPS * 4 * MODEL.context}, "tokens"),
    ],
)
def test_runs_of_two_shapes_are_refused(
    configs: list[RunConfig], tmp_path: Path, changed: dict[str, Any], field: str
) -> None:
    other = dataclasses.replace(configs[1], **changed)
    with pytest.raises(UserError, match=rf"differ in {field}, so .* only seed, peak_lr, .* may differ"):
        train_packed([configs[0], other], places(tmp_path, 2))
    assert not list(tmp_path.iterdir())


def test_two_runs_in_one_folder_and_packs_over_devices_are_refused(configs: list[RunConfig], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 runs are given 1 folders; give each its own"):
        train_packed(configs[:2], [tmp_path, tmp_path])
    wide = [dataclasses.replace(config, mesh=MeshConfig(data=2)) for config in configs[:2]]
    with pytest.raises(UserError, match=r"2 runs in one program on 2 devices .* take a mesh of 1"):
        pack.check_alike(wide)


def test_what_may_differ_is_what_the_config_has() -> None:
    assert set(packable.MAY_DIFFER) <= {field.name for field in dataclasses.fields(RunConfig)}
    assert set(packable.OPTIMIZER_MAY_DIFFER) <= {field.name for field in dataclasses.fields(OptimizerConfig)}


@pytest.mark.long
def test_the_launcher_packs_them(alone: list[Path], configs: list[RunConfig], tmp_path: Path) -> None:
    """Through `lmscale train A B` in a process of its own, whose log holds the end of both."""
    runs = [PlannedRun(config) for config in configs[:2]]
    assert launch.run("packed", runs, tmp_path, Watcher(), workers=1, pack=2).finished == 2
    for config, expected in zip(configs[:2], alone):
        assert_same(config, tmp_path / config.run_id, expected)
    log = (tmp_path / configs[0].run_id / LOG_FILE).read_text()
    assert [line.split(":")[0] for line in log.splitlines()] == ["finished", "finished"]
