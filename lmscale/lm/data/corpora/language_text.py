"""A finite sample of a synthetic language as documents, to be stored, split and tokenized like any text."""

from collections.abc import Iterator

from lmscale.core.config import synthetic
from lmscale.core.errors import UserError
from lmscale.lm.data.corpora.sources import Document, Skipped

BLOCK_DOCUMENTS = 1024


class LanguageText:
    """`documents` documents of a language in blocks; see `sources.Source`. Raises `UserError` without that number."""

    def __init__(self, source: str) -> None:
        self.spec = synthetic.parse(source)
        self.name = self.spec.spec
        if self.spec.documents is None:
            raise UserError(f"{source} is endless; give documents=N to store so many documents of it")

    def units(self) -> Iterator[tuple[str, float]]:
        for start in range(0, self.spec.documents, BLOCK_DOCUMENTS):
            yield str(start), start / self.spec.documents

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        from lmscale.lm.data import languages

        start = int(unit)
        stop = min(start + BLOCK_DOCUMENTS, self.spec.documents)
        for number, text in enumerate(languages.documents(self.spec, start, stop), start=start):
            yield Document(f"{number}", text, self.spec.NAME)
