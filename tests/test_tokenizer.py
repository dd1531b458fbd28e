import math

import numpy as np
import pytest

from lmscale import tokenizer
from lmscale.errors import UserError

BYTES = tokenizer.load("bytes")


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
    assert tokenizer.count_bytes(BYTES, tokens) == 8
    assert tokenizer.count_bytes(BYTES, tokens[1:7].reshape(2, 3)) == 5  # half a character counts its bytes


def test_bits_per_byte_of_a_uniform_guess_is_eight_and_an_end_costs_its_nats() -> None:
    assert tokenizer.bits_per_byte(100 * math.log(256), 100) == pytest.approx(8.0)
    assert tokenizer.bits_per_byte(10 * math.log(256), 9) == pytest.approx(80 / 9)
    with pytest.raises(UserError, match="0 bytes"):
        tokenizer.bits_per_byte(1.0, 0)


def test_an_unknown_tokenizer_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'bytes'"):
        tokenizer.load("byte")
