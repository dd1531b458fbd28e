"""Records of JSON lines, JSON arrays and Parquet as documents: which of their texts are prompts, and which answers."""

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lmscale.core.config.template import Form, Template
from lmscale.lm.data.corpora.chunks import Unreadable
from lmscale.lm.data.corpora.text_formats import MOST_BYTES, read_lines, text_chunks

ASSISTANT = "assistant"
MESSAGES = "messages"
INSTANCES = "instances"
"""The field of a record that stands for several: fields that they do not have are the record's own."""


class Problem(Exception):
    """Why a record is no document: what is wrong with it, and a detail of this one."""

    def __init__(self, problem: str, detail: str = "") -> None:
        super().__init__(problem)
        self.problem, self.detail = problem, detail


class Record(NamedTuple):
    """A record of a file, or why there is none."""

    number: int
    """Counted from 1: the line, or the place in an array."""
    value: Any
    problem: str = ""


class Writer(Protocol):
    """How the fields of a record are written as text."""

    @property
    def fields(self) -> Sequence[str]:
        """The fields that it may ask for."""

    def __call__(self, record: Mapping[str, Any]) -> Iterator[list[str]]:
        """The documents of a record, each as its parts: alternately a prompt, which may be empty, and an answer.

        A single part is a text without a prompt. Raises `Problem`.
        """


class Fields:
    """The text of one field, or of a prompt's field and one more; see `Writer`."""

    def __init__(self, text_field: str, prompt_field: str | None) -> None:
        self.fields = [*filter(None, [prompt_field]), text_field]
        self.answer = text_field

    def __call__(self, record: Mapping[str, Any]) -> Iterator[list[str]]:
        yield [_text(record, name) for name in self.fields]


class Filled:
    """The forms of a template, filled with the fields of a record; see `Writer`."""

    def __init__(self, template: Template) -> None:
        self.template = template
        fields = dict.fromkeys(name for form in template.forms for name in form.fields)
        self.fields = [MESSAGES] if template.messages else [*fields, INSTANCES]

    def __call__(self, record: Mapping[str, Any]) -> Iterator[list[str]]:
        if self.template.messages:
            yield self._conversation(record)
            return
        instances = record.get(INSTANCES)
        if not isinstance(instances, list | tuple) or INSTANCES in self.template.forms[0].fields:
            yield self._filled(record)
            return
        if not instances:
            raise Problem(f"whose list {INSTANCES!r} is empty")
        for instance in instances:
            if not isinstance(instance, dict):
                raise Problem(f"whose list {INSTANCES!r} holds something else than objects")
            yield self._filled({**record, **instance})

    @property
    def answer(self) -> str:
        """The field that is learned; of messages the list of them."""
        return MESSAGES if self.template.messages else self.template.forms[0].answer

    def _filled(self, record: Mapping[str, Any]) -> list[str]:
        *others, last = self.template.forms
        form = next((form for form in others if all(record.get(name) not in (None, "") for name in form.fields)), last)
        texts = {name: _text(record, name) for name in form.fields}
        prompt = "".join(before + texts[name] for before, name in form.pieces[:-1]) + form.pieces[-1][0]
        return [prompt, _answer(texts[form.answer], form)]

    def _conversation(self, record: Mapping[str, Any]) -> list[str]:
        """What is said before each answer of the assistant, and the answer; what follows the last one is left out."""
        messages = record.get(MESSAGES)
        if messages is None:
            raise Problem(f"without the field {MESSAGES!r}", _names(record))
        if not isinstance(messages, list | tuple) or not all(isinstance(message, dict) for message in messages):
            raise Problem(f"whose field {MESSAGES!r} is no list of objects with role and content")
        parts, before = [], ""
        for message in messages:
            texts = {name: _text(message, name) for name in ("role", "content")}
            [form] = self.template.forms
            *start, (literal, name) = form.pieces
            before += "".join(text + texts[field] for text, field in start) + literal
            if texts["role"] == ASSISTANT:
                parts += [before, _answer(texts[name], form)]
                before = ""
            else:
                before += texts[name] + form.ending
        if not parts:
            raise Problem(f"without a message whose role is {ASSISTANT!r}")
        return parts


def _answer(text: str, form: Form) -> str:
    if not text.strip():
        raise Problem(f"with an empty answer, the field {form.answer!r}")
    return text + form.ending


def _text(record: Mapping[str, Any], name: str) -> str:
    """A field of a record. Raises `Problem` unless it is a text that UTF-8 can write."""
    if name not in record:
        raise Problem(f"without the field {name!r}", _names(record))
    value = record[name]
    if not isinstance(value, str):
        raise Problem(f"whose field {name!r} is not text", f": {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Problem("with a lone surrogate, which UTF-8 cannot write") from None
    return value


def _names(record: Mapping[str, Any]) -> str:
    return f" with fields {', '.join(map(repr, record)) or 'none'}"


def documents_of(record: Record, write: Writer) -> Iterator[list[bytes]]:
    """The documents of a record as parts in UTF-8. Raises `Problem`."""
    if record.problem:
        raise Problem(record.problem)
    if not isinstance(record.value, dict):
        raise Problem("not a JSON object")
    for parts in list(write(record.value)):
        yield [part.encode() for part in parts]


def lines(path: Path) -> Iterator[Record]:
    """The records of a file of JSON lines; empty lines are left out. Raises `Unreadable`."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            try:
                yield Record(number, json.loads(line.removeprefix(codecs.BOM_UTF8).decode()))
            except UnicodeDecodeError:
                yield Record(number, None, "not UTF-8")
            except (ValueError, RecursionError):
                yield Record(number, None, "not JSON")


def array(path: Path) -> Iterator[Record]:
    """The records of a file that is one JSON array. Raises `Unreadable`."""
    text = _bounded(text_chunks(path))
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not a whole JSON array ({error})") from None
    if not isinstance(values, list):
        raise Unreadable("one JSON value that is no array of records")
    for number, value in enumerate(values, start=1):
        yield Record(number, value)


def _bounded(chunks: Iterable[bytes]) -> bytes:
    pieces, size = [], 0
    for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size > MOST_BYTES:
            raise Unreadable(f"one JSON array of more than {MOST_BYTES:,} bytes; write its records one per line")
    return b"".join(pieces)
