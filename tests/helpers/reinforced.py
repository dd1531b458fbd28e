"""Tiny policies that learn from answers which they draw, and the run that they start from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmscale.core.config import (
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    Reinforcement,
    RewardModel,
    RunConfig,
)
from lmscale.lm.devices import machine
from lmscale.lm.train.loop import train

LANGUAGE = 'synthetic:tasks(letters=2, length=2, only="copy")'
MODEL = ModelConfig(width=32, layers=1, heads=2, context=32)
FIRST = RunConfig(
    model=MODEL,
    optimizer=OptimizerConfig(peak_lr=0.02, batch_sequences=16),
    data=DataConfig(source=LANGUAGE),
    tokens=60 * 16 * 32,
    validation_tokens=1024,
)
ID = "0123456789ab"
ANSWER = 4


def reinforced(steps: int, parent: str = ID, *, mesh: MeshConfig | None = None, **changed: Any) -> RunConfig:
    """A run that starts from `parent` and is held to it."""
    optimizer = {"peak_lr": 0.003, "batch_sequences": 32, **changed.pop("optimizer", {})}
    objective = {"group": 8, "answer_tokens": ANSWER, **changed.pop("objective", {})}
    parts = {
        "model": MODEL,
        "optimizer": OptimizerConfig(**optimizer),
        "objective": Reinforcement(**objective),
        "data": FIRST.data,
        "tokens": steps * optimizer["batch_sequences"] * MODEL.context,
        "init_from": parent,
        "reference": parent,
        "validation_tokens": 1024,
        "checkpoint_seconds": 1e6,
        "mesh": mesh or MeshConfig(),
    }
    return RunConfig(**{**parts, **changed})


@pytest.fixture(scope="module", name="runs")
def first_run(tmp_path_factory: pytest.TempPathFactory, compiled_programs: Path) -> Path:
    """A folder of runs with `FIRST` in it, which copies some words rightly and some not."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "matmul_peak", lambda dtype: 1e11)
        train(FIRST, folder / "first" / FIRST.run_id)
    return folder


def reward_model_run(folder: Path) -> RunConfig:
    """A reward model of copied words, which prefers a right answer."""
    pairs = [{"prompt": f"copy {x}=", "chosen": x, "rejected": x[::-1]} for x in ("ab", "ba")] * 9
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    data = DataConfig(source=str(folder / "pairs.jsonl"), template="preference", rejected_field="rejected")
    return replace(
        FIRST,
        model=replace(MODEL, scalar_head=True),
        data=replace(data, validation_fraction=0.2, max_epochs=1000),
        objective=RewardModel(),
        tokens=8 * 16 * 32,
    )
