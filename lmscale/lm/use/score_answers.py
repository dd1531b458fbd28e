"""The reward of answers, by a trained reward model.

    run = lmscale.load("runs/mine/0123456789ab")
    [[good, bad]] = score_answers(run, [Asked("Say 7:", [" 7 it is", " no"])])

An answer is read as in training: the end of a document, its prompt, the answer and its end, where the reward is read.
Where a prompt with its longest answer does not fit into the context, all its answers lose the same beginning of it.

Letters: A answers, C context.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import MeshConfig, ModelConfig, check
from lmscale.lm.data.document_windows import PADDING
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.devices.sharding import batch_devices, batch_sharding, make_mesh, replicated
from lmscale.lm.eval.validation import padded
from lmscale.lm.model.parameters import Params
from lmscale.lm.model.scalar_head import rewards
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.text_windows import TOKENS_PER_CALL


class Asked(NamedTuple):
    """A prompt with answers to it."""

    prompt: str
    answers: Sequence[str]
    name: str = ""
    """How sentences name it, for example by its line."""


def score_answers(run: TrainedRun, asked: Sequence[Asked], mesh: Mesh | None = None) -> list[list[float]]:
    """The rewards of the answers to every prompt. `mesh` is where the parameters lie.

    Raises `UserError` for a run that is no reward model, for an answer that is longer than the context or that the
    tokenizer cannot encode, and for rewards that are no numbers.
    """
    config, params, tokenizer = run
    check(config.model.scalar_head, f"run {config.run_id} is no reward model: its objective is not RewardModel()")
    tokens_AS = np.full((sum(len(one.answers) for one in asked), config.model.context + 1), PADDING, np.int32)
    scored_AC, row = np.zeros(tokens_AS[:, 1:].shape, bool), 0
    for one in asked:
        for prompt, answer in _fitted(one, tokenizer, config.model.context):
            stop = len(prompt) + len(answer)
            tokens_AS[row, : 1 + stop] = [tokenizer.end_of_document, *prompt, *answer]
            scored_AC[row, len(prompt) : stop] = True
            row += 1
    reward_A = _rewards(params, config.model, tokens_AS, scored_AC, mesh or make_mesh(MeshConfig()))
    check(
        bool(np.isfinite(reward_A).all()),
        "the model's rewards are no numbers: its parameters have diverged; take an earlier checkpoint with --step, or "
        "another run",
    )
    values = iter(reward_A.tolist())
    return [[next(values) for _ in one.answers] for one in asked]


def _fitted(one: Asked, tokenizer: Tokenizer, context: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """The tokens of each answer, its end among them, behind what fits of the prompt."""
    encoded, lengths = tokenizer.encode_documents([part.encode() for part in (one.prompt, *one.answers)])
    first, *answers = np.split(encoded, np.cumsum(lengths)[:-1])
    longest = max(map(len, answers))
    check(
        longest <= context,
        f"{one.name or f'the prompt {one.prompt[:40]!r}'} has an answer of {longest:,} tokens with its end, and the "
        f"model reads at most {context:,}; answers are never cut: leave it out",
    )
    prompt = first[:-1]
    cut = max(0, len(prompt) + longest - context)
    return [(prompt[cut:], answer) for answer in answers]


def _rewards(
    params: Params, model: ModelConfig, tokens_AS: NDArray[np.int32], scored_AC: NDArray[np.bool_], mesh: Mesh
) -> NDArray[np.float32]:
    devices = batch_devices(mesh)
    size = devices * max(1, min(len(tokens_AS), TOKENS_PER_CALL // model.context) // devices)
    read, parts = _compiled(model, mesh), []
    with jax.set_mesh(mesh):
        for start in range(0, len(tokens_AS), size):
            batch = [padded(array[start : start + size], size) for array in (tokens_AS, scored_AC)]
            parts.append(np.asarray(read(params, *jax.device_put(batch, batch_sharding(mesh)))))
    return np.concatenate(parts)[: len(tokens_AS)]


@lru_cache(maxsize=8)
def _compiled(model: ModelConfig, mesh: Mesh) -> Any:
    def read(params: Params, tokens_BS: jax.Array, scored_BT: jax.Array) -> jax.Array:
        return rewards(params, tokens_BS, scored_BT, model)[0]

    return jax.jit(read, out_shardings=replicated(mesh))
