"""Byte-level BPE (Sennrich 2016; Radford 2019) of any vocabulary size, trained by the library `tokenizers`."""

from collections.abc import Iterable, Iterator

from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer.file import ENDS
from lmscale.lm.data.tokenizer.long_texts import PIECE_BYTES, pieces

BPE = "bpe:"
VERSION = 1
"""Counts up when a change here gives other tokens for the same text and size."""


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

    def batches() -> Iterator[list[str]]:
        for batch in texts:
            yield from ([piece.decode()] for text in batch if len(text) > PIECE_BYTES for piece in pieces(text))
            yield [text.decode() for text in batch if len(text) <= PIECE_BYTES]

    tokenizer.train_from_iterator(batches(), trainer)
    if (size := tokenizer.get_vocab_size()) != vocab - 1:
        raise UserError(
            f"the training text of {source} has no more pairs to merge after {size + 1:,} ids, fewer than "
            f"{BPE}{vocab}; take {BPE}{size + 1} or less, or give more text"
        )
    tokenizer.add_special_tokens([ENDS[0]])
    content: str = tokenizer.to_str()
    return content
