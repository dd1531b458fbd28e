"""What an index finds for a text: the passages nearest to a question."""

import numpy as np

from lmscale.core.config import check
from lmscale.lm.eval.batching import Ids
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve.embed import Embedder, Embedding, embedding_of
from lmscale.lm.retrieve.index import Index, Passage, check_made_by


class Searcher:
    """An index and the model that made it. Raises `UserError` where another one did."""

    def __init__(self, index: Index, subject: Subject, step: int) -> None:
        identity = index.identity
        check_made_by(identity, subject.config.run_id, step, subject.tokenizer.fingerprint, index.folder)
        embedding: Embedding = embedding_of(subject.config.model, identity.layer, identity.pooling)
        self.index, self.subject = index, subject
        self.embedder = Embedder(subject, embedding)

    def passages(self, question: str, k: int, *, exact: bool = False) -> list[Passage]:
        """The k passages nearest to a question, the nearest first.

        Of a question that is longer than a context the end counts. Raises `UserError` for an empty one.
        """
        check(bool(question.strip()), "the question is empty; ask something")
        vectors_QD = self.embedder([self._tokens(question)])
        return self.index.passages(self.index.search(vectors_QD, k, exact=exact))

    def _tokens(self, text: str) -> Ids:
        return np.asarray(self.subject.tokenizer.encode(text), np.int32)[-(self.subject.config.model.context - 1) :]
