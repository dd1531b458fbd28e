"""A student, a teacher and a batch, the same everywhere, and the objectives that plain PyTorch computes on them too."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from helpers.published import random_params, tiny
from lmscale.core.config import (
    Completion,
    DataConfig,
    Distillation,
    ModelConfig,
    OptimizerConfig,
    Preference,
    Reinforcement,
    RewardModel,
    RunConfig,
)

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
PAIR_CASES: dict[str, Any] = {
    "dpo": Preference(),
    "dpo, strict and smoothed": Preference(beta=0.5, label_smoothing=0.2),
    "ipo": Preference(loss="ipo", beta=0.05),
    "reward model": RewardModel(),
}
SEQUENCES, GROUP = 8, 4
ANSWERS: dict[str, Any] = {"group": GROUP, "answer_tokens": 20}
REINFORCE_CASES: dict[str, Any] = {
    "grpo": Reinforcement(**ANSWERS),
    "grpo, second update": Reinforcement(**ANSWERS, updates=2, clip=0.1, kl_weight=0.5),
    "dr-grpo": Reinforcement(**ANSWERS, advantage="dr-grpo", kl_weight=0.1),
    "dr-grpo, second update, no penalty": Reinforcement(**ANSWERS, advantage="dr-grpo", updates=3, kl_weight=0),
}
"""From the second update on the policy is no longer the one that drew its answers."""


def config(name: str, model: ModelConfig = STUDENT, **optimizer: Any) -> RunConfig:
    settings = OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": SEQUENCES, **optimizer})
    data = DataConfig(source="pairs.jsonl", prompt_field="prompt")
    tokens = SEQUENCES * model.context
    return RunConfig(model=model, optimizer=settings, tokens=tokens, data=data, objective=CASES[name])


def pair_config(name: str, model: ModelConfig = STUDENT, **optimizer: Any) -> RunConfig:
    objective, reward = PAIR_CASES[name], name == "reward model"
    parents = {} if reward else {"init_from": ID, "reference": ID}
    return RunConfig(
        model=replace(model, scalar_head=reward),
        optimizer=OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": SEQUENCES, **optimizer}),
        tokens=SEQUENCES * model.context,
        data=DataConfig(source="pairs.jsonl", template="preference", rejected_field="rejected"),
        objective=objective,
        **parents,
    )


def rewards_params() -> dict[str, np.ndarray]:
    """The student with a scalar head in place of its own."""
    head = np.random.default_rng(4).standard_normal((STUDENT.width, 1)).astype(np.float32) / 4
    return {name: value for name, value in students_params().items() if name != "head"} | {"scalar_head": head}


def pair_batch() -> dict[str, np.ndarray]:
    """Pairs with prompts and answers of unequal lengths; one fills its sequence, one answer has a single token."""
    rng, context = np.random.default_rng(5), STUDENT.context
    tokens = np.full((SEQUENCES // 2, 2, context + 1), -1, np.int32)
    scored = np.zeros((SEQUENCES // 2, 2, context), bool)
    for pair, (prompt, lengths) in enumerate([(5, (27, 9)), (1, (1, 12)), (14, (6, 7)), (20, (11, 3))]):
        before = rng.integers(0, STUDENT.vocab, prompt + 1)
        for side, length in enumerate(lengths):
            answer = rng.integers(0, STUDENT.vocab, length)
            tokens[pair, side, : prompt + 1 + length] = np.concatenate([before, answer])
            scored[pair, side, prompt : prompt + length] = True
    return {"tokens": tokens, "scored": scored}


def reinforce_config(name: str, model: ModelConfig = STUDENT, **optimizer: Any) -> RunConfig:
    return RunConfig(
        model=model,
        optimizer=OptimizerConfig(**{"peak_lr": 0.01, "batch_sequences": SEQUENCES, **optimizer}),
        tokens=SEQUENCES * model.context,
        data=DataConfig(source='synthetic:tasks(only="copy", length=4)'),
        objective=REINFORCE_CASES[name],
        init_from=ID,
        reference=ID,
    )


def answers() -> dict[str, np.ndarray]:
    """Answers of 1 to 20 tokens, their rewards, and nats by which their tokens were likelier when they were drawn."""
    rng, context = np.random.default_rng(6), STUDENT.context
    tokens = np.full((SEQUENCES, context + 1), -1, np.int32)
    scored = np.zeros((SEQUENCES, context), bool)
    for row, (prompt, length) in enumerate([(5, 20), (5, 1), (5, 8), (5, 13), (12, 20), (12, 3), (12, 6), (12, 2)]):
        tokens[row, : prompt + 1 + length] = rng.integers(0, STUDENT.vocab, prompt + 1 + length)
        scored[row, prompt : prompt + length] = True
    reward = np.array([1, 0, 0, 1, 0.25, 0.5, 0.75, -2], np.float32)
    moved = rng.normal(0, 0.2, scored.shape).astype(np.float32)
    return {"tokens": tokens, "scored": scored, "reward": reward, "moved": moved}


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
    return {name: asdict(objective) for name, objective in (CASES | PAIR_CASES | REINFORCE_CASES).items()}
