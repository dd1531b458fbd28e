"""Which text a run learns from."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmscale.core.config import mixture, stdlib, synthetic
from lmscale.core.config.checks import check, check_types, positive
from lmscale.core.config.template import parse_template
from lmscale.core.errors import nearest

IMPORTED = "imported:"
"""Begins the source of a model that was trained elsewhere: its text is not here."""
TOKENS = "tokens:"
"""Begins a source of tokens that others wrote, or of a data set that `datasets` saved."""
SMALLEST_BPE_VOCAB = 257
"""A token for each byte and one for the end of a document; every further token is a merge."""

LARGEST_BPE_VOCAB = 1 << 22
"""Sixteen times the largest vocabulary that is published; its trainer asks for memory by the number of ids."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, and how it is split and tokenized. One epoch is one pass over the unique training tokens."""

    source: str = "stdlib"
    """`stdlib` (source code of the running Python's standard library; `stdlib:code` takes its modules without their
    docstrings, `stdlib:docstrings` these alone), a path to a text, JSONL or Parquet file or to a folder of them,
    `tfds:NAME[/CONFIG][:VERSION]`, `synthetic:LANGUAGE(PARAMETER=VALUE, ...)`, `tokens:PATH` (tokens of nanoGPT, llm.c,
    Megatron, OLMo or datatrove, or a data set that `datasets` saved), or a mixture of these,
    `mix: 0.7 * stdlib + 0.3 * books/`, whose weights are shares of the training tokens."""
    text_field: str = "text"
    """The field of a record of a JSONL or Parquet file or a TFDS data set that holds the text; of a data set that
    `datasets` saved the column of text or of ids, `input_ids` before `text` if none is named."""
    prompt_field: str | None = None
    """Where such a record keeps a prompt, which is put before its text: the objective `completion` reads it and scores
    the text alone. None: records have no prompts."""
    template: str | None = None
    """How the fields of such a record become prompts, which are read, and answers, which `completion` scores: `alpaca`
    (instruction, input, output; also a list of them as `instances`), `completion` (prompt, completion), `preference`
    (prompt, chosen), `chat` (the contents of messages by role; all answers of the assistant are scored), or a text with
    fields in braces, whose last field and what follows it are the answer: "Q: {question}\\nA: {answer}". With `role`
    and `content` as its fields it formats one message. None: `prompt_field` and `text_field`."""
    rejected_field: str | None = None
    """The field of such a record with an answer that was rejected; the last field of the template, or `text_field`,
    then is the one that was chosen, and a document is a pair of answers to one prompt. Of messages it is another list
    of them that differs in its last, or the content of that. None: a record has one answer."""
    layout: Literal["stream", "packed", "padded"] | None = None
    """How documents with prompts become sequences: one `stream` that is cut anywhere; `packed`, whole documents, as
    many as fit into each sequence; `padded`, one document each. Where a document is too long, the beginning of its
    prompt is cut. None: `packed` with a template, else `stream`."""
    tokenizer: str = "bytes"
    """`bytes`, `bpe:V` (byte-level BPE of V ids, trained on the training split), or a path to a `tokenizer.json`."""
    validation_fraction: float = 0.05
    """Share of the documents held out for the loss along a run, chosen by a hash of their text."""
    validation_source: str | None = None
    """A source of its own for the loss along a run, given as `source` is but no mixture: all of it is validated on, and
    `source` is trained on whole, so that no text has parts on both sides. None: `validation_fraction` of `source`."""
    test_fraction: float = 0.0
    """Share of the documents held out from every run until the end, taken from the highest hashes: changing it moves
    documents between the training and the test split only."""
    unreadable: Literal["skip", "refuse"] = "skip"
    """What to do with files and lines that are not UTF-8 text: skip them, counted and named, or raise an error."""
    near_duplicates: float | None = None
    """Remove a document that shares at least this fraction of its five-word shingles with an earlier one; None keeps
    all."""
    unique_tokens: int | None = None
    """Train on the leading U tokens of the training split only, in whole sequences; None takes all of them."""
    max_epochs: float = 4.0
    """Refuse a run that would repeat its data more often (Muennighoff 2023: up to 4 epochs are nearly fresh data)."""

    def __post_init__(self) -> None:
        check_types(self)
        check(bool(self.source.strip()), "DataConfig.source is empty; try 'stdlib'")
        for _, source in mixture.components(self.source):
            _check_made_here(source)
        check(
            self.prompt_field is None or not _without_fields(self.source),
            f"DataConfig.prompt_field = {self.prompt_field!r}, but {self.source} has no records with fields; give "
            f"JSONL, Parquet or tfds:NAME, or leave it out",
        )
        self._check_prompts()
        if self.rejected_field is not None:
            self._check_pairs(self.rejected_field)
        self._check_tokens_of_others()
        if self.validation_source is not None:
            self._check_validation_source(self.validation_source)
        check(
            0.0 < self.validation_fraction < 1.0,
            f"DataConfig.validation_fraction = {self.validation_fraction!r}: must lie strictly between 0 and 1",
        )
        check(
            0.0 <= self.test_fraction < 1.0 - self.validation_fraction,
            f"DataConfig.test_fraction = {self.test_fraction!r}: must leave something to train on, so take at least 0 "
            f"and less than 1 - validation_fraction = {1 - self.validation_fraction:g}",
        )
        positive(self, "max_epochs")
        if self.unique_tokens is not None:
            positive(self, "unique_tokens")
        if self.near_duplicates is not None:
            check(
                0.0 < self.near_duplicates <= 1.0,
                f"DataConfig.near_duplicates = {self.near_duplicates!r}: a share above 0 and at most 1; try 0.8",
            )
        _check_tokenizer(self.tokenizer)

    @property
    def prompts(self) -> bool:
        """Whether documents may begin with prompts."""
        return self.prompt_field is not None or self.template is not None

    @property
    def pairs(self) -> bool:
        """Whether a document is a prompt with a chosen and a rejected answer."""
        return self.rejected_field is not None

    @property
    def sequences(self) -> Literal["stream", "packed", "padded", "pairs"]:
        """The layout that is taken."""
        if self.pairs:
            return "pairs"
        return self.layout or ("stream" if self.template is None else "packed")

    def _check_prompts(self) -> None:
        check(
            self.layout in (None, "stream") or self.prompts,
            f"DataConfig.layout = {self.layout!r} is for documents with prompts; give a template or a prompt_field, or "
            f"leave it out, and text is one stream",
        )
        if self.template is None:
            return
        parse_template(self.template)
        check(
            self.prompt_field is None,
            f"DataConfig.template and prompt_field = {self.prompt_field!r} both say what a prompt is; give one of them",
        )
        for _, source in mixture.components(self.source):
            alone = source == self.source and _without_fields(source)
            check(
                not alone and not source.startswith(("tfds:", TOKENS)),
                f"DataConfig.template: {source} has no records with fields to fill it; give JSON, JSONL or Parquet, or "
                f"leave it out",
            )

    def _check_pairs(self, rejected: str) -> None:
        given = f"DataConfig.rejected_field = {rejected!r}"
        check(
            self.prompts,
            f"{given} makes pairs of answers to a prompt, but nothing says which field is the prompt; give template = "
            f"'preference' (prompt, chosen) or a prompt_field",
        )
        chosen = self.text_field if self.template is None else parse_template(self.template).forms[0].answer
        check(
            rejected not in (chosen, self.prompt_field),
            f"{given} is also the field of the {'chosen answer' if rejected == chosen else 'prompt'}; name the field "
            f"of the answer that was rejected",
        )
        check(
            self.layout is None,
            f"{given} lays every answer out in a sequence of its own, so layout = {self.layout!r} has no meaning; "
            f"leave it out",
        )
        for source in filter(None, [*(name for _, name in mixture.components(self.source)), self.validation_source]):
            check(
                not _without_fields(source) and not source.startswith(("tfds:", TOKENS)),
                f"{given}, but {source} has no pairs of answers; give records as JSON, JSONL or Parquet",
            )

    def _check_tokens_of_others(self) -> None:
        named = [name for _, name in mixture.components(self.source)]
        for source in filter(None, [*named, self.validation_source]):
            if source.startswith(TOKENS):
                check(
                    bool(source.removeprefix(TOKENS).strip()),
                    f"the source {source!r} names no tokens; give the path of a file or a folder, tokens:PATH",
                )
                check(
                    self.prompt_field is None,
                    f"DataConfig.prompt_field = {self.prompt_field!r}, but {source} has no prompts; give text as "
                    f"JSONL, Parquet or tfds:NAME, or leave it out",
                )

    def _check_validation_source(self, source: str) -> None:
        check(
            bool(source.strip()) and not source.startswith(mixture.PREFIX),
            f"DataConfig.validation_source = {source!r}: give one source, no mixture, or leave it out",
        )
        check(
            source not in [name for _, name in mixture.components(self.source)],
            f"DataConfig.validation_source = {source!r} is trained on too; give other text, or leave it out and "
            f"validation_fraction of {self.source} is held out",
        )
        _check_made_here(source)


def _without_fields(source: str) -> bool:
    """Whether a source is no records of fields: text of the standard library or of a language."""
    return stdlib.is_stdlib(source) or synthetic.is_synthetic(source)


def _check_made_here(source: str) -> None:
    """Raise `UserError` for a part of the standard library, or a language, that there is not."""
    if stdlib.is_stdlib(source):
        stdlib.part_of(source)
    if synthetic.is_synthetic(source):
        synthetic.parse(source)


def _check_tokenizer(name: str) -> None:
    if name == "bytes" or Path(name).suffix == ".json":
        return
    if match := re.fullmatch(r"bpe:(\d+)", name, re.ASCII):
        check(
            len(match[1]) <= len(str(LARGEST_BPE_VOCAB)) and int(match[1]) <= LARGEST_BPE_VOCAB,
            f"DataConfig.tokenizer = {name[:40]!r}: at most {LARGEST_BPE_VOCAB:,} ids; take bpe:{LARGEST_BPE_VOCAB} or "
            f"less",
        )
        check(
            int(match[1]) >= SMALLEST_BPE_VOCAB,
            f"DataConfig.tokenizer = {name!r}: byte-level BPE has a token for each byte and one for the end of a "
            f"document, so at least {SMALLEST_BPE_VOCAB}; take bpe:{SMALLEST_BPE_VOCAB} or more, or bytes",
        )
        return
    suggestion = nearest(name, ["bytes", "bpe:4096", "path/to/tokenizer.json"])
    check(False, f"there is no tokenizer {name!r}{suggestion}")
