"""A question answered from an index: the nearest passages are put before it, and the answer cites them.

The passages stand in the order of their nearness, each under its number. As many of the nearest are read as fit into
the context beside the question and the longest answer: nothing that was read is forgotten while the answer is written.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmscale.core.config import check
from lmscale.core.counting import flops_per_token_forward
from lmscale.core.errors import UserError
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve.index import Index, Passage, open_index
from lmscale.lm.retrieve.search import Searcher
from lmscale.lm.use.citations import CitedSentence, cite
from lmscale.lm.use.generate import STEPS_PER_CALL, encode_prompt, generate
from lmscale.lm.use.load import Opened, open_run
from lmscale.lm.use.sampling import Sampling

ANSWER_TOKENS = 128
"""The most tokens of an answer where nothing is said; in a short context a quarter of it."""
STOP = ("\nQuestion:",)


@dataclass(frozen=True)
class AskSettings:
    """How a question is answered."""

    passages: int = 4
    """Passages that are retrieved for a question."""
    max_tokens: int | None = None
    """The most tokens of the answer; None is `ANSWER_TOKENS`, or a quarter of a short context."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    seed: int = 0
    exact: bool = False
    """Whether all vectors are compared, where the index has a graph."""

    def __post_init__(self) -> None:
        check(self.passages >= 1, f"{self.passages} passages: at least 1")
        check(self.max_tokens is None or self.max_tokens >= 1, f"max_tokens = {self.max_tokens}: at least 1")


@dataclass(frozen=True)
class Answer:
    """What a run answers, and from what."""

    question: str
    sentences: list[CitedSentence]
    text: str
    """The answer as the run wrote it."""
    passages: list[Passage]
    """The passages that were read, by their number from 1."""
    not_read: list[Passage]
    """The next nearest passages, for which there was no room."""
    prompt: str
    prompt_tokens: int
    answer_tokens: int
    context: int
    flops: int
    """FLOPs of embedding the question, the search, reading and writing."""

    @property
    def fit(self) -> str:
        """How much was read, in a sentence."""
        retrieved = len(self.passages) + len(self.not_read)
        return (
            f"{len(self.passages)} of {retrieved} passages fit the context of {self.context:,} tokens with the "
            f"question and an answer: {self.prompt_tokens:,} tokens are read"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "question": self.question,
            "answer": self.text,
            "sentences": [{"text": one.text, "passages": list(one.passages)} for one in self.sentences],
            "passages": [_json(one) for one in self.passages],
            "not_read": [_json(one) for one in self.not_read],
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "context": self.context,
            "flops": self.flops,
        }


def _json(passage: Passage) -> dict[str, Any]:
    return {**passage._asdict(), "span": passage.span._asdict()}


def ask_run(
    run: Path, index: Path, question: str, settings: AskSettings = AskSettings(), step: int | None = None
) -> Answer:  # fmt: skip
    """Open a run and the index that it made, and answer. Raises `UserError` as `ask` and `open_index` do."""
    opened_index = open_index(index)
    return ask(open_run(run, step), opened_index, question, settings)


def ask(opened: Opened, index: Index, question: str, settings: AskSettings = AskSettings()) -> Answer:
    """Answer a question from an index.

    Raises `UserError` for an index that another run or checkpoint made, for a reward model, and for an empty question
    or one that does not fit.
    """
    run = opened.run
    model = run.config.model
    check(not model.scalar_head, "a reward model writes no answers; name a language model")
    subject = Subject(*run, opened.mesh)
    searcher = Searcher(index, subject, opened.step)
    most = settings.max_tokens or min(ANSWER_TOKENS, max(1, model.context // 4))
    nearest = searcher.passages(question, settings.passages, exact=settings.exact)
    count = fitting(nearest, question, run.tokenizer, room_for_prompt(model.context, most))
    prompt = prompt_of(nearest[:count], question)
    generated = generate(
        run, [prompt], max_tokens=most, sampling=settings.sampling, seed=settings.seed, stop=STOP, mesh=opened.mesh
    )
    completion = generated.completions[0]
    read, written = len(encode_prompt(prompt, run.tokenizer)), len(completion.tokens)
    text = completion.text.strip()
    length = searcher.embedder.tokens
    flops = length * searcher.embedder.flops_per_token(length) + 2 * index.facts.chunks * index.facts.dimension
    flops += (read + written) * flops_per_token_forward(replace(model, context=min(model.context, read + written)))
    sentences = cite(text, [passage.text for passage in nearest[:count]])
    return Answer(
        question, sentences, text, nearest[:count], nearest[count:], prompt, read, written, model.context, flops
    )


def prompt_of(passages: list[Passage], question: str) -> str:
    """The passages under their numbers, then the question."""
    numbered = [f"[{number}] {passage.text.strip()}" for number, passage in enumerate(passages, 1)]
    return "\n\n".join([*numbered, f"Question: {question.strip()}\nAnswer:"])


def room_for_prompt(context: int, answer_tokens: int) -> int:
    """Tokens that may be read before an answer of so many, which is written `STEPS_PER_CALL` tokens at a time."""
    return context + 1 - -(-answer_tokens // STEPS_PER_CALL) * STEPS_PER_CALL


def fitting(passages: list[Passage], question: str, tokenizer: Tokenizer, room: int) -> int:
    """How many of the nearest passages fit. Raises `UserError` where the question alone does not."""
    for count in range(len(passages), -1, -1):
        if len(encode_prompt(prompt_of(passages[:count], question), tokenizer)) <= room:
            return count
    tokens = len(encode_prompt(prompt_of([], question), tokenizer))
    raise UserError(
        f"the question has {tokens:,} tokens with its frame, and {max(0, room):,} of the context are left beside the "
        f"answer; ask a shorter one, or for a shorter answer with --max-tokens"
    )
