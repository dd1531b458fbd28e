"""Run ids, training programs and losses are those of version 0.1 before its folders were moved and its seams made.

`golden/before_the_folders.json` was written by that version: the ids of every run of `sweeps/`, the SHA-256 of the
lowered training step of many options under one version of JAX, and the losses of its first six steps. The programs of
the two cases with z-loss are newer: a mask that changed no number has left them.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lmscale.core.config import ModelConfig, OptimizerConfig, RunConfig
from lmscale.lm.devices.sharding import make_mesh
from lmscale.lm.train.optimizer import Hyperparameters
from lmscale.lm.train.pack import packed_step, stack
from lmscale.lm.train.step import make_step
from lmscale.study import sweep

GOLDEN = json.loads((Path(__file__).parent / "golden" / "before_the_folders.json").read_text())
SHAPE = {"width": 32, "layers": 2, "heads": 4, "context": 32, "vocab": 64}


def run(model: dict[str, Any] | None = None, **optimizer: Any) -> RunConfig:
    config = ModelConfig(**{**SHAPE, **(model or {})})
    settings = OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": 8, **optimizer})
    return RunConfig(model=config, optimizer=settings, tokens=6 * 8 * 32, validation_tokens=1024)


GPT2 = {
    "norm": "layernorm", "mlp": "gelu", "biases": True, "positions": "learned", "init": "gpt2", "logit_softcap": 10.0,
    "tied_embeddings": False,
}  # fmt: skip
CASES = {
    "plain": run(),
    "scanned": run({"scan_layers": True}),
    "remat_full": run({"remat": "full"}),
    "remat_dots_scanned": run({"remat": "dots", "scan_layers": True}),
    "dropout": run({"residual_dropout": 0.1, "attention_dropout": 0.1}),
    "dropout_micro": run({"residual_dropout": 0.1}, micro_batches=2),
    "micro": run(micro_batches=4, z_loss=1e-3),
    "gqa": run({"kv_heads": 2, "qk_norm": True, "positions": "alibi", "mlp": "relu2"}),
    "gpt2": run(GPT2),
    "documents": run({"document_end": 3}),
    "bf16": run({"compute_dtype": "bfloat16"}),
    "chunked_loss": run({"loss_chunk": 8}),
    "mup_ema_muon": run(
        {"parametrization": "mup", "base_width": 16}, kind="muon", ema_decay=0.9, schedule="wsd"
    ),
    "completep_zloss": run(
        {"parametrization": "completep", "base_width": 16, "base_layers": 1}, z_loss=1e-4, weight_decay=0.2
    ),
}  # fmt: skip


def tokens(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 64, (8, 33), np.int32)


def text_hash(lowered: Any) -> str:
    """The SHA-256 of a lowered program, whose functions are named by their order of appearance."""
    names: dict[str, int] = {}
    text = re.sub(r"@([\w.$-]+)", lambda name: f"@f{names.setdefault(name[1], len(names))}", lowered.as_text())
    return hashlib.sha256(re.sub(r"module @\S+", "module", text).encode()).hexdigest()


@pytest.mark.parametrize("name", GOLDEN["run_ids"])
def test_every_run_of_a_sweep_has_the_id_that_it_had(name: str, root: Path) -> None:
    plan = sweep.plan(sweep.load(root / "sweeps" / f"{name}.py"))
    assert [run.config.run_id for run in plan.runs] == GOLDEN["run_ids"][name]


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_step_that_asks_for_nothing_new_is_the_program_that_it_was(name: str) -> None:
    programs = GOLDEN["programs"].get(f"jax {jax.__version__}")
    if programs is None:
        pytest.skip(f"no program was kept under JAX {jax.__version__}")
    config = CASES[name]
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        step, hyper = make_step(config, mesh), Hyperparameters.of(config)
        shape = jax.ShapeDtypeStruct((8, 33), np.int32)
        assert text_hash(step.step.lower(step.state, shape, hyper, ())) == programs[name]
        if name == "plain":
            like = jax.eval_shape(step.start, jax.random.key(0))
            states = [jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), like) for _ in range(3)]
            together = packed_step(step, config, 3).lower(
                stack(states), np.stack([tokens(i) for i in range(3)]), stack([hyper] * 3), ()
            )
            assert text_hash(together) == programs["packed"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["plain", "gpt2", "micro", "mup_ema_muon"])
def test_the_first_losses_are_those_that_they_were(name: str) -> None:
    """To rounding: processors, and compilers in a hurry, sum in other orders."""
    config = CASES[name]
    mesh = make_mesh(config.mesh)
    losses = []
    with jax.set_mesh(mesh):
        programs, hyper = make_step(config, mesh), Hyperparameters.of(config)
        state = programs.start(jax.random.key(0))
        for t in range(6):
            state, metrics = programs.step(state, tokens(t), hyper, ())
            losses.append(float(metrics.loss_nats))
    assert losses == pytest.approx(GOLDEN["losses"][name], rel=1e-5)
