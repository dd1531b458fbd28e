"""What happens inside a model as scores: rows beside those of its tasks, each with n, standard error and chance.

    inside:heads                             attention of the best induction head and of the best previous-token head
    inside:heads(synthetic:repeats(...))     the same on the tokens of another text
    inside:context                           what the context saves: loss late in a window less the loss early in it
    inside:neurons(synthetic:tasks(...))     of every task, the share of neurons that it uses

So each has an axis in a sweep and a place in `lmscale emergence`, like any score.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import ModelConfig, check
from lmscale.core.config.exam import CONTEXT, HEADS, INSIDE, NEURONS, inside_spec
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.eval.measurement import Measurement, each_measured
from lmscale.lm.eval.score_files import write_results
from lmscale.lm.eval.tasks import Score
from lmscale.lm.inspect import heads
from lmscale.lm.inspect.mediation import measure_effects
from lmscale.lm.inspect.neurons import used_neurons
from lmscale.lm.inspect.pairs import Pair, pair_tokens
from lmscale.lm.inspect.subject import HeldOutText, Subject, held_out_text, known_tokens, source_tokens
from lmscale.lm.inspect.task_pairs import pairs_of

PAIRS = 32
"""Pairs of every task, at most, where the exam does not say how many items it scores."""
TEXT_TOKENS, TEXT_ROWS = 1 << 16, 32
"""Held-out text on which the in-context score is measured: so many tokens, and at least so many windows."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One thing that is measured inside models, with a name of its own among the tasks."""

    task: str
    kind: str
    """What is measured, as `InsideSpec` names it."""
    items: int | None = None
    """Rows or windows; None takes the usual number."""
    pairs: tuple[Pair, ...] = ()
    """Pairs of the task whose neurons are counted."""
    tokens: tuple[int, ...] = ()
    """Tokens that heads are scored on; empty takes those of the run's own text."""

    @property
    def task_hash(self) -> str:
        """What tells apart two measurements of one name: the pairs of prompts."""
        content = json.dumps([self.kind, self.pairs])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class Parts(NamedTuple):
    """All that an exam measures inside a model."""

    parts: tuple[Part, ...]
    without: tuple[str, ...]
    """Sentences about tasks that are left out."""


def parts_of(specs: Sequence[str], config: ModelConfig, tokenizer: Tokenizer, items: int | None = None) -> Parts:
    """The parts that the specifications among `specs` ask for which begin with `inside:`.

    Raises `UserError` for what is none, for a model in which it cannot be measured, for several processes, and as
    `pairs_of` and `source_tokens` do.
    """
    parts: list[Part] = []
    without: list[str] = []
    asked = [(spec, inside) for spec in dict.fromkeys(specs) if (inside := inside_spec(spec)) is not None]
    check(
        not asked or jax.process_count() == 1,
        f"{asked and asked[0][0]} is measured in one process; score the trained runs with `lmscale eval`",
    )
    for spec, (kind, tasks, source) in asked:
        if kind == NEURONS:
            pairs = pairs_of(tasks, tokenizer, config.context, items or PAIRS)
            enough = {name: rows for name, rows in pairs.by_task.items() if len(rows) > 1}
            few = [*pairs.without, *(name for name in pairs.by_task if name not in enough)]
            without += [f"{spec}: left out for want of two pairs of questions: {', '.join(few)}"] if few else []
            parts += [Part(f"{INSIDE}{NEURONS}({name})", kind, None, tuple(rows)) for name, rows in enough.items()]
        else:
            heads.copy_tokens(config.context)
            tokens = source_tokens(source, tokenizer, config.context).tolist() if source else []
            parts.append(Part(spec, kind, items, (), tuple(tokens)))
    return Parts(tuple(_named_apart(parts)), tuple(without))


def _named_apart(parts: Sequence[Part]) -> Iterator[Part]:
    """Parts of two sources that share a name are told apart by their pairs."""
    times = Counter(part.task for part in parts)
    for part in parts:
        apart = f" {part.task_hash[:6]}" if times[part.task] > 1 else ""
        yield replace(part, task=part.task + apart)


def evaluate(
    subject: Subject, parts: Sequence[Part], folder: Path, model_columns: Mapping[str, Any]
) -> Iterator[Measurement]:
    """Measure every part; a result is on disk, in the folder of a run, when it is yielded.

    `model_columns` stand in every row of the scores.
    """

    def fill(part: Part, measurement: Measurement) -> None:
        scores, responses = measure(subject, part)
        measurement.scores = scores
        measurement.remarks.append(f"{len(responses):,} items")
        how = {"shots_seed": None, "draw": None, "task_hash": part.task_hash}
        write_results(folder, [{**model_columns, **asdict(score), **how} for score in scores], responses)

    return each_measured(parts, folder, fill)


Result = tuple[list[Score], list[dict[str, Any]]]
"""Scores, and every row, window or pair with its own values."""


def measure(subject: Subject, part: Part) -> Result:
    """The scores of one part. Raises `UserError` where the model's values are no numbers, or its text is not here."""
    with jax.set_mesh(subject.mesh):
        scores, responses = {HEADS: _heads, CONTEXT: _context, NEURONS: _neurons}[part.kind](subject, part)
    check(
        all(np.isfinite(score.score) for score in scores),
        "the model's values are not finite; take an earlier checkpoint",
    )
    return scores, responses


def _heads(subject: Subject, part: Part) -> Result:
    """Scores of the best heads on repeated random tokens."""
    model = subject.config.model
    n, end = heads.copy_tokens(model.context), subject.tokenizer.end_of_document
    ids = np.array(part.tokens, np.int32) if part.tokens else known_tokens(subject, _text(subject, None))
    n = min(n, len(ids)) if part.tokens else n
    tokens_NT = heads.repeated_tokens(ids, end, n, part.items or heads.ROWS)
    rows = heads.row_scores(subject.params, tokens_NT, model)
    values = {
        "induction_score": heads.best_head_scores(rows.induction),
        "previous_token_score": heads.best_head_scores(rows.previous_token),
    }
    scores = [
        _graded(part.task, metric, values_N, chance)
        for (metric, values_N), chance in zip(values.items(), heads.uniform_scores(n))
    ]
    return scores, _by_item(values)


def _context(subject: Subject, part: Part) -> Result:
    """The in-context score of held-out text: 0 where a model does not use its context."""
    model = subject.config.model
    text = _text(subject, part.items)
    check(text is not None, "the held-out text of an imported model is not here")
    assert text is not None
    none_PLH = np.zeros((1, model.layers, model.heads), np.bool_)
    nats_NT = heads.ablated_nats(subject.params, text.tokens_NT, model, none_PLH)[0]
    values_N = heads.in_context_score(nats_NT, text.scored_NT)
    check(len(values_N) > 0, "in every window of held-out text padding stands where the loss is compared")
    score = _graded(part.task, "in_context_nats", values_N, 0.0, higher_is_better=False)
    return [score], _by_item({"in_context_nats": values_N})


def _text(subject: Subject, windows: int | None) -> HeldOutText | None:
    return held_out_text(subject.config, windows or max(TEXT_ROWS, TEXT_TOKENS // subject.config.model.context))


def _neurons(subject: Subject, part: Part) -> Result:
    """How often the right answer of a pair is preferred, and the share of neurons that this takes."""
    model = subject.config.model
    tokens = pair_tokens(part.pairs, subject.tokenizer, model.context, f"{part.task}, pair")
    effects = measure_effects(subject.params, tokens, model, NEURONS)
    used = used_neurons(subject.params, tokens, model, effects.indirect_NE)
    right_N, shares_R = used.right_N, used.count_R / used.neurons
    accuracy = Score(
        part.task, "pair_accuracy", "hard", 0, float(right_N.mean()), _error(right_N), len(right_N), 0.5, True
    )
    share = Score(
        part.task, "neurons_used", "graded", 0, used.share, float(shares_R.std(ddof=1)), len(right_N), None, False
    )
    responses = [
        {"item": str(number), **pair._asdict(), "pair_accuracy": right, "without_neurons": without}
        for number, (pair, right, without) in enumerate(
            zip(part.pairs, right_N.tolist(), used.right_without_N.tolist()), 1
        )
    ]
    return [accuracy, share], responses


def _graded(task: str, metric: str, values_N: Floats, chance: float | None, *, higher_is_better: bool = True) -> Score:
    mean = float(values_N.mean())
    return Score(task, metric, "graded", 0, mean, _error(values_N), len(values_N), chance, higher_is_better)


def _error(values_N: Floats) -> float | None:
    """The standard error of the mean; None of a single value."""
    return float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else None


def _by_item(values: Mapping[str, Floats]) -> list[dict[str, Any]]:
    names = list(values)
    return [
        {"item": str(number), **dict(zip(names, row))}
        for number, row in enumerate(zip(*(column.tolist() for column in values.values())), 1)
    ]
