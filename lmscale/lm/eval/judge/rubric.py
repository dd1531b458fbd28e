"""A rubric: what a judge is asked about a text, on which scale, and how the question is put.

A rubric is a TOML or JSON file; `rubrics/tinystories.toml` beside this file is one.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lmscale.core.config import check
from lmscale.core.config.checks import check_types, from_json
from lmscale.core.errors import UserError, nearest
from lmscale.core.files import parse_json
from lmscale.lm.eval.tasks.files import read_text

LARGEST_GRADE = 1000
SHIPPED = ("tinystories",)
"""Rubrics of the package, by name."""
Messages = list[dict[str, str]]
"""What a chat model is asked: roles and contents."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One thing that is graded: with a whole number from `lowest` to `highest`, or with one of `choices`."""

    name: str
    question: str
    lowest: int = 1
    highest: int = 10
    choices: tuple[str, ...] = ()
    """Instead of a number, in their order."""
    values: tuple[float, ...] = ()
    """What each choice counts; 0, 1, 2, ... where it is left out."""

    def __post_init__(self) -> None:
        check_types(self)
        where = f"the criterion {self.name!r} of a rubric"
        check(self.name.isidentifier(), f"{where}: its name is a column, of letters, digits and _")
        check(bool(self.question.strip()), f"{where} has no question")
        check(
            -LARGEST_GRADE <= self.lowest < self.highest <= LARGEST_GRADE,
            f"{where} goes from {self.lowest} to {self.highest}: lowest < highest, both at most {LARGEST_GRADE}",
        )
        check(len(self.choices) != 1, f"{where} has one choice; give at least two, or none for a number")
        check(len(set(self.choices)) == len(self.choices), f"{where} has a choice twice")
        check(
            len(self.values) in (0, len(self.choices)),
            f"{where} has {len(self.choices)} choices and {len(self.values)} values; give each choice one",
        )
        check(all(abs(value) <= LARGEST_GRADE for value in self.values), f"{where}: values are at most {LARGEST_GRADE}")

    @property
    def _values(self) -> dict[str, float]:
        return dict(zip(self.choices, self.values or map(float, range(len(self.choices)))))

    @property
    def scale(self) -> str:
        """The answers that are allowed, in the words of the question to the judge."""
        if self.choices:
            return "one of " + ", ".join(map(json.dumps, self.choices))
        return f"a whole number from {self.lowest} to {self.highest}, where {self.highest} is best"

    def value(self, answer: Any) -> float | None:
        """What an answer counts; None where it is not on the scale."""
        if self.choices:
            return self._values.get(answer) if isinstance(answer, str) else None
        fits = type(answer) is int and self.lowest <= answer <= self.highest
        return float(answer) if fits else None


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """What a judge reads before the texts: its part, the criteria and how to answer."""

    name: str
    instructions: str
    """Who the judge is, and what it reads."""
    criteria: tuple[Criterion, ...]
    preference: str = "Which continuation is better?"
    """The question about a pair."""
    openings: tuple[str, ...] = ()
    """Prompts that a run continues where no others are given."""
    source: str = ""
    """Where the rubric comes from; the judge does not read this."""

    def __post_init__(self) -> None:
        check_types(self)
        check(bool(self.name.strip()), "a rubric has no name")
        check(bool(self.criteria), f"the rubric {self.name!r} has no criteria: nothing would be graded")
        names = [criterion.name for criterion in self.criteria]
        check(len(set(names)) == len(names), f"the rubric {self.name!r} has a criterion twice: {', '.join(names)}")

    @property
    def hash(self) -> str:
        """A hash of all that the judge reads."""
        question = {**asdict(self), "openings": (), "source": ""}
        return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]

    def grading(self, prompt: str, text: str) -> Messages:
        """The question after the grades of one text."""
        lines = [f'- "{one.name}": {one.question} {one.scale[0].upper()}{one.scale[1:]}.' for one in self.criteria]
        names = ", ".join(f'"{one.name}": ...' for one in self.criteria)
        return [
            _message("system", f"{self.instructions}\n\nGrade these:\n" + "\n".join(lines) + "\n\n"
                     f"Answer with one JSON object and nothing else: {{{names}}}"),
            _message("user", f"{_beginning(prompt)}Continuation:\n<continuation>\n{text}\n</continuation>"),
        ]  # fmt: skip

    def comparing(self, prompt: str, first: str, second: str) -> Messages:
        """The question which of two texts is better."""
        return [
            _message("system", f"{self.instructions}\n\nYou see two continuations of one beginning, A and B. "
                     f"{self.preference}\n\n"
                     'Answer with one JSON object and nothing else: {"better": "A"}, {"better": "B"}, or, where '
                     'neither is better, {"better": "tie"}'),
            _message("user", f"{_beginning(prompt)}A:\n<continuation>\n{first}\n</continuation>\n\n"
                     f"B:\n<continuation>\n{second}\n</continuation>"),
        ]  # fmt: skip


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _beginning(prompt: str) -> str:
    return f"Beginning:\n<beginning>\n{prompt}\n</beginning>\n\n" if prompt else ""


def read_rubric(spec: str) -> Rubric:
    """A rubric of the package by its name, or one in a TOML or JSON file.

    Raises `UserError` for a name that is none, a file that cannot be read, and an unknown, missing or wrong field.
    """
    if spec in SHIPPED:
        return _rubric(tomllib.loads((files(__package__) / "rubrics" / f"{spec}.toml").read_text("utf-8")), spec)
    path = Path(spec)
    if path.suffix not in (".toml", ".json"):
        raise UserError(f"the rubric {spec!r} is no file that ends in .toml or .json{nearest(spec, SHIPPED)}")
    text = read_text(path)
    try:
        value = tomllib.loads(text) if path.suffix == ".toml" else parse_json(text)
    except (ValueError, RecursionError) as error:
        kind = path.suffix[1:].upper()
        raise UserError(f"the rubric {path} is not {kind}: {error or 'it is nested too deeply'}") from None
    return _rubric(value, str(path))


def _rubric(value: Any, where: str) -> Rubric:
    place = f"the rubric {where}"
    check(isinstance(value, Mapping), f"{place} is a {type(value).__name__}: a mapping of fields is expected")
    criteria = value.get("criteria", [])
    check(isinstance(criteria, list), f"{place}: criteria is a {type(criteria).__name__}; write [[criteria]] for each")
    read = tuple(from_json(Criterion, one, f"{place}, criterion {n}") for n, one in enumerate(criteria, 1))
    return from_json(Rubric, {**value, "criteria": read}, place)
