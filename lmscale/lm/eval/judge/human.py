"""Grades that people gave to the texts that a judge grades."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmscale.core.config import check
from lmscale.core.errors import UserError, nearest
from lmscale.lm.eval.judge.rubric import Rubric
from lmscale.lm.eval.judge.texts import Text
from lmscale.lm.eval.tasks.files import field, read_lines

DEFAULT_RATER = "human"


@dataclass(frozen=True)
class HumanGrade:
    """One person's grades of one text."""

    id: str
    """The id of the text."""
    rater: str
    grades: dict[str, float]
    """Values by criterion; those that the person left out are not there."""


def read_human(path: Path, texts: Sequence[Text], rubric: Rubric) -> tuple[list[HumanGrade], list[str]]:
    """The grades in a JSONL file, and in a sentence how many are of other texts than those judged.

    A line has `id`, or `text` and where there is one `prompt`; `rater` (else all are of one); and criteria of the
    rubric. Raises `UserError` for another field, a grade off its scale, a text graded twice by one person, and a file
    that grades none of the texts.
    """
    scales = {criterion.name: criterion for criterion in rubric.criteria}
    known, by_content = {text.id for text in texts}, defaultdict(list)
    for text in texts:
        by_content[text.prompt, text.text].append(text.id)
    grades: dict[tuple[str, str], HumanGrade] = {}
    others = lines = 0
    for where, row in read_lines(path):
        lines += 1
        for name in row:
            if name not in scales and name not in ("id", "text", "prompt", "rater", "model"):
                raise UserError(f"{where}: there is no field or criterion {name!r}{nearest(name, scales)}")
        rater = str(field(row, "rater", str, where)) if "rater" in row else DEFAULT_RATER
        if "id" in row:
            ids = [str(field(row, "id", (str, int), where))]
        else:
            prompt = str(field(row, "prompt", str, where)) if "prompt" in row else ""
            ids = by_content.get((prompt, str(field(row, "text", str, where))), [])
        values = {}
        for name, criterion in scales.items():
            if row.get(name) is not None:
                value = criterion.value(row[name])
                if value is None:
                    raise UserError(f"{where}: {name} = {row[name]!r}: it is {criterion.scale}")
                values[name] = value
        judged = [id for id in ids if id in known]
        others += not judged
        for id in judged:
            check((id, rater) not in grades, f"{where}: {rater!r} grades the text {id!r} a second time")
            grades[id, rater] = HumanGrade(id, rater, values)
    check(bool(grades), f"{path} grades none of the {len(texts):,} texts: name them by the field 'id', or by 'text'")
    left = [f"{others:,} of {lines:,} grades of people are of other texts than those judged"] * bool(others)
    return list(grades.values()), left
