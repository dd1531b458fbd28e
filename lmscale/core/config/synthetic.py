"""Synthetic languages and their parameters, as in `synthetic:zipf-facts(gamma=1.5, facts=4096)`.

What each language is and what is known about it stands in `lmscale.lm.data.languages`; here are only names, ranges and
defaults.
"""

import ast
import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from lmscale.core.config.checks import check, check_types, positive
from lmscale.core.errors import UserError, nearest

PREFIX = "synthetic:"
MOST_FACTS = 1 << 20
MOST_SYMBOLS = 4096


@dataclass(frozen=True, kw_only=True)
class Language:
    """The parameters that all languages share."""

    NAME = ""

    seed: int = 0
    """Which language of its kind: its facts, its probabilities. The order of the text has its own seed, the run's."""
    documents: int | None = None
    """Write this many documents to disk, as a corpus like any other; None generates endless text on the device."""
    document_tokens: int = 512
    """Length of a document on disk, in symbols of the language."""

    def __post_init__(self) -> None:
        check_types(self)
        check(0 <= self.seed < 1 << 31, f"{self.NAME}: seed = {self.seed}: take 0 to {2**31 - 1}")
        positive(self, "document_tokens")
        if self.documents is not None:
            positive(self, "documents")

    def within(self, name: str, least: float, most: float) -> None:
        """Raise `UserError` unless the field `name` lies between `least` and `most`."""
        value = getattr(self, name)
        check(
            least <= value <= most,
            f"{PREFIX}{self.NAME}: {name} = {value:,} must lie between {least:,} and {most:,}; the nearest is "
            f"{min(max(value, least), most):,}",
        )

    @property
    def vocab(self) -> int:
        """Ids of the endless text, the end of a document among them."""
        raise NotImplementedError

    @property
    def end_of_document(self) -> int:
        """The id between documents, the last."""
        return self.vocab - 1

    @property
    def tokenizer(self) -> str:
        """The tokenizer of the endless text."""
        return f"symbols:{self.vocab}"

    @property
    def spec(self) -> str:
        """The language as in `DataConfig.source`, with the parameters that differ from their defaults."""
        changed = {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != item.default
        }
        parameters = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        return f"{PREFIX}{self.NAME}({parameters})" if parameters else PREFIX + self.NAME


@dataclass(frozen=True, kw_only=True)
class ZipfFacts(Language):
    """Facts drawn with p(x) ~ x^-gamma, each with one fixed answer."""

    NAME = "zipf-facts"

    gamma: float = 1.5
    """Exponent of the frequency of facts over their rank."""
    facts: int = 65_536
    base: int = 16
    """A fact's rank is written with digits of this base, the most significant first."""
    answers: int = 16
    """Number of different answers, all equally likely."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.within("gamma", 1.0, 8.0)
        self.within("facts", 2, MOST_FACTS)
        self.within("base", 2, 256)
        self.within("answers", 2, 256)

    @property
    def vocab(self) -> int:
        """Digits, answers, the end of a document."""
        return self.base + self.answers + 1

    @property
    def digits(self) -> int:
        """Symbols of a rank."""
        digits, reach = 1, self.base
        while reach < self.facts:
            digits, reach = digits + 1, reach * self.base
        return digits


@dataclass(frozen=True, kw_only=True)
class HiddenMarkov(Language):
    """A hidden Markov chain with Zipfian symbols whose next state follows from state and symbol."""

    NAME = "hidden-markov"

    states: int = 32
    symbols: int = 64
    zipf: float = 1.0
    """The symbol of rank r has probability ~ r^-zipf over a long text."""
    spread: float = 1.0
    """Standard deviation, in nats, of a state's effect on the log-probability of a symbol; 0: states do not matter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.within("states", 1, 1024)
        self.within("symbols", 2, MOST_SYMBOLS)
        self.within("zipf", 0.0, 4.0)
        self.within("spread", 0.0, 4.0)

    @property
    def vocab(self) -> int:
        """Symbols and the end of a document."""
        return self.symbols + 1


@dataclass(frozen=True, kw_only=True)
class TextLanguage(Language):
    """A language of lines of text."""

    @property
    def vocab(self) -> int:
        """Bytes; 0xFF ends a document."""
        return 256

    @property
    def tokenizer(self) -> str:
        """Text in ASCII, so that it mixes with other text."""
        return "bytes"


@dataclass(frozen=True, kw_only=True)
class Tasks(TextLanguage):
    """Algorithmic tasks as lines of text."""

    NAME = "tasks"

    only: str = ""
    """Names of tasks, separated by spaces; empty means all."""
    letters: int = 8
    """Size of the alphabet of copy, reverse, histogram, sort and most-frequent."""
    length: int = 8
    """Letters, or brackets, of a question."""
    digits: int = 3
    """Digits of each number to be added."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.within("letters", 2, 26)
        self.within("length", 2, 9)
        self.within("digits", 1, 9)
        for name in self.names:
            check(name in TASKS, f"{PREFIX}{self.NAME}: there is no task {name!r}{nearest(name, TASKS)}")
        brackets = "brackets" in self.names
        check(
            not brackets or self.length % 2 == 0,
            f"{PREFIX}{self.NAME}: length = {self.length}: brackets come in pairs, so take {self.length - 1}",
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks in use, in the order of `TASKS`."""
        names = self.only.split()
        return tuple(dict.fromkeys(names)) if names else TASKS


@dataclass(frozen=True, kw_only=True)
class Repeats(TextLanguage):
    """Random words, each written several times, as lines of text."""

    NAME = "repeats"

    letters: int = 64
    """Size of the alphabet, printable characters of ASCII."""
    shortest: int = 4
    """Letters of the shortest word."""
    longest: int = 32
    """Letters of the longest word, all of them different."""
    copies: int = 2
    """How often a word is written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.within("letters", 2, 94)
        self.within("longest", 2, self.letters)
        self.within("shortest", 1, self.longest)
        self.within("copies", 1, 64)


TASKS = ("copy", "reverse", "histogram", "sort", "most-frequent", "brackets", "addition")
TASK_WORDS = {
    "copy": "copy",
    "reverse": "reverse",
    "histogram": "count",
    "sort": "sort",
    "most-frequent": "most",
    "brackets": "brackets",
    "addition": "add",
}
"""How a line of each task begins."""
LANGUAGES: dict[str, type[Language]] = {kind.NAME: kind for kind in (ZipfFacts, HiddenMarkov, Tasks, Repeats)}


def is_synthetic(source: str) -> bool:
    """Whether a source is a synthetic language."""
    return source.startswith(PREFIX)


def is_tasks(source: str) -> bool:
    """Whether a source is the language of tasks, whose lines are questions with answers."""
    return source.startswith(f"{PREFIX}{Tasks.NAME}")


def parse(source: str) -> Any:
    """The language that `source` names, checked. Raises `UserError` naming the parameter or the nearest name."""
    match = re.fullmatch(r"([^()]*?)\s*(?:\((.*)\))?\s*", source.removeprefix(PREFIX).strip())
    check(
        match is not None,
        f"{source!r} cannot be read; write it as {PREFIX}zipf-facts(gamma=1.5, facts=4096)",
    )
    assert match is not None
    name, arguments = match[1], match[2] or ""
    check(name in LANGUAGES, f"there is no synthetic language {name!r}{nearest(name, LANGUAGES)}")
    kind = LANGUAGES[name]
    known = {item.name for item in dataclasses.fields(kind)}
    parameters = _arguments(source, arguments)
    for field in parameters:
        check(field in known, f"{PREFIX}{name} has no parameter {field!r}{nearest(field, known)}")
    return kind(**parameters)


def _arguments(source: str, arguments: str) -> dict[str, Any]:
    """NAME=VALUE pairs; values are numbers or quoted words."""
    try:
        call = ast.parse(f"f({arguments})", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return {str(pair.arg): ast.literal_eval(pair.value) for pair in call.keywords if pair.arg is not None}
    except (SyntaxError, ValueError, AssertionError, AttributeError):
        raise UserError(
            f"{source!r} cannot be read; write parameters as NAME=VALUE with words in quotes, as in "
            f"{PREFIX}zipf-facts(gamma=1.5) or {PREFIX}tasks(only='copy')"
        ) from None


def longest_prompt(spec: Tasks) -> int:
    """Characters of the longest line up to its answer: the task's word, a space, the question, an equals sign."""
    lengths = {name: 2 * spec.digits + 1 if name == "addition" else spec.length for name in spec.names}
    return max(len(TASK_WORDS[name]) + 2 + length for name, length in lengths.items())
