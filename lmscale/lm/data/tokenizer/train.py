"""Byte-level BPE (Sennrich 2016; Radford 2019) of any vocabulary size, trained by the library `tokenizers`."""

from collections.abc import Iterable, Iterator

from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer.file import ENDS

BPE = "bpe:"
VERSION = 1
"""Counts up when the same text and size would give other tokens by a change here."""


def train_bpe(vocab: int, texts: Iterable[list[bytes]], source: str) -> str:
    """The content of a tokenizer.json with exactly `vocab` ids: 256 bytes, merges, and the end of a document, the last.

    The same texts give the same tokens, whatever the number of threads. Raises `UserError` where the text has too few
    pairs for so many ids.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - 1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )

    def decoded() -> Iterator[list[str]]:
        for part in texts:
            yield [text.decode() for text in part]

    tokenizer.train_from_iterator(decoded(), trainer)
    if (found := tokenizer.get_vocab_size()) != vocab - 1:
        raise UserError(
            f"the training text of {source} has no more pairs to merge after {found + 1:,} ids, fewer than "
            f"{BPE}{vocab}; take {BPE}{found + 1} or less, or give more text"
        )
    tokenizer.add_special_tokens([ENDS[0]])
    content: str = tokenizer.to_str()
    return content
