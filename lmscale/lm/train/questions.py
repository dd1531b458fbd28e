"""What a policy is asked: the questions of tasks, made at random, or the prompts of a corpus with their answers."""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import Reinforcement, RunConfig
from lmscale.core.config.synthetic import is_tasks, parse
from lmscale.core.errors import UserError
from lmscale.core.text import one_line
from lmscale.lm.data import DataUsage, Tokens, load_tokenizer
from lmscale.lm.data.languages.tasks import LanguageTask, all_tasks
from lmscale.lm.data.prompts import Prompt, Prompts, prompts_asked
from lmscale.lm.data.tokenizer import ByteTokenizer, Tokenizer
from lmscale.lm.train.last_number import last_number

PROMPTS_SEED = 0x70726F6D
"""Tells the random numbers of questions from those of windows, initial parameters, dropout and answers."""
LONGEST_SHOWN = 60
"""Characters of an answer that a sentence repeats."""


@dataclass(frozen=True)
class Question:
    """A prompt, and the answer that a checker compares others with."""

    prompt: NDArray[np.int32]
    """Tokens, the end of document before it first."""
    answer: str


class Questions(Protocol):
    """Questions of every batch, a pure function of (data, seed, number of the batch)."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Reads prompts and writes answers."""

    def __call__(self, number: int) -> list[Question]:
        """The questions of batch `number` >= 0, one for each group of answers."""

    def usage(self, tokens: int) -> DataUsage:
        """What training on `tokens` tokens of prompts and answers has seen of the data."""

    def notes(self) -> list[str]:
        """What is asked, and what is cut of it, in sentences."""


def questions_of(config: RunConfig, tokens: Tokens) -> Questions:
    """The questions of a run whose data are `tokens`.

    Raises `UserError` for answers without a number where the checker compares numbers.
    """
    return TaskQuestions(config) if is_tasks(config.data.source) else CorpusQuestions(config, tokens)


class TaskQuestions:
    """See `Questions`: each is of a random task, and drawn independently of every window and every exam."""

    def __init__(self, config: RunConfig) -> None:
        settings = config.objective
        assert isinstance(settings, Reinforcement)
        self.tokenizer = ByteTokenizer()
        self._config, self._settings = config, settings
        self._tasks = all_tasks(parse(config.data.source))
        self._count = config.optimizer.batch_sequences // settings.group

    def __call__(self, number: int) -> list[Question]:
        return [self._question(*drawn) for drawn in drawn_tasks(self._tasks, self._count, self._config.seed, number)]

    def _question(self, task: LanguageTask, question: str) -> Question:
        """An end of document, as before every line of the language, and the line up to its answer."""
        line = np.append(self.tokenizer.end_of_document, self.tokenizer.encode(task.prompt(question)))
        return Question(line.astype(np.int32), task.answer(question))

    def usage(self, tokens: int) -> DataUsage:
        """Every answer is fresh text; which of its tokens are the prompt's and which padding is not kept."""
        return _usage(self._config, tokens, cut_tokens=None, epochs=0.0, visits=None)

    def notes(self) -> list[str]:
        """None: questions are made at random and never cut."""
        return []


def drawn_tasks(tasks: list[LanguageTask], count: int, seed: int, number: int) -> list[tuple[LanguageTask, str]]:
    """Tasks and questions of batch `number`."""
    rng = np.random.default_rng([PROMPTS_SEED, seed, number])
    stream = int(rng.integers(1 << 31, 1 << 32))  # above every stream of examples that an exam takes
    # As many of each task whatever is chosen: one shape, one compilation.
    by_task = [[question for question, _ in task.examples(count, stream)] for task in tasks]
    return [(tasks[chosen], by_task[chosen][row]) for row, chosen in enumerate(rng.integers(len(tasks), size=count))]


class CorpusQuestions:
    """See `Questions`: the prompts of the training split, each once an epoch."""

    def __init__(self, config: RunConfig, tokens: Tokens) -> None:
        """Raises `UserError` for answers without a number where the checker compares numbers."""
        settings = config.objective
        assert isinstance(settings, Reinforcement)
        self.tokenizer = load_tokenizer(tokens.manifest)
        self._config = config
        self._prompts = Prompts(tokens, config.prompt_tokens, config.seed)
        self._count = config.optimizer.batch_sequences // settings.group
        if settings.checker == "number" and not settings.reward:
            self._check_numbers()

    def __call__(self, number: int) -> list[Question]:
        return [self._question(one) for one in self._prompts.asked(number * self._count, (number + 1) * self._count)]

    def _question(self, one: Prompt) -> Question:
        return Question(one.asked, self.tokenizer.decode(one.answer))

    def usage(self, tokens: int) -> DataUsage:
        """Every answer is fresh text to a prompt of the corpus: epochs and repeats are those of prompts."""
        asked, prompts = prompts_asked(self._config, tokens), self._prompts
        visits = prompts.order.visits(asked)
        return _usage(self._config, tokens, cut_tokens=prompts.cut_tokens, epochs=asked / len(prompts), visits=visits)

    def notes(self) -> list[str]:
        """How many prompts there are, and what they lose."""
        return [self._prompts.sentence()]

    def _check_numbers(self) -> None:
        answers = (self._question(self._prompts[document]).answer for document in range(len(self._prompts)))
        without = [answer for answer in answers if last_number(answer) is None]
        if without:
            common = Counter(without).most_common(1)[0][0]
            raise UserError(
                f"Reinforcement.checker = 'number' compares numbers, and {len(without):,} of the "
                f"{len(self._prompts):,} answers of {self._prompts.source} have none, as "
                f"'{one_line(common)[:LONGEST_SHOWN]}'; leave such records out, or take 'exact' or 'graded'"
            )


def _usage(
    config: RunConfig, tokens: int, *, cut_tokens: int | None, epochs: float, visits: NDArray[np.int64] | None
) -> DataUsage:
    """Usage of answers that were drawn, each of them read by every update from its batch."""
    settings, source = config.objective, config.data.source
    assert isinstance(settings, Reinforcement)
    return DataUsage(
        tokens_by_source={source: tokens},
        answer_tokens=None,
        padding_tokens=None,
        cut_tokens=cut_tokens,
        unique_tokens=-(-tokens // settings.updates),
        epochs=epochs,
        epochs_by_source={source: epochs},
        repeats_min=None if visits is None else float(visits.min()),
        repeats_mean=None if visits is None else float(visits.mean()),
        repeats_max=None if visits is None else float(visits.max()),
    )
