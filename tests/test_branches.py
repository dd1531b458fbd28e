"""A branch that begins from its trunk's checkpoint ends as one that was trained from its first step, bit for bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.stand_in import Watcher

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.lm.train import checkpoint_content
from lmscale.lm.train.loop import train
from lmscale.study.launch.branches import source, with_starts
from lmscale.study.launch.pool import Pool
from lmscale.study.launch.slot import Slot

BATCH = 4 * 16
TIMED = ("seconds", "paused_seconds", "startup_seconds", "tokens_per_second", "mfu", "matmul_peak_flops_per_second")


@pytest.fixture
def family(tmp_path: Path) -> list[PlannedRun]:
    """A trunk of 40 steps and branches of 20 and 30, which leave it after 16 and 24."""
    (tmp_path / "text.txt").write_text("\n\n".join(f"{n} green bottles on wall {n % 7}" for n in range(2000)))
    trunk = RunConfig(
        model=ModelConfig(width=16, layers=1, heads=1, context=16, residual_dropout=0.1),
        optimizer=OptimizerConfig(
            peak_lr=0.01, batch_sequences=4, schedule="wsd", warmup_steps=4, cooldown_fraction=0.2
        ),
        data=DataConfig(source=str(tmp_path / "text.txt"), max_epochs=100),
        tokens=40 * BATCH,
        validation_tokens=512,
        validations=1,
        checkpoint_seconds=1e6,
        keep_checkpoint=False,
    )
    runs = [PlannedRun(trunk)]
    for steps in (20, 30):
        config = replace(trunk, tokens=steps * BATCH)
        runs.append(PlannedRun(config, trunk=trunk.run_id, branch_step=steps - config.cooldown_steps))
    return runs


def test_a_trunk_keeps_what_its_branches_continue_from(family: list[PlannedRun]) -> None:
    started = with_starts(family)
    trunk = family[0].config.run_id
    assert [run.config.kept_steps for run in started] == [(16, 24), (), ()]
    assert [run.config.continue_from for run in started] == [None, f"{trunk}@16", f"{trunk}@24"]
    assert [run.config.run_id for run in started] == [run.config.run_id for run in family]


def trained(config: RunConfig, folder: Path) -> tuple[dict[str, Any], dict[str, int], list[Any]]:
    """Outcome but for times, sums of the bits of the whole last state, steps of the metrics."""
    outcome = train(replace(config, keep_checkpoint=True), folder)
    facts = checkpoint_content.read_facts(folder / "checkpoints" / str(config.steps))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {**vars(outcome), **dict.fromkeys(TIMED)}, facts["bits"], [json.loads(line)["step"] for line in lines]


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
def test_a_branch_equals_an_uninterrupted_run_bit_for_bit(
    family: list[PlannedRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk, branch, _ = with_starts(family)
    folder = tmp_path / "runs"
    train(trunk.config, folder / trunk.config.run_id)
    checkpoint_folder = folder / trunk.config.run_id / "checkpoints"
    assert sorted(path.name for path in checkpoint_folder.iterdir()) == ["16", "24"], (
        "all others went with the end of the run"
    )
    capsys.readouterr()
    continued = trained(branch.config, folder / branch.config.run_id)
    assert "going on from step 16 of 20" in capsys.readouterr().out
    alone = trained(replace(branch.config, continue_from=None), tmp_path / "alone")
    assert continued == alone, "losses, counts, and every parameter and moment"
    assert continued[2] == list(range(1, 21)), "the trunk's rows, then its own"
    assert sorted(path.name for path in checkpoint_folder.iterdir()) == ["16", "24"], (
        "a trunk is read, and never written to"
    )


@pytest.mark.long
@pytest.mark.usefixtures("known_peak", "compiled_programs")
@pytest.mark.parametrize("facts", [None, "", "\0\0", "null", '{"run_id": "another"}'])
def test_a_branch_without_its_trunks_checkpoint_starts_with_its_first_step_and_ends_the_same(
    family: list[PlannedRun], tmp_path: Path, facts: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    _, branch, _ = with_starts(family)
    folder = tmp_path / "runs"
    if facts is not None:
        checkpoint(branch, folder)
        (source(branch, folder) / "facts" / "metadata").write_text(facts)
    continued = trained(branch.config, folder / branch.config.run_id)
    assert "starting with the first step: " in capsys.readouterr().out
    assert continued == trained(replace(branch.config, continue_from=None), tmp_path / "alone")


def checkpoint(run: PlannedRun, folder: Path) -> None:
    """A folder as the trunk leaves it at the branch's step."""
    (source(run, folder) / "facts").mkdir(parents=True)
    (folder / run.trunk / "config.json").write_text("{}")


def test_a_branch_waits_for_its_trunk_and_no_longer(family: list[PlannedRun], tmp_path: Path) -> None:
    write_plan(tmp_path, "trunks", family)
    pool = Pool(family, tmp_path, Watcher(), [Slot("one")])
    trunk, early, late = (next(work for work in pool.waiting if work.run is run) for run in family)
    assert [pool._waits_for_trunk(work) for work in (trunk, early, late)] == [False, True, True]
    checkpoint(early.run, tmp_path)
    assert [pool._waits_for_trunk(work) for work in (trunk, early, late)] == [False, False, True]
    pool.failed[trunk.run_id] = "gone"
    assert not pool._waits_for_trunk(late), "then it begins with its own first step"
    alone = Pool([late.run], tmp_path, Watcher(), [Slot("one")])
    assert not alone._waits_for_trunk(alone.waiting[0]), "nobody here will train the trunk"
