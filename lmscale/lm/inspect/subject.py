"""A model that is looked into, and text that it was not trained on.

Letters as in `transformer`; N windows of text.
"""

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import IMPORTED, DataConfig, RunConfig, check
from lmscale.lm import data
from lmscale.lm.data.document_windows import PADDING
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.model.parameters import Params


class Subject(NamedTuple):
    """A model, what it reads with, and where its parameters lie."""

    config: RunConfig
    params: Params
    tokenizer: Tokenizer
    mesh: Mesh

    @property
    def vocab(self) -> int:
        """Ids that mean text; a model may have more, for the sake of round shapes."""
        return min(self.tokenizer.vocab, self.config.model.vocab)


class HeldOutText(NamedTuple):
    """Windows of held-out text, as long as the context."""

    tokens_NT: NDArray[np.int32]
    scored_NT: NDArray[np.bool_]
    """[N, T - 1]: whether a token but the first is text; what follows the last document of a window is padding."""


def held_out_text(config: RunConfig, rows: int) -> HeldOutText | None:
    """At most so many windows of the run's validation text; None of an imported model, whose data is not here."""
    if config.data.source.startswith(IMPORTED):
        return None
    return _windows(data.prepare(config.data), config.model.context, rows)


def _windows(tokens: data.Tokens, context: int, rows: int) -> HeldOutText:
    windows = data.ValidationSet(tokens, context, rows * context).windows[:, :-1]
    return HeldOutText(np.where(windows == PADDING, 0, windows), windows[:, 1:] != PADDING)


SOURCE_ROWS = 64
"""Windows of a text of which the tokens are taken."""


def source_tokens(source: str, tokenizer: Tokenizer, context: int) -> NDArray[np.int32]:
    """The ids that occur in windows of another text, the end of a document apart.

    Raises `UserError` for text that is not there, and for text that is cut into other tokens.
    """
    tokens = data.prepare(DataConfig(source=source))
    check(
        data.load_tokenizer(tokens.manifest).fingerprint == tokenizer.fingerprint,
        f"{source} has other tokens than this model reads; name text that is cut as its own is",
    )
    return _other_than_end(_occurring(_windows(tokens, context, SOURCE_ROWS)), tokenizer)


def _occurring(text: HeldOutText) -> NDArray[np.int32]:
    return np.unique(text.tokens_NT[:, 1:][text.scored_NT]).astype(np.int32)


def known_tokens(subject: Subject, text: HeldOutText | None) -> NDArray[np.int32]:
    """The ids that occur in the text: a model has learned nothing of others. All that mean text where there is none.

    Raises `UserError` for fewer than two beside the end of a document, of which no random text can be made.
    """
    ids = np.arange(subject.vocab, dtype=np.int32) if text is None else _occurring(text)
    return _other_than_end(ids, subject.tokenizer)


def _other_than_end(ids: NDArray[np.int32], tokenizer: Tokenizer) -> NDArray[np.int32]:
    others = np.setdiff1d(ids, [tokenizer.end_of_document])
    check(len(others) > 1, f"a text of {len(others)} different tokens has no random ones to repeat")
    return others.astype(np.int32)
