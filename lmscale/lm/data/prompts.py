"""The prompts of a corpus, with the answers that its documents give, in the order in which they are asked.

A prompt begins with the end of a document, as a sequence does in training. One that is too long loses its beginning.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import Reinforcement, RunConfig
from lmscale.core.errors import UserError
from lmscale.core.quantities import counted
from lmscale.lm.data.document_windows import last_answers
from lmscale.lm.data.manifest import Manifest, Tokens
from lmscale.lm.data.order import EpochOrder


@dataclass(frozen=True)
class Prompt:
    """What is asked, and what the document answers."""

    asked: NDArray[np.int32]
    """Tokens of the prompt, the end of document before it first."""
    answer: NDArray[np.int32]
    """Tokens of the answer, without its end."""


class Prompts:
    """The prompts of the training split: everything before the last answer of each document.

    Epoch after epoch asks each once, in an order of its own that depends on the data and the seed.
    """

    def __init__(self, tokens: Tokens, longest: int, seed: int) -> None:
        """`longest` is the most tokens of a prompt."""
        (part,) = tokens.components or (tokens,)
        scored = part.train_scored
        assert scored is not None, "its documents have prompts"
        self._row, starts = part.split("train")
        self._answers, self._stops = last_answers(starts, scored), starts[1:] - 1
        self._starts = np.maximum(starts[:-1], self._answers - (longest - 1))
        self._end, self._longest = part.manifest.end_of_document, longest
        self.source = part.manifest.source
        self._cut = self._starts - starts[:-1]
        self.cut_tokens = int(self._cut.sum())
        """Tokens that prompts lose at their beginnings, each once."""
        self.order = EpochOrder(len(self._starts), f"{part.manifest.fingerprint} prompts {seed}")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, document: int) -> Prompt:
        start, answer, stop = (int(places[document]) for places in (self._starts, self._answers, self._stops))
        prompt = np.concatenate([[self._end], self._row[start:answer]]).astype(np.int32)
        return Prompt(prompt, self._row[answer:stop].astype(np.int32))

    def sentence(self) -> str:
        """How many prompts there are, and what they lose at their beginnings."""
        text = f"{counted(len(self), 'prompt')} of {self.source}; "
        if not self.cut_tokens:
            return text + "nothing is cut"
        return text + (
            f"{int((self._cut > 0).sum()):,} longer than {self._longest:,} tokens lost {self.cut_tokens:,} at the "
            f"beginning"
        )

    def asked(self, start: int, stop: int) -> list[Prompt]:
        """Prompts number `start` ... `stop` - 1 of the endless row of epochs."""
        return [self[document] for document in self.order(start, stop).tolist()]


def prompts_asked(config: RunConfig, tokens: int) -> int:
    """Prompts that a run has asked when it has trained on so many tokens, repeats counted."""
    settings = config.objective
    assert isinstance(settings, Reinforcement)
    batches = -(-tokens // config.batch_tokens // settings.updates)
    return batches * config.optimizer.batch_sequences // settings.group


def prompt_epochs(manifest: Manifest, config: RunConfig) -> float:
    """How often a run asks the prompts of its corpus."""
    (part,) = manifest.components or (manifest,)
    return prompts_asked(config, config.tokens) / part.train_documents


def check_prompts(manifest: Manifest, config: RunConfig) -> None:
    """Raise `UserError` where a run would ask the prompts of its corpus more often than `DataConfig.max_epochs`."""
    (part,) = manifest.components or (manifest,)
    epochs, limit = prompt_epochs(manifest, config), config.data.max_epochs
    if epochs > limit:
        raise UserError(
            f"{prompts_asked(config, config.tokens):,} prompts would be {epochs:.3g} epochs of the "
            f"{part.train_documents:,} of {part.source}, more than data.max_epochs = {limit:g}; give more of them, "
            f"train on less or raise max_epochs"
        )
