import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from lmscale.core.config import DataConfig
from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer import (
    FileTokenizer,
    Tokenizer,
    bits_per_byte,
    count_bytes,
    file,
    load,
    long_texts,
    train,
    train_bpe,
)

BYTES = load("bytes")


@pytest.mark.parametrize("text", ["", "plain", "né — 日本語 🙂\n\0end"])
def test_text_survives_the_round_trip_exactly(text: str) -> None:
    tokens = BYTES.encode(text)
    assert tokens.dtype == np.uint8 and len(tokens) == len(text.encode())
    assert BYTES.decode(tokens) == text


def test_documents_survive_the_round_trip_and_ends_stand_between_them() -> None:
    texts = [b"one", "zwö".encode(), b"x"]
    tokens, lengths = BYTES.encode_documents(texts)
    assert tokens.tolist() == [*b"one", 255, *"zwö".encode(), 255, ord("x"), 255]
    assert lengths.tolist() == [4, 5, 2]
    assert BYTES.decode_documents(tokens) == texts
    with pytest.raises(UserError, match="last 1 tokens lack their end"):
        BYTES.decode_documents(tokens[:-1])


def test_no_utf8_text_holds_the_end_of_a_document() -> None:
    every_character = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])).encode()
    assert BYTES.end_of_document not in np.frombuffer(every_character, np.uint8)
    with pytest.raises(UserError, match="text 1 holds the byte 0xFF"):
        BYTES.encode_documents([b"fine", b"\xff\xfe"])
    with pytest.raises(UserError, match="lone surrogate"):
        BYTES.encode("a\ud800")


def test_any_ids_decode_to_some_text() -> None:
    assert BYTES.decode(np.array([0xC3, 0x41, 255, 0x42])) == "\ufffdAB"


def test_bytes_of_the_tokens_scored_leave_document_ends_out() -> None:
    tokens, _ = BYTES.encode_documents(["é🙂".encode(), b"ab"])
    assert len(tokens) == 10
    assert count_bytes(BYTES, tokens) == 8
    assert count_bytes(BYTES, tokens[1:7].reshape(2, 3)) == 5  # half a character counts its bytes


def test_bits_per_byte_of_a_uniform_guess_is_eight_and_an_end_costs_its_nats() -> None:
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8.0)
    assert bits_per_byte(10 * math.log(256), 9) == pytest.approx(80 / 9)
    with pytest.raises(UserError, match="0 bytes"):
        bits_per_byte(1.0, 0)


def test_an_unknown_tokenizer_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'bytes'"):
        load("byte")


def words(size: int = 60_000) -> list[bytes]:
    """Documents of made words: enough pairs for a few hundred merges."""
    rng = random.Random(0)
    letters = [*"etaoinshr", "é", "日", "🙂"]
    lexicon = ["".join(rng.choices(letters, k=rng.randint(2, 7))) for _ in range(400)]
    text = " ".join(rng.choices(lexicon, weights=[1 / (i + 1) for i in range(400)], k=size // 6))
    return [text[i : i + 500].encode() for i in range(0, len(text), 500)]


def bpe(vocab: int = 400) -> FileTokenizer:
    return FileTokenizer(train_bpe(vocab, [words()], "words"), f"bpe:{vocab}")


MULTI_BYTE = ["", "plain", "né — 日本語 🙂\n\0end", "<|endoftext|> is text here", "  two  spaces ", "\r\n\t", "\u2581"]


@pytest.mark.parametrize("text", MULTI_BYTE)
def test_bpe_gives_any_text_back_and_its_bytes_are_those_of_its_tokens(text: str) -> None:
    tokenizer = bpe()
    tokens, lengths = tokenizer.encode_documents([text.encode(), b"next"])
    assert tokenizer.decode_documents(tokens) == [text.encode(), b"next"]
    assert lengths.sum() == len(tokens) and tokens[lengths[0] - 1] == tokenizer.end_of_document
    assert (tokens == tokenizer.end_of_document).sum() == 2
    assert count_bytes(tokenizer, tokens) == len(text.encode()) + 4
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [len(piece) for piece in tokenizer.pieces] == tokenizer.byte_lengths.tolist()


def test_bpe_has_the_vocabulary_asked_for_and_compresses() -> None:
    text = words()
    sizes = []
    for vocab in (257, 300, 400):
        tokenizer = bpe(vocab)
        tokens, _ = tokenizer.encode_documents(text)
        assert tokenizer.vocab == vocab and tokenizer.end_of_document == vocab - 1 == tokens.max()
        sizes.append(len(tokens))
    assert sizes[0] == sum(len(part) + 1 for part in text) > 1.4 * sizes[1] > 1.4 * sizes[2]
    assert bpe(400).dtype == np.uint16
    with pytest.raises(UserError, match=r"no more pairs to merge after .* ids, fewer than bpe:60000; take bpe:"):
        bpe(60_000)


@pytest.mark.long
def test_bpe_is_the_same_in_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r});"
        "from test_tokenizer import bpe; e = bpe(); print(e.fingerprint, *e.encode('some text é'))"
    )
    threads = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": "3", "PYTHONHASHSEED": "7"}
    line = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=threads).stdout
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    tokenizer = bpe()
    assert line.split() == [tokenizer.fingerprint, *map(str, tokenizer.encode("some text é"))]


def test_a_token_of_half_a_character_counts_half_its_bytes() -> None:
    tokenizer = bpe(257)  # no merges: a token per byte
    tokens = tokenizer.encode("é🙂")
    assert len(tokens) == 6 and count_bytes(tokenizer, tokens[1:4]) == 3
    assert tokenizer.decode(tokens[1:4]) == "\ufffd\ufffd"


def saved(tmp_path: Path, build: "tokenizers.Tokenizer") -> Tokenizer:
    build.save(str(tmp_path / "tokenizer.json"))
    return load(str(tmp_path / "tokenizer.json"))


def test_a_file_keeps_its_own_end_of_document_and_never_writes_a_special_token_for_text(tmp_path: Path) -> None:
    build = tokenizers.Tokenizer.from_str(train_bpe(300, [words()], "words"))
    build.add_special_tokens(["</s>", "<pad>"])
    build.add_tokens(["<tool>"])
    build.enable_truncation(4)
    build.enable_padding()
    build.post_processor = tokenizers.processors.TemplateProcessing(
        single="</s> $A </s>", special_tokens=[("</s>", 300)]
    )
    tokenizer = saved(tmp_path, build)
    assert tokenizer.vocab == 303 and tokenizer.end_of_document == 299  # <|endoftext|> comes before </s>
    text = b"<pad></s><|endoftext|> a <tool> that is text"
    tokens, lengths = tokenizer.encode_documents([text])
    assert tokenizer.decode_documents(tokens) == [text] and lengths[0] == len(tokens) > 20
    assert set(tokens.tolist()) & {299, 300, 301, 302} == {299, 302}
    assert tokenizer.byte_lengths[[299, 300, 301, 302]].tolist() == [0, 0, 0, 6]
    assert count_bytes(tokenizer, tokens) == len(text)


def test_a_file_without_an_end_of_document_gets_one_more_id(tmp_path: Path) -> None:
    build = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "\u2581": 2, "ab": 3}, [("a", "b")]))
    build.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    build.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    )
    tokenizer = saved(tmp_path, build)
    assert (tokenizer.vocab, tokenizer.end_of_document) == (5, 4)
    tokens, _ = tokenizer.encode_documents([b"ab ba"])
    assert tokens.tolist() == [3, 2, 1, 0, 4] and tokenizer.byte_lengths.tolist() == [1, 1, 1, 2, 0]
    with pytest.raises(UserError, match=r"does not give text 1 back: from byte 1 on it reads 'b' instead of 'xb'"):
        tokenizer.encode_documents([b"ab", b"axb"])  # x is unknown and vanishes


@pytest.mark.parametrize(
    ("normalizer", "text", "message"),
    [
        (tokenizers.normalizers.Lowercase(), "say Hi", r"from byte 4 on it reads 'hi' instead of 'Hi'"),
        (tokenizers.normalizers.NFC(), "e\u0301", r"from byte 0 on it reads 'é' instead of"),
        (tokenizers.normalizers.Prepend(" "), "word", r"from byte 0 on it reads ' word' instead of 'word'"),
    ],
)
def test_a_tokenizer_that_loses_text_is_refused_with_the_place(
    tmp_path: Path, normalizer: object, text: str, message: str
) -> None:
    build = tokenizers.Tokenizer.from_str(train_bpe(300, [words()], "words"))
    build.normalizer = normalizer
    with pytest.raises(UserError, match=message):
        saved(tmp_path, build).encode_documents([text.encode()])


def test_symbols_are_characters() -> None:
    for vocab, width in ((34, 1), (95, 1), (96, 3), (300, 3)):
        symbols = load(f"symbols:{vocab}")
        ids = np.array([0, vocab - 2, 1])
        text = symbols.decode(ids)
        assert symbols.encode(text).tolist() == ids.tolist() and len(text.encode()) == 3 * width
        tokens, lengths = symbols.encode_documents([text.encode(), text[:1].encode()])
        assert tokens.tolist() == [*ids, vocab - 1, 0, vocab - 1] and lengths.tolist() == [4, 2]
        assert symbols.decode_documents(tokens) == [text.encode(), text[:1].encode()]
        assert count_bytes(symbols, tokens) == 4 * width
        with pytest.raises(UserError, match="last 1 tokens lack their end"):
            symbols.decode_documents(tokens[:-1][:5])
        with pytest.raises(UserError, match=r"character 1 of the text, ' ', is no symbol"):
            symbols.encode(text[:1] + " ")


def test_a_tokenizer_that_is_not_there_or_no_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer file nowhere.json"):
        load("nowhere.json")
    (tmp_path / "some.json").write_text("{}")
    with pytest.raises(UserError, match=r"some.json is no tokenizer.json \(KeyError"):
        load(str(tmp_path / "some.json"))
    with pytest.raises(UserError, match=r"trained on a corpus, so a name is not enough"):
        load("bpe:300")
    for name, message in {
        "bpe:256": "at least 257",
        "bytess": "did you mean 'bytes'",
        "bpe": "did you mean 'bpe:",
    }.items():
        with pytest.raises(UserError, match=message):
            DataConfig(tokenizer=name)


def test_long_texts_are_read_in_pieces_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["it's", "é", "\u00a0", "  ", "\n\n", "a1", "...", "\u2028", "x" * 40, "\t", "Wort", "\n", " ", "we'll"]
    rng = np.random.default_rng(0)
    text = "".join(words[i] + " " * (i % 2) for i in rng.integers(0, len(words), 4000)).encode()
    whole = train_bpe(400, [[text]], "text")
    ids, _ = FileTokenizer(whole, "t.json").encode_documents([text, b"short", text])
    for size in (1, 10, 1000):
        for module in (long_texts, file, train):
            monkeypatch.setattr(module, "PIECE_BYTES", size)
        parts = list(long_texts.pieces(text))
        assert b"".join(parts) == text and len(parts) > 9
        assert train_bpe(400, [[text]], "text") == whole
        assert (FileTokenizer(whole, "t.json").encode_documents([text, b"short", text])[0] == ids).all()
