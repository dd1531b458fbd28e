"""Single grades: every text is graded by every criterion of a rubric, several times if asked."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmscale.lm.eval.judge.answers import Answers, Asking, Cache, Request, ask_all, request
from lmscale.lm.eval.judge.replies import Unreadable, read_grades
from lmscale.lm.eval.judge.rubric import Rubric
from lmscale.lm.eval.judge.server import Server
from lmscale.lm.eval.judge.texts import Author, Text


@dataclass(frozen=True)
class Grading:
    """One answer of the judge about one text."""

    text: Text
    sample: int
    grades: dict[str, float] | None
    """None where the answer is unreadable."""
    reply: str
    problem: Unreadable | None = None

    def to_json(self) -> dict[str, Any]:
        """A line of the responses."""
        problem = {"problem": self.problem.kind, "reason": self.problem.reason} if self.problem else {}
        return {**vars(self.text), "sample": self.sample, "grades": self.grades, "reply": self.reply, **problem}


def grading_requests(texts: Sequence[Text], rubric: Rubric, server: Server, asking: Asking) -> list[Request]:
    """A request for every sample of every text."""
    return [
        request(server, rubric.grading(text.prompt, text.text), asking, sample)
        for text in texts
        for sample in range(asking.samples)
    ]


def grade(
    texts: Sequence[Text],
    rubric: Rubric,
    server: Server,
    asking: Asking,
    cache: Cache,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Grading], Answers]:
    """Every sample of every text's grades. Raises `UserError` as `ask_all` does."""
    answered = ask_all(grading_requests(texts, rubric, server, asking), server, cache, progress)
    cases = [(text, sample) for text in texts for sample in range(asking.samples)]
    gradings = []
    for (text, sample), reply in zip(cases, answered.replies):
        read = read_grades(reply, rubric)
        if isinstance(read, Unreadable):
            gradings.append(Grading(text, sample, None, reply.content, read))
        else:
            gradings.append(Grading(text, sample, read, reply.content))
    return gradings, answered


def mean_grades(gradings: Sequence[Grading], criterion: str) -> dict[str, float]:
    """Text id -> the mean of its samples, for the texts that have a readable answer."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for one in gradings:
        if one.grades is not None:
            values[one.text.id].append(one.grades[criterion])
    return {id: float(np.mean(samples)) for id, samples in values.items()}


def score_rows(gradings: Sequence[Grading], rubric: Rubric, authors: Sequence[Author]) -> list[dict[str, Any]]:
    """A row of scores for every author and criterion: the mean over texts, and its standard error.

    A text counts once, with the mean of its samples. An author with fewer than two graded texts has no rows.
    """
    rows = []
    for author in authors:
        own = [one for one in gradings if one.text.model == author.name]
        unreadable = sum(one.grades is None for one in own)
        for criterion in rubric.criteria:
            means = np.array(list(mean_grades(own, criterion.name).values()))
            if len(means) < 2:
                continue
            row = {
                "model": author.name, "params": author.params, **dict(author.columns),
                "task": f"judge:{rubric.name}", "metric": criterion.name, "kind": "graded", "shots": 0,
                "score": float(means.mean()), "stderr": float(means.std(ddof=1) / math.sqrt(len(means))),
                "n": len(means), "chance": None, "higher_is_better": True, "unreadable": unreadable,
            }  # fmt: skip
            rows.append(row)
    return rows


def unreadable_sentences(problems: Sequence[Unreadable | None]) -> list[str]:
    """How many of the answers could not be read, and why most often."""
    sentences = []
    for kind, what in (("refused", "refusals"), ("malformed", "malformed")):
        of_kind = [problem for problem in problems if problem is not None and problem.kind == kind]
        if of_kind:
            (reason, times), *_ = Counter(problem.reason for problem in of_kind).most_common(1)
            often = f"{times:,} times " if times > 1 else ""
            sentences.append(
                f"{len(of_kind):,} of {len(problems):,} answers are {what} and count nowhere; {often}{reason}"
            )
    return sentences
