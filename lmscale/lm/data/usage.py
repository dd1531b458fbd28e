"""Whether there is enough text for a run, and what a run has seen of it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import RunConfig
from lmscale.core.errors import UserError
from lmscale.lm.data.manifest import Manifest, Tokens, windows
from lmscale.lm.data.order import Turns


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a run has seen of its text."""

    tokens_by_source: dict[str, int]
    """Tokens trained on, repeats counted; their sum is the run's D."""
    unique_tokens: int
    """Distinct training tokens seen."""
    epochs: float
    """Passes over the training tokens available, 0 where they have no end."""
    epochs_by_source: dict[str, float]
    repeats_min: float | None
    """How often the tokens of a document were scored, averaged over the document: the least of all documents."""
    repeats_mean: float | None
    """Mean over documents; None where every text was fresh."""
    repeats_max: float | None


def repeats(visited: NDArray[np.int64], starts: NDArray[np.int64] | None, context: int) -> NDArray[np.float64]:
    """[documents]: how often each document's tokens were scored, from the visits [W] of every window.

    Without `starts` a window is a document. Documents of which no token can be scored, beyond the last whole window,
    are left out, and of the others the tokens that can.
    """
    if starts is None:
        return visited.astype(np.float64)
    scored = np.concatenate([[0], np.cumsum(visited) * context])
    # Token q > 0 is a target of window (q - 1) // C: what lies before place p has been scored `before` times.
    place = np.clip(np.asarray(starts) - 1, 0, len(visited) * context)
    window, inside = np.divmod(place, context)
    before = scored[window] + np.append(visited, 0)[window] * inside
    lengths = np.diff(place)
    return (np.diff(before)[lengths > 0] / lengths[lengths > 0]).astype(np.float64)


def check_enough(prepared: Manifest | Tokens, config: RunConfig) -> None:
    """Raise `UserError` unless `prepared` carries the run: vocabulary, one window per split, and few enough epochs."""
    manifest = prepared.manifest if isinstance(prepared, Tokens) else prepared
    context, limit = config.model.context, config.data.max_epochs
    if manifest.vocab != config.model.vocab:
        raise UserError(
            f"model.vocab = {config.model.vocab:,}, but the tokenizer {manifest.tokenizer!r} has {manifest.vocab:,} "
            f"ids; set model.vocab = {manifest.vocab}"
        )
    parts, weights = manifest.parts or (manifest,), manifest.weights or (1,)
    for part in parts:
        for split, tokens in (("training", part.train_tokens), ("validation", part.validation_tokens)):
            if not windows(tokens, context):
                raise UserError(
                    f"the {split} split of {part.source} has {tokens:,} tokens, too few for one sequence of context "
                    f"= {context:,} and its next token; give more text or take a context of at most "
                    f"{max(1, tokens - 1):,}"
                )
    given = Turns(weights).given(config.tokens // context)
    for part, weight, held, rows in zip(parts, weights, manifest.unique_windows(context), given.tolist()):
        if not held:
            raise UserError(
                f"unique_tokens = {manifest.unique_limit:,} leaves no sequence of context = {context:,} of "
                f"{part.source}; raise it or take a smaller context"
            )
        if rows > limit * held:
            unique, share = held * context, weight / sum(weights)
            largest = math.floor(limit * unique / share) // config.batch_tokens * config.batch_tokens
            fix = f"the largest D that fits is {largest:,} tokens" if largest else "not even one global batch fits"
            raise UserError(
                f"D = {config.tokens:,} tokens would be {rows / held:.3g} epochs of the {unique:,} unique tokens of "
                f"{part.source}, more than data.max_epochs = {limit:g}; {fix}: give more text, train on less or raise "
                f"max_epochs"
            )
