"""A tokenizer as the files that transformers reads, and back."""

import json
from pathlib import Path
from typing import Any

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.core.files import FETCH_AGAIN, open_regular, read_bytes, read_json, write_json
from lmscale.lm.data.tokenizer import ByteTokenizer, FileTokenizer, SymbolTokenizer, Tokenizer
from lmscale.lm.data.tokenizer.file import ENDS, byte_alphabet, checked_ids, in_one_sentence

TOKENIZER_FILE = "tokenizer.json"


def write_tokenizer(folder: Path, tokenizer: Tokenizer, context: int) -> dict[str, int]:
    """Write tokenizer.json and tokenizer_config.json; the ids of special tokens, as config.json names them.

    Documents follow each other in training, so the end of one stands before the next: it is how a text begins, too.
    """
    spec, end = specification(tokenizer)
    write_json(folder / TOKENIZER_FILE, spec)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "bos_token": end,
        "eos_token": end,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings)
    return {"bos_token_id": tokenizer.end_of_document, "eos_token_id": tokenizer.end_of_document}


def specification(tokenizer: Tokenizer) -> tuple[dict[str, Any], str]:
    """The value of a tokenizer.json with the same ids, and the name of its end of a document."""
    if isinstance(tokenizer, FileTokenizer):
        return _with_end(tokenizer)
    if isinstance(tokenizer, ByteTokenizer):
        alphabet = {char: byte for char, byte in byte_alphabet().items() if byte != tokenizer.end_of_document}
        pre_tokenizer: dict[str, Any] = {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False
        }  # fmt: skip
        return _characters(alphabet, pre_tokenizer, tokenizer.end_of_document), ENDS[0]
    assert isinstance(tokenizer, SymbolTokenizer)
    symbols = {tokenizer.decode([number]): number for number in range(tokenizer.end_of_document)}
    return _characters(symbols, None, tokenizer.end_of_document), ENDS[0]


def _characters(vocab: dict[str, int], pre_tokenizer: dict[str, Any] | None, end: int) -> dict[str, Any]:
    """A tokenizer of one token per character: byte-pair encoding without a merge."""
    decoder = {"type": "Fuse"} if pre_tokenizer is None else pre_tokenizer
    model: dict[str, Any] = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": vocab | {ENDS[0]: end}, "merges": [],
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [_special(ENDS[0], end)],
        "normalizer": None, "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": decoder, "model": model,
    }  # fmt: skip


def _special(content: str, number: int) -> dict[str, Any]:
    return {
        "id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": True,
    }  # fmt: skip


def _with_end(tokenizer: FileTokenizer) -> tuple[dict[str, Any], str]:
    """The file's own value, with the end of a document added where the file has none."""
    spec = json.loads(tokenizer.content)
    added = spec.get("added_tokens") or []
    names = {item["id"]: item["content"] for item in added}
    if tokenizer.end_of_document in names:
        return spec, names[tokenizer.end_of_document]
    return spec | {"added_tokens": [*added, _special(ENDS[0], tokenizer.end_of_document)]}, ENDS[0]


def read_tokenizer_content(folder: Path) -> str:
    """The content of the tokenizer.json of a published folder, made from vocab.json and merges.txt where it is missing.

    Raises `UserError` where there is no tokenizer that can be read.
    """
    path = folder / TOKENIZER_FILE
    if path.exists():
        return _text(path)
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if vocab.exists() and merges.exists():
        return _from_merges(vocab, merges)
    check(
        not (folder / "tokenizer.model").exists(),
        f"{folder} holds its tokenizer as tokenizer.model, of SentencePiece; save it once as {TOKENIZER_FILE}: "
        f"AutoTokenizer.from_pretrained(PATH).save_pretrained(PATH)",
    )
    raise UserError(f"{folder} holds no tokenizer: there is no {TOKENIZER_FILE}; copy it beside config.json")


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _from_merges(vocab: Path, merges: Path) -> str:
    """The byte-level tokenizer of GPT-2's two files (Radford 2019)."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    ids = read_json(vocab, "vocabulary", FETCH_AGAIN)
    try:
        checked_ids((number, piece) for piece, number in ids.items())  # one of billions would end this process
        open_regular(merges).close()  # the library would wait for the other end of a pipe
    except OSError as error:
        raise UserError(f"{merges} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{vocab} is no vocabulary, which maps each token to its id: {str(error)[:200]}") from None
    with in_one_sentence(f"{vocab} and {merges} are no byte-level tokenizer"):
        tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([end for end in ENDS if tokenizer.token_to_id(end) is not None])
    content: str = tokenizer.to_str()
    return content
