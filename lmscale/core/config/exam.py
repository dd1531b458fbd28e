"""Which benchmark tasks a run is scored on, what is measured inside of it, what it gains from retrieval, and how its
own texts are judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lmscale.core.config.checks import check, check_types, positive
from lmscale.core.config.judge import judge_spec

INSIDE = "inside:"
HEADS, CONTEXT, NEURONS = "heads", "context", "neurons"
RETRIEVAL = "retrieval:"
KNN, PASSAGES, DOCSTRINGS = "knn", "passages", "docstrings"


class InsideSpec(NamedTuple):
    """What is measured inside a model."""

    kind: str
    """`HEADS`, `CONTEXT` or `NEURONS`."""
    tasks: str = ""
    """The tasks whose neurons are counted, FORMAT:PATH or synthetic:tasks(...)."""
    source: str = ""
    """The text whose tokens heads are scored on, as in `DataConfig.source`; empty takes the run's own."""


def inside_spec(spec: str) -> InsideSpec | None:
    """What `inside:heads`, `inside:heads(SOURCE)`, `inside:context` and `inside:neurons(TASKS)` ask for.

    None of a task's specification.

    Raises `UserError` for what begins like one of them and is none.
    """
    if not spec.startswith(INSIDE):
        return None
    kind = spec.removeprefix(INSIDE).strip()
    if kind in (HEADS, CONTEXT):
        return InsideSpec(kind)
    kind, _, rest = kind.partition("(")
    tasks = rest.removesuffix(")").strip()
    if kind.strip() == HEADS and rest.endswith(")") and tasks:
        return InsideSpec(HEADS, source=tasks)
    check(
        kind.strip() == NEURONS and rest.endswith(")") and ":" in tasks and not tasks.startswith(INSIDE),
        f"{spec!r} names nothing inside a model; write {INSIDE}{HEADS}, {INSIDE}{HEADS}(SOURCE), {INSIDE}{CONTEXT} or "
        f"{INSIDE}{NEURONS}(TASKS), with TASKS as synthetic:tasks(...) or FORMAT:PATH",
    )
    return InsideSpec(NEURONS, tasks)


class RetrievalSpec(NamedTuple):
    """What is measured with retrieval."""

    kind: str
    """`KNN`, `PASSAGES` or `DOCSTRINGS`."""
    source: str = ""
    """The text that is retrieved from, as in `DataConfig.source`; empty takes the run's own."""


def retrieval_spec(spec: str) -> RetrievalSpec | None:
    """What `retrieval:knn`, `retrieval:passages` and `retrieval:docstrings` ask for, the first two also with a source,
    `retrieval:knn(SOURCE)`; None of a task's specification.

    Raises `UserError` for what begins like one of them and is none.
    """
    if not spec.startswith(RETRIEVAL):
        return None
    kind, opened, rest = spec.removeprefix(RETRIEVAL).strip().partition("(")
    kind, source = kind.strip(), rest.removesuffix(")").strip()
    whole = not opened or (rest.endswith(")") and bool(source))
    check(
        whole and (kind in (KNN, PASSAGES) or (kind == DOCSTRINGS and not opened)),
        f"{spec!r} names no measurement of retrieval; write {RETRIEVAL}{KNN}, {RETRIEVAL}{PASSAGES} or "
        f"{RETRIEVAL}{DOCSTRINGS}, the first two also with a source, {RETRIEVAL}{KNN}(books/)",
    )
    return RetrievalSpec(kind, source)


def is_task(spec: str) -> bool:
    """Whether a specification names a benchmark task, and nothing that is measured inside a model, by retrieval or by
    a judge.

    Raises `UserError` as `inside_spec`, `retrieval_spec` and `judge_spec` do.
    """
    return all(read(spec) is None for read in (inside_spec, retrieval_spec, judge_spec))


def retrieves(tasks: Sequence[str]) -> bool:
    """Whether one of the tasks retrieves from a datastore. Raises `UserError` as `retrieval_spec` does."""
    return any((asked := retrieval_spec(spec)) and asked.kind != DOCSTRINGS for spec in tasks)


def check_datastores(sizes: tuple[int, ...], tasks: Sequence[str], name: str) -> None:
    """Raise `UserError` for sizes of datastores that can be none, or that no measurement of `tasks` uses."""
    check(
        all(size >= 0 for size in sizes),
        f"{name} = {list(sizes)}: tokens of datastores, 0 or more; 0 measures without retrieval",
    )
    check(
        not sizes or retrieves(tasks),
        f"{name} = {list(sizes)}: nothing is retrieved from a datastore; add {RETRIEVAL}{KNN} or {RETRIEVAL}{PASSAGES} "
        f"to the tasks, or leave it out",
    )


@dataclass(frozen=True, kw_only=True)
class ExamConfig:
    """Tasks on which a model is scored while it trains. They do not change what the run learns."""

    tasks: tuple[str, ...] = ()
    """FORMAT:PATH or synthetic:tasks(...), as `lmscale eval` takes them; nothing is downloaded. Inside the model,
    `inside:heads` scores its induction heads, on the tokens of its data or of a SOURCE in brackets, `inside:context`
    what the context saves, and `inside:neurons(TASKS)` the share of neurons that each of the tasks uses. With
    retrieval, `retrieval:knn` scores kNN interpolation and `retrieval:passages` the loss with retrieved text in the
    context, against the size of a datastore, and `retrieval:docstrings` finds the docstring of a function by its body.
    Of the run's own texts, `judge:offline` scores readability, variety and repetition, and
    `judge:grades(server=URL, model=NAME)` the grades of a judge."""
    shots: tuple[int, ...] = (0,)
    """Numbers of worked examples before every question; the model is scored with each."""
    draw: Literal["shared", "each"] = "shared"
    """The same examples for all questions of a task, or other ones for each question."""
    seed: int = 0
    """Seed of the draw of examples."""
    items: int | None = None
    """Score only this many leading items of every task, rows or pairs inside the model, or openings that it continues;
    None scores all."""
    datastore_tokens: tuple[int, ...] = ()
    """Sizes of the datastore of `retrieval:knn` and `retrieval:passages`, in tokens; empty takes 0, 4,096, four times
    as many, ..., and the whole text."""
    at: tuple[float, ...] = (1.0,)
    """Fractions of the run's steps after which it is scored."""

    def __post_init__(self) -> None:
        check_types(self)
        for spec in self.tasks:
            check(":" in spec, f"ExamConfig.tasks names {spec!r}; write FORMAT:PATH or synthetic:tasks(...)")
            is_task(spec)
        check_datastores(self.datastore_tokens, self.tasks, "ExamConfig.datastore_tokens")
        check(
            all(shots >= 0 for shots in self.shots) and bool(self.shots),
            f"ExamConfig.shots = {list(self.shots)}: numbers of examples, 0 or more; (0,) asks without any",
        )
        check(
            all(0.0 < share <= 1.0 for share in self.at) and bool(self.at),
            f"ExamConfig.at = {list(self.at)}: shares of the run above 0 and at most 1; (1.0,) scores its end",
        )
        if self.items is not None:
            positive(self, "items")

    def steps(self, run_steps: int) -> frozenset[int]:
        """The steps of a run of `run_steps` after which it is scored."""
        return frozenset(max(1, round(share * run_steps)) for share in self.at) if self.tasks else frozenset()
