"""Tokens once on disk, then any batch of any run by its number.

A split is one long row of tokens, document after document in the order of their hash, each closed by the tokenizer's
end of document. It is cut into windows of context + 1 tokens that start every `context` tokens: each token is a target
once, but for the very first. An epoch visits every window once, in an order that depends on the data, the seed and the
epoch alone; batch t is rows t B ... t B + B - 1 of the endless row of epochs. So a run resumes by its step, and hosts
that each ask for their rows see together what one host would.

In a mixture every row of a batch has one source, and each source its own row of epochs. `DataConfig.unique_tokens`
keeps the leading windows, so that a smaller set is part of a larger one. A language (`languages`) makes window
number i when it is asked for.
"""

from lmscale.lm.data.batches import Batches, ValidationSet
from lmscale.lm.data.manifest import ENDLESS, Manifest, Tokens
from lmscale.lm.data.order import MixtureSchedule, Shuffle
from lmscale.lm.data.prepare import find_manifest, load_tokenizer, prepare
from lmscale.lm.data.usage import DataUsage, check_enough, epochs_of
from lmscale.lm.data.windows import layout_sentences

__all__ = [
    "ENDLESS",
    "Batches",
    "DataUsage",
    "Manifest",
    "MixtureSchedule",
    "Shuffle",
    "Tokens",
    "ValidationSet",
    "check_enough",
    "epochs_of",
    "find_manifest",
    "layout_sentences",
    "load_tokenizer",
    "prepare",
]
