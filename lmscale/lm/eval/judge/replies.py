"""What a judge answered, read strictly: a grade, a preference, a refusal, or an answer that is malformed.

An answer counts only where it is exactly one JSON object with exactly the fields asked for, each on its scale. It may
stand in one code fence, and after one block of <think>, which some servers do not take away.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from lmscale.core.text import one_line
from lmscale.lm.eval.judge.rubric import Rubric

THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)
REFUSAL = re.compile(
    r"\b(i(?: a|')m (?:sorry|unable|not able)|i apologi[sz]e|"
    r"i (?:can ?not|can't|won't|will not|must decline)|as an ai)\b",
    re.IGNORECASE,
)
LONGEST_SHOWN = 60
Side = Literal["A", "B", "tie"]


@dataclass(frozen=True)
class Reply:
    """What a server answered to one request."""

    content: str
    finish_reason: str = "stop"
    refusal: str = ""
    """What the server itself marks as one."""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Unreadable:
    """A reply that is no answer."""

    kind: Literal["refused", "malformed"]
    reason: str


def read_grades(reply: Reply, rubric: Rubric) -> dict[str, float] | Unreadable:
    """The value of every criterion of the rubric."""
    answers = _object(reply, [criterion.name for criterion in rubric.criteria])
    if isinstance(answers, Unreadable):
        return answers
    values = {criterion.name: criterion.value(answers[criterion.name]) for criterion in rubric.criteria}
    for criterion in rubric.criteria:
        if values[criterion.name] is None:
            shown = _shown(json.dumps(answers[criterion.name]))
            return Unreadable("malformed", f"{criterion.name} is {shown}, not {criterion.scale}")
    return {name: value for name, value in values.items() if value is not None}


def read_preference(reply: Reply) -> Side | Unreadable:
    """Which of two texts the judge prefers."""
    answers = _object(reply, ["better"])
    if isinstance(answers, Unreadable):
        return answers
    better = answers["better"]
    if better not in ("A", "B", "tie"):
        return Unreadable("malformed", f'better is {_shown(json.dumps(better))}, not "A", "B" or "tie"')
    return better


def _object(reply: Reply, names: list[str]) -> dict[str, Any] | Unreadable:
    """The one JSON object of a reply, with exactly these fields."""
    text = THOUGHTS.sub("", reply.content).strip()
    if reply.refusal or reply.finish_reason == "content_filter":
        return Unreadable("refused", _shown(reply.refusal or "the server's filter held it back"))
    if fence := FENCE.match(text):
        text = fence[1].strip()
    try:
        value = json.loads(text, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        if REFUSAL.search(text) and "{" not in text:
            return Unreadable("refused", _shown(text))
        if reply.finish_reason == "length":
            return Unreadable("malformed", "it was cut at the largest number of tokens")
        repeated = isinstance(error, _Repeated)
        return Unreadable("malformed", str(error) if repeated else f"no JSON object alone: {_shown(text)}")
    if not isinstance(value, dict) or set(value) != set(names):
        return Unreadable("malformed", f"not the fields {', '.join(names)}: {_shown(text)}")
    return value


class _Repeated(ValueError):
    """A field that occurs twice."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise _Repeated("a field occurs twice")
    return dict(pairs)


def _shown(text: str) -> str:
    line = one_line(text)
    return repr(line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}...")
