"""What a run writes as scores: its own texts, graded by a judge or measured without one; rows beside its tasks'.

    judge:offline                                                 readability, variety, repetition
    judge:grades(server=http://localhost:8000/v1, model=NAME)     mean grades by a rubric

The rubric's openings are continued at temperature 1. The rows are those of `lmscale judge`, so that each measure has an
axis in a sweep and a place in `lmscale emergence`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lmscale.core.config import check
from lmscale.core.config.judge import OFFLINE, judge_spec
from lmscale.lm.eval.judge.answers import Asking, Cache
from lmscale.lm.eval.judge.grades import grade, score_rows, unreadable_sentences
from lmscale.lm.eval.judge.measures import measure, readability, words
from lmscale.lm.eval.judge.rubric import Rubric, read_rubric
from lmscale.lm.eval.judge.server import Server, check_installed
from lmscale.lm.eval.judge.texts import Author, Text
from lmscale.lm.eval.measurement import Measurement, each_measured
from lmscale.lm.eval.score_files import write_results
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import Score

CONTINUATIONS, MOST_TOKENS = 4, 200
"""Continuations of every opening, and the most tokens of each: half of a context that is shorter than twice as many."""
WORDS = 300
"""Words over which distinct-n is counted, whatever a run writes: more words repeat more. With fewer it is left out."""
SEED = 0


@dataclass(frozen=True)
class JudgePart:
    """One way of judging what a run writes."""

    task: str
    rubric: Rubric
    openings: tuple[str, ...]
    server: Server | None = None
    """None measures without a judge."""

    def task_hash(self, most: int) -> str:
        """What tells apart two measurements of one name: the texts' conditions, the rubric and the server's model."""
        conditions = self.openings, CONTINUATIONS, most, WORDS, self.rubric.hash, self.server and self.server.model
        return sha256(repr(conditions).encode()).hexdigest()[:16]


def parts_of(specs: Sequence[str], items: int | None = None) -> tuple[JudgePart, ...]:
    """The parts that the specifications among `specs` ask for which begin with `judge:`.

    Raises `UserError` for what is none, a rubric without openings, a key that is not there, a library that is not
    installed, and several processes.
    """
    parts = []
    for spec in dict.fromkeys(specs):
        if (asked := judge_spec(spec)) is None:
            continue
        check(
            jax.process_count() == 1, f"{spec} is measured in one process; score the trained runs with `lmscale eval`"
        )
        rubric = read_rubric(asked.rubric)
        check(bool(rubric.openings), f"{spec}: the rubric {rubric.name!r} has no openings that a run could continue")
        server = None
        if asked.kind == OFFLINE:
            readability()
        else:
            check_installed()
            server = Server(url=asked.server, model=asked.model, key_variable=asked.key_variable or None)
            server.key()
        parts.append(JudgePart(spec, rubric, rubric.openings[:items], server))
    return tuple(parts)


def evaluate(
    scorer: LMScorer, parts: Sequence[JudgePart], folder: Path, model_columns: Mapping[str, Any]
) -> Iterator[Measurement]:
    """Judge by every part; a result is on disk, in the folder of a run, when it is yielded.

    `model_columns` stand in every row of the scores. A judge that does not answer is a problem of its part alone.
    """

    def judge(part: JudgePart, measurement: Measurement) -> None:
        _judge(scorer, part, measurement, folder, model_columns)

    return each_measured(parts, folder, judge)


def continuations(scorer: LMScorer, openings: Sequence[str], name: str) -> list[Text]:
    """Several texts after every opening, the same for the same model."""
    prompts = [np.asarray(scorer.tokenizer.encode(opening), np.int32) for opening in openings]
    drawn = scorer.draw(prompts, CONTINUATIONS, most_tokens(scorer), SEED)
    written = [
        (opening, scorer.text_before_end(row[row >= 0])) for opening, rows in zip(openings, drawn) for row in rows
    ]
    return [Text(opening, text, name, f"{name}-{number}") for number, (opening, text) in enumerate(written)]


def most_tokens(scorer: LMScorer) -> int:
    """The most tokens of a continuation, so that its opening keeps half of the context."""
    return min(MOST_TOKENS, scorer.config.context // 2)


def _judge(
    scorer: LMScorer, part: JudgePart, measurement: Measurement, folder: Path, model_columns: Mapping[str, Any]
) -> None:
    name = str(model_columns["run_id"])
    texts = continuations(scorer, part.openings, name)
    author = Author(name, model_columns["params"], tuple(model_columns.items()))
    rows, responses = (_measured if part.server is None else _graded)(part, measurement, texts, author)
    columns = {"shots_seed": None, "draw": None, "task_hash": part.task_hash(most_tokens(scorer))}
    rows = [{key: value for key, value in row.items() if key != "model"} | columns for row in rows]
    measurement.scores = [Score(**{key: row[key] for key in Score.__dataclass_fields__}) for row in rows]
    write_results(folder, rows, responses)


Result = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Rows of scores, and the responses that they come from."""


def _measured(part: JudgePart, measurement: Measurement, texts: list[Text], author: Author) -> Result:
    rows, sentences = measure(texts, [author], WORDS)
    written = sum(len(words(text.text)) for text in texts)
    measurement.remarks += sentences
    if written < WORDS:
        measurement.remarks.append(f"distinct-n is left out: {written:,} words are fewer than {WORDS:,}")
        rows = [row for row in rows if not row["metric"].startswith("distinct_")]
    return rows, [vars(text) for text in texts]


def _graded(part: JudgePart, measurement: Measurement, texts: list[Text], author: Author) -> Result:
    server, asking = part.server, Asking()
    assert server is not None
    gradings, _ = grade(texts, part.rubric, server, asking, Cache())
    measurement.remarks += unreadable_sentences([one.problem for one in gradings])
    rows = score_rows(gradings, part.rubric, [author])
    check(bool(rows), f"fewer than two of {len(gradings):,} answers of {server.model} could be read as grades")
    how = {"judge": server.model, "samples": asking.samples, "judge_temperature": asking.temperature}
    return [row | how for row in rows], [one.to_json() for one in gradings]
