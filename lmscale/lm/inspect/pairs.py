"""Pairs of prompts that differ in one fact, as text and as tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.eval.tasks.files import field, read_lines

FIELDS = ("prompt", "answer", "other_prompt", "other_answer")
"""Fields of a pair in a JSONL file, all texts; an answer begins with the space that stands before it."""
Ids = NDArray[np.int32]


class Pair(NamedTuple):
    """Two prompts and the right answer to each."""

    prompt: str
    answer: str
    other_prompt: str
    other_answer: str


class PairTokens(NamedTuple):
    """Pairs as tokens, N of them; a prompt begins with the end of a document, as in training, and is padded behind."""

    prompt_NT: Ids
    other_NT: Ids
    end_N: Ids
    """Position of the last token of both prompts, whose logits are of the first token in which the answers differ."""
    answer_N: Ids
    """The first token in which the answers differ, of the answer to the first prompt."""
    other_answer_N: Ids

    @property
    def pair_count(self) -> int:
        """N."""
        return len(self.end_N)

    def swapped(self) -> "PairTokens":
        """The pairs with the other prompts first. The answers stay in their order."""
        return self._replace(prompt_NT=self.other_NT, other_NT=self.prompt_NT)

    def take(self, numbers: NDArray[np.integer]) -> "PairTokens":
        """Some of the pairs, by number."""
        return PairTokens(*(array[numbers] for array in self))


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a JSONL file. Raises `UserError` naming line and field of what is no pair."""
    pairs = []
    for where, row in read_lines(path):
        pair = Pair(*(field(row, name, str, where) for name in FIELDS))
        check(bool(pair.answer and pair.other_answer), f"{where}: an answer is empty; give the text that comes next")
        pairs.append(pair)
    check(bool(pairs), f"{path} has no pairs; write one per line, an object with {', '.join(FIELDS)}")
    return pairs


def comparable(pairs: Sequence[Pair], tokenizer: Tokenizer, context: int) -> list[Pair]:
    """The pairs whose positions can be compared: `pair_tokens` raises nothing of them."""

    def fits(pair: Pair) -> bool:
        try:
            _tokens(pair, tokenizer, context, "")
        except UserError:
            return False
        return True

    return [pair for pair in pairs if fits(pair)]


def pair_tokens(pairs: Sequence[Pair], tokenizer: Tokenizer, context: int, name: str = "pair") -> PairTokens:
    """Pairs as tokens. Raises `UserError` for prompts of unequal length, answers that do not differ, and for a prompt
    that does not fit the context, naming the pair by its number."""
    check(bool(pairs), "there are no pairs to measure; give at least one")
    rows = [_tokens(pair, tokenizer, context, f"{name} {number}") for number, pair in enumerate(pairs, 1)]
    longest = max(len(row[0]) for row in rows)
    prompts, others, answers, other_answers = zip(*rows)
    return PairTokens(
        np.stack([np.pad(prompt, (0, longest - len(prompt))) for prompt in prompts]),
        np.stack([np.pad(prompt, (0, longest - len(prompt))) for prompt in others]),
        np.array([len(prompt) - 1 for prompt in prompts], np.int32),
        np.array(answers, np.int32),
        np.array(other_answers, np.int32),
    )


def _tokens(pair: Pair, tokenizer: Tokenizer, context: int, where: str) -> tuple[Ids, Ids, int, int]:
    """Both prompts with what the answers have in common, and the first token in which they differ.

    Prompt and answer are encoded together, as they stand in a text, so that a token may reach over the end of the
    prompt.
    """
    first, other = (_asked(prompt, pair, tokenizer, where) for prompt in (pair.prompt, pair.other_prompt))
    check(
        len(first[0]) == len(other[0]),
        f"{where}: its prompts have {len(first[0])} and {len(other[0])} tokens, so that their positions do not "
        "correspond; give prompts of as many tokens",
    )
    check(
        first[1:] == other[1:],
        f"{where}: the tokenizer joins an answer to one prompt otherwise than to the other; begin both answers with a "
        "space, or end both prompts alike",
    )
    check(bool((first[0] != other[0]).any()), f"{where}: its prompts are the same; change the fact in one of them")
    check(
        len(first[0]) <= context,
        f"{where}: {len(first[0])} tokens, the end of a document before them included, do not fit the context of "
        f"{context}; give shorter prompts",
    )
    return first[0], other[0], first[1], first[2]


def _asked(prompt: str, pair: Pair, tokenizer: Tokenizer, where: str) -> tuple[Ids, int, int]:
    """A prompt as tokens up to where the two answers differ, and the token of each there."""
    try:
        texts = [np.asarray(tokenizer.encode(prompt + answer), np.int32) for answer in (pair.answer, pair.other_answer)]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    shortest = min(map(len, texts))
    differs = np.flatnonzero(texts[0][:shortest] != texts[1][:shortest])
    check(
        len(differs) > 0,
        f"{where}: the answer {pair.answer!r:.40} begins with the other, {pair.other_answer!r:.40}, or they are the "
        "same; give two that differ in a token",
    )
    at = int(differs[0])
    end = np.array([tokenizer.end_of_document], np.int32)
    return np.concatenate([end, texts[0][:at]]), int(texts[0][at]), int(texts[1][at])
