"""How the fields of a record become prompts and answers: templates by name, or as a text with fields."""

import re
import string
from dataclasses import dataclass
from functools import lru_cache

from lmscale.core.errors import UserError, nearest

TEMPLATES: dict[str, tuple[str, ...]] = {
    "alpaca": (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}"
        "\n\n### Response:\n{output}",
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{instruction}\n\n### Response:\n{output}",
    ),
    "completion": ("{prompt}{completion}",),
    "preference": ("{prompt}{chosen}",),
    "chat": ("<|im_start|>{role}\n{content}<|im_end|>\n",),
}
"""The templates of Stanford Alpaca (Taori 2023), of prompt and completion, of prompt and chosen answer, and of messages
as ChatML writes them."""
MESSAGE_FIELDS = {"role", "content"}
"""A template of these formats one message of a conversation."""
FIELD = re.compile(r"\w[\w -]*")


@dataclass(frozen=True)
class Form:
    """A text with fields. What comes before the last of them is the prompt; that field and what follows, the answer."""

    pieces: tuple[tuple[str, str], ...]
    """Literal text, and the field behind it."""
    ending: str
    """Literal text behind the last field."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields, each once."""
        return tuple(dict.fromkeys(field for _, field in self.pieces))

    @property
    def answer(self) -> str:
        """The field that is learned."""
        return self.pieces[-1][1]


@dataclass(frozen=True)
class Template:
    """What a record is written as: the first form whose fields it has, none of them empty."""

    forms: tuple[Form, ...]
    texts: tuple[str, ...]

    @property
    def messages(self) -> bool:
        """Whether it formats the messages of a conversation."""
        return set(self.forms[0].fields) == MESSAGE_FIELDS

    @property
    def text(self) -> str:
        """The template in full, as a manifest shows it."""
        return "\n\nor without the input:\n\n".join(self.texts)


@lru_cache
def parse_template(template: str) -> Template:
    """The template of a name or a text. Raises `UserError` for a text without fields or with some that are unnamed."""
    texts = TEMPLATES.get(template, (template,))
    return Template(tuple(_form(text) for text in texts), texts)


def _form(text: str) -> Form:
    shown = f"DataConfig.template = {text if len(text) <= 60 else text[:60] + '...'!r}"
    try:
        parsed = [(literal, name, spec or conversion) for literal, name, spec, conversion in _parts(text)]
    except ValueError as error:
        raise UserError(f"{shown}: {error}; a field is a name in braces, and a brace itself is doubled") from None
    pieces, literal = [], ""
    for before, name, formatting in parsed:
        literal += before
        if name is None:
            continue
        if formatting or not FIELD.fullmatch(name):
            raise UserError(f"{shown}: {{{name}}} is no field; write the name of one of a record, as in {{question}}")
        pieces.append((literal, name))
        literal = ""
    if not pieces:
        raise UserError(
            f"{shown} holds no field of a record; write one as in '{{question}} {{answer}}', or name one of "
            f"{', '.join(map(repr, TEMPLATES))}{nearest(text, TEMPLATES)}"
        )
    form = Form(tuple(pieces), literal)
    if len(pieces) == 1 and not pieces[0][0]:
        raise UserError(
            f"{shown} has nothing before its last field {{{form.answer}}}, so there is no prompt; give "
            f"text_field={form.answer!r} instead, or put a prompt before it"
        )
    return form


def _parts(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    return list(string.Formatter().parse(text))
