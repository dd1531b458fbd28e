"""A branch that begins from its trunk's checkpoint ends as one that was trained from its first step, bit for bit."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.stand_in import Watcher

from lmscale.core.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig
from lmscale.core.plans import PlannedRun, write_plan
from lmscale.lm.devices import machine
from lmscale.study.launch import branches
from lmscale.study.launch.branches import begin, source, with_kept_steps
from lmscale.study.launch.pool import Pool
from lmscale.study.launch.slot import Slot

BATCH = 4 * 16
TIMED = ("seconds", "startup_seconds", "tokens_per_second", "mfu", "matmul_peak_flops_per_second")


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


@pytest.fixture
def compiled_programs(cache: Path) -> Iterator[Path]:
    """The compilation cache that `machine.set_up` gives a run: one program serves trunk and branches."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    folder, least = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    yield cache / "xla"
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    compilation_cache.reset_cache()


def test_a_trunk_is_told_where_its_branches_leave(family: list[PlannedRun]) -> None:
    told = with_kept_steps(family)
    assert [run.config.kept_steps for run in told] == [(16, 24), (), ()]
    assert [run.config.run_id for run in told] == [run.config.run_id for run in family]


def test_a_branch_equals_an_uninterrupted_run_bit_for_bit(
    family: list[PlannedRun], tmp_path: Path, compiled_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmscale.lm.train.loop import train

    monkeypatch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
    trunk, branch, _ = with_kept_steps(family)
    folder = tmp_path / "runs"
    train(trunk.config, folder / trunk.config.run_id)
    kept = folder / trunk.config.run_id / "checkpoints"
    assert sorted(path.name for path in kept.iterdir()) == ["16", "24"], "all others went with the end of the run"
    begin(branch, folder)
    ends = []
    for place in (folder / branch.config.run_id, tmp_path / "alone"):
        outcome = train(replace(branch.config, keep_checkpoint=True), place)
        facts = json.loads((place / "checkpoints" / "20" / branches.FACTS).read_text())
        ends.append(({**vars(outcome), **dict.fromkeys(TIMED)}, facts["bits"], facts["run_id"]))
    assert ends[0] == ends[1], "losses, counts, and every parameter and moment"
    said = (folder / branch.config.run_id / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in said] == list(range(1, 21)), "the trunk's rows, then its own"


def checkpoint(run: PlannedRun, folder: Path) -> None:
    """What the trunk leaves at the branch's step."""
    (source(run, folder) / "facts").mkdir(parents=True)
    (source(run, folder) / branches.FACTS).write_text(json.dumps({"run_id": run.trunk, "bits": {}}))


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


def test_a_branch_takes_its_trunks_checkpoint_once(family: list[PlannedRun], tmp_path: Path) -> None:
    trunk, early, _ = family
    begin(early, tmp_path)
    assert not (tmp_path / early.config.run_id).exists(), "there is none yet"
    checkpoint(early, tmp_path)
    rows = "".join(json.dumps({"step": step}) + "\n" for step in range(1, 30))
    (tmp_path / trunk.config.run_id / "metrics.jsonl").write_text(rows)
    begin(early, tmp_path)
    ours = tmp_path / early.config.run_id
    assert json.loads((ours / "checkpoints" / "16" / branches.FACTS).read_text())["run_id"] == early.config.run_id
    assert len((ours / "metrics.jsonl").read_text().splitlines()) == 16
    (ours / "metrics.jsonl").write_text("its own by now")
    begin(early, tmp_path)
    assert (ours / "metrics.jsonl").read_text() == "its own by now"
    assert [path.name for path in (ours / "checkpoints").iterdir()] == ["16"]
