"""Records with a chosen and a rejected answer to one prompt, as documents: prompt, chosen, prompt, rejected."""

from collections.abc import Iterator, Mapping
from typing import Any

from lmscale.lm.data.corpora.records import MESSAGES, Fields, Filled, Problem

PARTS = 4
"""Parts of a document: the prompt stands there twice, so that each answer follows it in a sequence of its own."""


class Pairs:
    """A record written twice, the second time with the rejected answer in place of the chosen one; see `Writer`."""

    def __init__(self, write: Fields | Filled, rejected_field: str) -> None:
        """`write` writes one answer with its prompt."""
        self._write, self._rejected = write, rejected_field
        self.fields = [*write.fields, rejected_field]

    def __call__(self, record: Mapping[str, Any]) -> Iterator[list[str]]:
        if record.get(self._rejected) is None:
            names = f" with fields {', '.join(map(repr, record)) or 'none'}"
            raise Problem(f"without the field {self._rejected!r}", names)
        chosen = prompt_and_answer(self._write, record)
        try:
            rejected = prompt_and_answer(self._write, {**record, self._write.answer: self._answer_of(record)})
        except Problem as error:
            renamed = error.problem.replace(repr(self._write.answer), repr(self._rejected))
            raise Problem(renamed, error.detail) from None
        if not all(parts[-1].strip() for parts in (chosen, rejected)):
            raise Problem("with an empty answer")
        if chosen[0] != rejected[0]:
            raise Problem("whose two answers are to different prompts")
        if chosen[1] == rejected[1]:
            raise Problem("whose two answers are equal")
        if not chosen[0]:
            raise Problem("with an empty prompt")
        yield chosen + rejected

    def _answer_of(self, record: Mapping[str, Any]) -> Any:
        """What stands in place of the chosen answer; of messages a list that ends with the rejected one."""
        answer, messages = record[self._rejected], record.get(MESSAGES)
        if self._write.answer != MESSAGES or not isinstance(answer, str):
            return answer
        if not isinstance(messages, list | tuple) or not messages or not isinstance(messages[-1], dict):
            return messages  # which `write` refuses
        return [*messages[:-1], {**messages[-1], "content": answer}]


def prompt_and_answer(write: Fields | Filled, record: Mapping[str, Any]) -> list[str]:
    """Prompt and answer of one record. What came before the last answer of a conversation is its prompt.

    Raises `Problem`.
    """
    documents = list(write(record))
    if len(documents) != 1:
        raise Problem("with several prompts, where a pair has one")
    *before, answer = documents[0]
    return ["".join(before), answer]
