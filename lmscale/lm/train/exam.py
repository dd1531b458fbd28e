"""The exam of runs while they train: their tasks, what is measured inside of them, what retrieval is worth, and how
their own texts are judged."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from jax.sharding import Mesh

from lmscale.core.config import RunConfig
from lmscale.core.config.exam import is_task
from lmscale.lm import data
from lmscale.lm.devices.distributed import is_main
from lmscale.lm.eval import task_eval
from lmscale.lm.eval.judge import exam as judge
from lmscale.lm.eval.scorer import LMScorer
from lmscale.lm.eval.tasks import Shots
from lmscale.lm.inspect import exam as inside
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.model.parameters import Params
from lmscale.lm.retrieve import exam as retrieval


class TaskEvaluator:
    """Evaluates runs that share a program on what their configurations ask for, while they train."""

    def __init__(self, configs: Sequence[RunConfig], manifest: data.Manifest, mesh: Mesh) -> None:
        """Raises `UserError` for tasks that cannot be read and for what is not in models of this shape, before anything
        is compiled."""
        exams, self._mesh = {config.exam for config in configs}, mesh
        specs = {exam: [spec for spec in exam.tasks if is_task(spec)] for exam in exams}
        self._tasks = {exam: task_eval.first_items(task_eval.load_tasks(specs[exam]), exam.items) for exam in exams}
        self._parts: dict[str, inside.Parts] = {}
        self._retrieval: dict[str, tuple[retrieval.RetrievalPart, ...]] = {}
        self._judges = {exam: judge.parts_of(exam.tasks, exam.items) for exam in exams}
        self._scorer: LMScorer | None = None
        if not any(exam.tasks for exam in exams):
            return
        self._tokenizer = data.load_tokenizer(manifest)
        for config in configs:
            exam = config.exam
            parts = inside.parts_of(exam.tasks, config.model, self._tokenizer, exam.items)
            self._parts[config.run_id] = parts
            self._retrieval[config.run_id] = retrieval.parts_of(exam.tasks, config, exam.items, exam.datastore_tokens)
            _print(parts.without)

    def evaluate(self, config: RunConfig, folder: Path, params: Params, step: int, loss_nats: float | None) -> None:
        """Evaluate the model of a run after `step` steps and write responses and scores into its folder.

        Several processes call it together; the first writes, and prints what could not be scored.
        """
        if self._scorer is None:
            self._scorer = LMScorer(params, config.model, self._tokenizer, self._mesh)
        self._scorer.params = params
        shots = [Shots(count, config.exam.seed, config.exam.draw) for count in config.exam.shots]
        columns = task_eval.model_columns(config, step, loss_nats)
        results = task_eval.evaluate(self._scorer, self._tasks[config.exam], shots, folder, columns)
        problems = [result.problem for result in results]
        subject = Subject(config, params, self._tokenizer, self._mesh)
        measured = itertools.chain(
            inside.evaluate(subject, self._parts[config.run_id].parts, folder, columns),
            retrieval.evaluate(subject, self._retrieval[config.run_id], folder, columns),
            judge.evaluate(self._scorer, self._judges[config.exam], folder, columns),
        )
        problems += [measurement.problem for measurement in measured]
        _print(f"not scored at step {step:,}: {problem}" for problem in problems if problem)


def _print(sentences: Iterable[str]) -> None:
    """Each sentence once, whatever the number of processes."""
    if is_main():
        for sentence in sentences:
            print(sentence, flush=True)
