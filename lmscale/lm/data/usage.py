"""Whether there is enough text for a run, and how much of it a run has used."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import Reinforcement, RunConfig
from lmscale.core.errors import UserError
from lmscale.lm.data.document_windows import SPLIT_NAMES
from lmscale.lm.data.manifest import Manifest, Tokens, windows
from lmscale.lm.data.order import MixtureSchedule
from lmscale.lm.data.pair_windows import places
from lmscale.lm.data.prompts import check_prompts, prompt_epochs


@dataclass(frozen=True, kw_only=True)
class DataUsage:
    """How much of its text a run has trained on, and how often."""

    tokens_by_source: dict[str, int]
    """Tokens trained on, repeats counted; their sum is the run's D."""
    answer_tokens: int | None
    """Tokens trained on that are no prompt, repeats counted; None where documents have no prompts."""
    padding_tokens: int | None
    """Tokens trained on that only fill sequences up behind whole documents; None for a stream."""
    cut_tokens: int | None
    """Tokens of the beginnings of documents that are too long for a sequence, each once; None for a stream."""
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


def repeats(visits: NDArray[np.int64], starts: NDArray[np.int64] | None, context: int) -> NDArray[np.float64]:
    """[documents]: how often each document's tokens were scored, from the visits [W] of every window.

    Without `starts` a window is a document. Documents of which no token can be scored, beyond the last whole window,
    are left out, and of the others the tokens that can.
    """
    if starts is None:
        return visits.astype(np.float64)
    scored = np.concatenate([[0], np.cumsum(visits) * context])
    # Token q > 0 is a target of window (q - 1) // C: targets before token p were scored `before` times.
    target = np.clip(np.asarray(starts) - 1, 0, len(visits) * context)
    window, inside = np.divmod(target, context)
    before = scored[window] + np.append(visits, 0)[window] * inside
    lengths = np.diff(target)
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
    components, weights = manifest.components or (manifest,), manifest.weights or (1,)
    validated = components if manifest.held_out is None else (manifest.held_out,)
    prompts_alone = _asks_prompts(manifest, config)
    for split, parts in (("train", () if prompts_alone else components), ("validation", validated)):
        for part in parts:
            _check_windows(part, split, config)
    if prompts_alone:
        check_prompts(manifest, config)
        return
    size = context * config.example_sequences
    rows_by_source = MixtureSchedule(weights).counts(config.tokens // size).tolist()
    available_by_source = manifest.unique_windows(context)
    for component, weight, available, rows in zip(components, weights, available_by_source, rows_by_source):
        if not available:
            raise UserError(
                f"unique_tokens = {manifest.unique_limit:,} leaves no sequence of context = {context:,} of "
                f"{component.source}; raise it or take a smaller context"
            )
        if rows > limit * available:
            unique, share = available * size, weight / sum(weights)
            largest = math.floor(limit * unique / share) // config.batch_tokens * config.batch_tokens
            fix = f"the largest D that fits is {largest:,} tokens" if largest else "not even one global batch fits"
            raise UserError(
                f"D = {config.tokens:,} tokens would be {rows / available:.3g} epochs of the {unique:,} unique tokens "
                f"of {component.source}, more than data.max_epochs = {limit:g}; {fix}: give more text, train on less "
                f"or raise max_epochs"
            )


def epochs_of(manifest: Manifest, config: RunConfig) -> float:
    """Passes that a run makes over its training text, or over the prompts that it answers; 0 where they have no end."""
    if _asks_prompts(manifest, config):
        return prompt_epochs(manifest, config)
    return 0.0 if manifest.endless else config.tokens / manifest.unique_tokens(config.model.context)


def _asks_prompts(manifest: Manifest, config: RunConfig) -> bool:
    """Whether a run draws answers to the prompts of its corpus, and reads nothing else of it."""
    return isinstance(config.objective, Reinforcement) and manifest.prompts


def _check_windows(part: Manifest, split: str, config: RunConfig) -> None:
    """Raise `UserError` unless a split of a source has a whole sequence, and its answers fit into one."""
    context, tokens = config.model.context, part.tokens(split)
    if part.layout == "pairs":
        places(part.folder, part.source, split, context)  # refuses long answers
    elif part.layout != "stream":
        _check_layout(part, config)
        part.placement(split, context)  # refuses answers beyond the context
    elif not windows(tokens, context):
        raise UserError(
            f"the {SPLIT_NAMES[split]} split of {part.source} has {tokens:,} tokens, too few for one sequence of "
            f"context = {context:,} and its next token; give more text or take a context of at most "
            f"{max(1, tokens - 1):,}"
        )


def _check_layout(manifest: Manifest, config: RunConfig) -> None:
    """Raise `UserError` where packed documents would see each other."""
    end = config.model.document_end
    if manifest.layout == "packed" and end != manifest.end_of_document:
        raise UserError(
            f"model.document_end = {end}, but the tokenizer {manifest.tokenizer!r} ends documents with "
            f"{manifest.end_of_document}, so documents in one sequence would see each other; set model.document_end = "
            f"{manifest.end_of_document}"
        )
