"""A student, a teacher and a batch, the same everywhere, and the objectives that plain PyTorch computes on them too."""

from dataclasses import asdict
from typing import Any

import numpy as np

from helpers.published import random_params, tiny
from lmscale.core.config import Completion, DataConfig, Distillation, ModelConfig, OptimizerConfig, RunConfig

STUDENT = tiny(vocab=64, tied_embeddings=False, kv_heads=2, context=32, embedding_scale=1.0)
TEACHER = tiny(vocab=64, width=48, layers=3, tied_embeddings=False, embedding_scale=1.0)
"""Wider, deeper and with a longer context. Nothing of either is folded in an export, so gradients have one norm."""
ID = "0123456789ab"
CASES: dict[str, Any] = {
    "completion": Completion(),
    "distillation": Distillation(teacher=ID),
    "distillation, hot": Distillation(teacher=ID, temperature=3.0),
    "distillation, mixed": Distillation(teacher=ID, temperature=0.5, text_weight=0.3),
    "distillation, top 5": Distillation(teacher=ID, temperature=2.0, top_k=5, text_weight=0.1),
}
SEQUENCES = 8


def config(name: str, model: ModelConfig = STUDENT, **optimizer: Any) -> RunConfig:
    settings = OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": SEQUENCES, **optimizer})
    data = DataConfig(source="pairs.jsonl", prompt_field="prompt")
    tokens = SEQUENCES * model.context
    return RunConfig(model=model, optimizer=settings, tokens=tokens, data=data, objective=CASES[name])


def students_params() -> dict[str, np.ndarray]:
    return random_params(STUDENT, seed=1)


def teachers_params() -> dict[str, np.ndarray]:
    return random_params(TEACHER, seed=2)


def batch() -> dict[str, np.ndarray]:
    """Answers of unequal lengths; one row has a single scored token."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, STUDENT.vocab, (SEQUENCES, STUDENT.context + 1)).astype(np.int32)
    first = np.array([31, 4, 20, 0, 9, 28, 15, 2])
    return {"tokens": tokens, "scored": np.arange(STUDENT.context)[None] >= first[:, None]}


def cases_json() -> dict[str, Any]:
    return {name: asdict(objective) for name, objective in CASES.items()}
