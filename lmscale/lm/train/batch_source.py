"""Where the batches of a run come from: text on disk, or what makes them while the run trains."""

from collections.abc import Callable
from typing import Protocol

from jax.sharding import Mesh

from lmscale.core.config import RunConfig
from lmscale.lm import data
from lmscale.lm.devices.collectives import make_global_array
from lmscale.lm.devices.sharding import batch_sharding
from lmscale.lm.model.parameters import Params
from lmscale.lm.objectives import Batch


class BatchSource(Protocol):
    """Batch t of a run, a pure function of (data, seed, t) or, where `reads_params`, of (parameters, data, seed, t).

    Parameters are in the checkpoint, so a resumed run draws the same samples. The loop does not know which kind it has.
    """

    @property
    def reads_params(self) -> bool:
        """Whether batches are made from the parameters that the step before has left."""

    @property
    def flops_per_batch(self) -> int:
        """FLOPs of making one batch, counted apart from those of training; 0 for text from disk."""

    def __call__(self, t: int, params: Params) -> Batch:
        """Batch t >= 0 as global arrays on the run's mesh."""

    def usage(self, tokens: int) -> data.DataUsage:
        """What training on `tokens` tokens of these batches has seen of the data."""

    def notes(self) -> list[str]:
        """How documents become batches, and what is cut of them, in sentences."""


MakeBatches = Callable[[RunConfig, data.Tokens, Mesh], BatchSource]


class TextBatches:
    """Batches of prepared text; see `BatchSource`."""

    reads_params = False
    flops_per_batch = 0

    def __init__(self, config: RunConfig, tokens: data.Tokens, mesh: Mesh) -> None:
        """Raises `UserError` where a source is smaller than one window."""
        rows, sequences = config.batch_examples, [2] * config.data.pairs
        self._batches = data.Batches(tokens, config.model.context, rows, config.seed)
        self._tokens, self._context = tokens, config.model.context
        self._answers_only = config.scores_answers
        self._shape, self._sharding = (rows, *sequences, config.model.context + 1), batch_sharding(mesh)

    def __call__(self, t: int, params: Params) -> Batch:
        tokens = make_global_array(lambda start, stop: self._batches.rows(t, start, stop), self._shape, self._sharding)
        if not self._answers_only:
            return tokens
        scored = make_global_array(
            lambda start, stop: self._batches.scored(t, start, stop),
            (*self._shape[:-1], self._shape[-1] - 1),
            self._sharding,
        )
        return {"tokens": tokens, "scored": scored}

    def usage(self, tokens: int) -> data.DataUsage:
        return self._batches.usage(tokens)

    def notes(self) -> list[str]:
        return data.layout_sentences(self._tokens, self._context)
