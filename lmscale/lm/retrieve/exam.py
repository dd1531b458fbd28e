"""What retrieval is worth to a model as scores: rows beside those of its tasks, each with n and standard error.

    retrieval:knn              loss with kNN interpolation, a row for every size of the datastore
    retrieval:passages         loss with a retrieved passage in the context, likewise
    retrieval:docstrings       recall and MRR of a function's docstring by its body, with those of BM25

Every row names its kind in the column `retrieval`. One of the first two has `datastore_tokens`, and with the `params`
and `tokens` of the model it is a point of the law `retrieval`. `datastore_flops` are spent once, `retrieval_flops` for
every token that is scored.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import DataConfig, RunConfig, check, stdlib
from lmscale.core.config.exam import DOCSTRINGS, KNN, retrieval_spec
from lmscale.lm.eval.measurement import Measurement, each_measured
from lmscale.lm.eval.score_files import write_results
from lmscale.lm.eval.tasks import Score
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve import docstrings, ranking
from lmscale.lm.retrieve.embed import Embedder, embedding_of
from lmscale.lm.retrieve.knn import KnnMeasurement
from lmscale.lm.retrieve.libraries import load_bm25s, load_faiss
from lmscale.lm.retrieve.losses import LossAtSize
from lmscale.lm.retrieve.passages import PassageMeasurement
from lmscale.lm.retrieve.text import RetrievalCorpus, texts_of

WITHIN = (1, 10)
"""k of the recalls."""


@dataclass(frozen=True)
class RetrievalPart:
    """One measurement, with its text."""

    task: str
    kind: str
    """What is measured, as `RetrievalSpec` names it."""
    corpus: RetrievalCorpus
    sizes: tuple[int, ...] = ()
    """Sizes of the datastore in tokens; empty takes the usual ones."""
    items: int | None = None
    """Windows, documents or functions that are evaluated; None takes the usual number."""

    @property
    def task_hash(self) -> str:
        """What tells apart two measurements of one name: their text."""
        fingerprints = [split.corpus.fingerprint for split in self.corpus]
        return hashlib.sha256(json.dumps([self.kind, fingerprints]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """Scores that are written together, and the values that they come from."""

    scores: tuple[Score, ...]
    columns: tuple[dict[str, Any], ...]
    """Further columns of each score, beside the usual ones."""
    responses: list[dict[str, Any]]


def parts_of(
    specs: Sequence[str], config: RunConfig, items: int | None = None, sizes: Sequence[int] = ()
) -> tuple[RetrievalPart, ...]:
    """The measurements that the specifications among `specs` ask for which begin with `retrieval:`.

    Their text is prepared here. Raises `UserError` for what is none, for text without documents, for several processes,
    and where a library is not installed.
    """
    asked = [(spec, asked_for) for spec in dict.fromkeys(specs) if (asked_for := retrieval_spec(spec)) is not None]
    if not asked:
        return ()
    check(
        jax.process_count() == 1,
        f"{asked[0][0]} is measured in one process; score the trained runs with `lmscale eval`",
    )
    check(not config.model.scalar_head, f"{asked[0][0]}: a reward model predicts no text; name a language model")
    load_faiss()
    parts = []
    for spec, (kind, source) in asked:
        if kind == DOCSTRINGS:
            load_bm25s()
            modules = DataConfig(source=stdlib.STDLIB, validation_fraction=config.data.validation_fraction)
            parts.append(RetrievalPart(spec, kind, texts_of(modules), (), items))
        else:
            parts.append(RetrievalPart(spec, kind, texts_of(config.data, source), tuple(sizes), items))
    return tuple(parts)


def evaluate(
    subject: Subject, parts: Sequence[RetrievalPart], folder: Path, model_columns: Mapping[str, Any]
) -> Iterator[Measurement]:
    """Measure every part; every row is on disk, in the folder of a run, as soon as it is known.

    `model_columns` stand in every row of the scores.
    """

    def measure(part: RetrievalPart, measurement: Measurement) -> None:
        for result in _results(subject, part, measurement):
            measurement.scores += result.scores
            _write(folder, part, model_columns, result)

    return each_measured(parts, folder, measure)


def _write(folder: Path, part: RetrievalPart, model_columns: Mapping[str, Any], result: Result) -> None:
    how = {"shots_seed": None, "draw": None, "task_hash": part.task_hash, "retrieval": part.kind}
    rows = [
        {**model_columns, **asdict(score), **how, **columns} for score, columns in zip(result.scores, result.columns)
    ]
    write_results(folder, rows, result.responses)


def _results(subject: Subject, part: RetrievalPart, measurement: Measurement) -> Iterator[Result]:
    if part.kind == DOCSTRINGS:
        yield _docstrings(subject, part, measurement)
        return
    measured: KnnMeasurement | PassageMeasurement
    if part.kind == KNN:
        measured = KnnMeasurement(subject, part.corpus, part.items)
    else:
        measured = PassageMeasurement(subject, part.corpus, part.items)
    last: LossAtSize | None = None
    for last in measured.losses(part.sizes):
        check(
            bool(np.isfinite(last.nats_U).all()),
            "the model's losses are not finite; take an earlier checkpoint",
        )
        yield _loss(part, last)
        if (exchanged := last.details.get("exchanged_nats")) is not None:
            measurement.remarks.append(f"{last.size:,} tokens, passages of other segments: {exchanged:.4f} nats")
    measurement.remarks.append(measured.datastore.remark())
    if last is not None and part.sizes and last.size < max(part.sizes):
        measurement.remarks.append(f"the text has {last.size:,} tokens, fewer than the {max(part.sizes):,} asked for")


def _loss(part: RetrievalPart, loss: LossAtSize) -> Result:
    """The row of one size, and the mean nats of every window or document."""
    task = f"{part.task}, {loss.size:,} tokens"
    score = Score(task, "loss_nats", "graded", 0, loss.loss_nats, loss.stderr, len(loss.nats_U), None, False)
    cost = {name: getattr(loss, name) for name in ("datastore_tokens", "datastore_flops", "retrieval_flops")}
    responses = [
        {"item": str(number), "loss_nats": nats, **loss.details} for number, nats in enumerate(loss.nats_U.tolist(), 1)
    ]
    return Result((score,), (cost,), responses)


def _docstrings(subject: Subject, part: RetrievalPart, measurement: Measurement) -> Result:
    """Recalls and MRR, each with the same of BM25."""
    chosen = docstrings.held_out_functions(part.corpus.held_out.documents(), part.items or docstrings.FUNCTIONS)
    embedder = Embedder(subject, embedding_of(subject.config.model))
    ranks = docstrings.rank_docstrings(subject, embedder, chosen)
    scores, columns = [], []
    for metric, chance in _chances(ranks.keys).items():
        model_Q, bm25_Q = (_values(metric, ranks_Q) for ranks_Q in (ranks.model_Q, ranks.bm25_Q))
        scores.append(_rate(part.task, metric, model_Q, chance))
        columns.append({"bm25": float(bm25_Q.mean()), "retrieval_flops": ranks.flops / len(chosen)})
        measurement.remarks.append(f"BM25: {metric} {float(bm25_Q.mean()):.4f}")
    measurement.remarks.append(f"{len(chosen):,} functions, {ranks.keys:,} docstrings")
    responses = [
        {"item": f"{number} {function.name}", "rank": rank, "bm25_rank": bm25}
        for number, (function, rank, bm25) in enumerate(zip(chosen, ranks.model_Q.tolist(), ranks.bm25_Q.tolist()), 1)
    ]
    return Result(tuple(scores), tuple(columns), responses)


def _chances(keys: int) -> dict[str, float]:
    """The metrics of a ranking, and what a random order gets in each."""
    recalls = {f"recall@{k}": ranking.chance_within(keys, k) for k in WITHIN}
    return recalls | {"mrr": ranking.chance_reciprocal(keys)}


def _values(metric: str, ranks_Q: NDArray[np.int64]) -> NDArray[np.float64]:
    """A metric of every query."""
    name, _, k = metric.partition("@")
    return ranking.within(ranks_Q, int(k)) if name == "recall" else ranking.reciprocal(ranks_Q)


def _rate(task: str, metric: str, values_Q: NDArray[np.float64], chance: float) -> Score:
    """A recall is a share of right answers, so it is hard; the MRR moves with every place, so it is graded."""
    stderr = float(values_Q.std(ddof=1) / np.sqrt(len(values_Q))) if len(values_Q) > 1 else None
    kind: Any = "hard" if metric.startswith("recall") else "graded"
    return Score(task, metric, kind, 0, float(values_Q.mean()), stderr, len(values_Q), chance, True)
