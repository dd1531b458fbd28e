"""What a model does with the items of a task: ln p of every choice and answer, and the answers that it generates.

    scorer = LMScorer(params, config, tokenizer)
    responses = scorer.responses(task, Shots(5))

What items have in common is read once: the worked examples before all of them, then each question before its choices.
Letters as in `transformer`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from lmscale.core.config import MeshConfig, ModelConfig, check
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.devices.sharding import batch_devices, batch_sharding, make_mesh, replicated
from lmscale.lm.eval.batching import Ids, common_prefix, padded_length, prefix_groups
from lmscale.lm.eval.tasks import Item, Response, Shots, Task, prompt
from lmscale.lm.eval.tasks.task import GENERATED
from lmscale.lm.model import kv_cache
from lmscale.lm.model.draw import draw
from lmscale.lm.model.kv_cache import KVCache
from lmscale.lm.model.parameters import Params

TOKENS_PER_CALL = 16_384
"""Read together: enough to fill a device."""
CACHE_BYTES, LOGIT_BYTES = 2**30, 2**29
"""Keys and values, and logits, of the texts that are read together take at most so much."""
GENERATED_PER_CALL = 16
"""Tokens generated between two looks at whether all answers have ended."""
MOST_ANSWERS = 4096
"""Drawn to one prompt."""
Scored = tuple[float, bool]
"""ln p of a text, and whether every token of it is the likeliest."""
Text = TypeVar("Text")


@dataclass(frozen=True)
class Question:
    """The candidates of one item, cut where they begin to differ or to be scored."""

    head: Ids
    """What all candidates begin with."""
    tails: tuple[Ids, ...]
    """How each goes on; the first token of a tail is never scored."""
    scored: tuple[int, ...]
    """How many of a tail's last tokens are scored."""
    cut: int
    """Tokens of the prompt that did not fit the context, at most."""


class LMScorer:
    """A model that scores and generates texts.

    With a mesh, `params` are placed on it and the rows of a batch are divided over its axes of data.
    """

    def __init__(self, params: Params, config: ModelConfig, tokenizer: Tokenizer, mesh: Mesh | None = None) -> None:
        self.params, self.config, self.tokenizer = params, config, tokenizer
        self.mesh = mesh or make_mesh(MeshConfig())
        self._extend = jax.jit(
            lambda params, cache, block, counts, source: kv_cache.extend(params, cache, block, counts, config, source)[
                1
            ]
        )
        self._score = jax.jit(
            lambda params, cache, block, targets, source: kv_cache.score(params, cache, block, targets, config, source),
            out_shardings=replicated(self.mesh),
        )
        self._generate = jax.jit(
            partial(kv_cache.generate, config=config),
            static_argnames="tokens",
            out_shardings=(replicated(self.mesh), None, None),
        )

    def responses(self, task: Task, shots: Shots = Shots()) -> list[Response]:  # noqa: B008
        """One response per item, in order: choices and answers scored, an answer generated where a metric needs one.

        A prompt that does not fit the context loses its left end, which is counted.
        Raises `UserError` for an answer longer than the context and for too few exemplars.
        """
        questions = [self._question(task, item, shots) for item in task.items]
        with jax.set_mesh(self.mesh):
            scores = self._score_questions(questions)
            generated: Sequence[str | None] = [None] * len(questions)
            if GENERATED & set(task.metrics) or not task.metrics:
                generated = self._generate_answers(task, shots)
        responses = []
        for item, question, candidates, text in zip(task.items, questions, scores, generated):
            logprobs, greedy = (
                tuple(logprob for logprob, _ in candidates),
                tuple(is_greedy for _, is_greedy in candidates),
            )
            n = len(item.choices)
            responses.append(
                Response(item.name, logprobs[:n], greedy[:n], logprobs[n:], greedy[n:], text, question.cut)
            )
        return responses

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Scored]:
        """For every (context, continuation) of tokens: ln p of the continuation, and whether it is the greedy one.

        A context that does not fit with its continuation loses its left end; equal contexts are read once.
        Raises `UserError` for an empty context and for a continuation longer than the model's context.
        """
        by_context: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for number, (context, continuation) in enumerate(pairs):
            check(len(context) > 0, "a context is empty; it holds the end of a document at least")
            cut = max(0, len(context) + len(continuation) - self.config.context - 1)
            check(
                cut < len(context),
                f"a continuation has {len(continuation)} tokens, more than the context of {self.config.context} holds",
            )
            by_context.setdefault((cut, tuple(context[cut:])), []).append(number)
        questions = []
        for (cut, context), numbers in by_context.items():
            tails = tuple(np.array([context[-1], *pairs[n][1]], np.int32) for n in numbers)
            questions.append(Question(np.array(context[:-1], np.int32), tails, tuple(len(x) - 1 for x in tails), cut))
        with jax.set_mesh(self.mesh):
            scores = self._score_questions(questions)
        by_number = {
            number: score
            for numbers, question_scores in zip(by_context.values(), scores)
            for number, score in zip(numbers, question_scores)
        }
        return [by_number[number] for number in range(len(pairs))]

    def generate(
        self, prompts: Sequence[Ids], most: int, stop: Sequence[str] = (), characters: int | None = None
    ) -> list[str]:
        """The greedy continuation of each prompt, `most` tokens at most, up to the end of a document.

        It may go on behind one of `stop`, which only says that no more is needed. A prompt that leaves too little room
        in the context loses its left end; `most` is less than the context.
        """
        texts = [tokens[-(self.config.context - most) :] for tokens in prompts]
        generated = [""] * len(texts)
        room = most + GENERATED_PER_CALL
        with jax.set_mesh(self.mesh):
            for batch in self._batches(list(range(len(texts))), lambda n: len(texts[n]), self.config.context + room):
                rows = self._generate_batch([texts[n] for n in batch], most, stop, characters)
                for n, row in zip(batch, rows):
                    generated[n] = self.text_before_end(row[:most])[:characters]
        return generated

    def draw(self, prompts: Sequence[Ids], answers: int, most: int, seed: int) -> list[Ids]:
        """Tokens [`answers`, `most`] drawn after each prompt at temperature 1, up to and with their end of a document,
        then -1.

        An answer depends on its prompt, the prompt's place, its own number and the seed. A prompt that leaves too
        little room in the context loses its left end; `most` is at most the context.
        """
        texts = [tokens[-(self.config.context + 1 - most) :] for tokens in prompts]
        drawn = [np.empty((answers, most), np.int32) for _ in texts]
        rows = [(number, answer) for number in range(len(texts)) for answer in range(answers)]
        with jax.set_mesh(self.mesh):
            for batch in self._batches(rows, lambda row: len(texts[row[0]]), self.config.context + most):
                block = self._block([texts[number] for number, _ in batch], 0)
                lengths, numbers = np.ones(len(block), np.int32), np.zeros(len(block), np.int32)
                lengths[: len(batch)] = [len(texts[number]) for number, _ in batch]
                numbers[: len(batch)] = [number * MOST_ANSWERS + answer for number, answer in batch]
                tokens_BR = draw(
                    self.params,
                    *map(self._shard, (block, lengths, numbers)),
                    jax.random.key(seed),
                    config=self.config,
                    answer_tokens=most,
                    end_of_document=self.tokenizer.end_of_document,
                )
                for (number, answer), row in zip(batch, np.asarray(tokens_BR)):
                    drawn[number][answer] = row
        return drawn

    def answer_prompts(self, task: Task, shots: Shots) -> list[Ids]:
        """The tokens before the answer to each item."""
        prompts = []
        for item in task.items:
            before, text = self._prompt(task, item, shots)
            prompts.append(np.array([*before, *self.tokenizer.encode(text.rstrip()).tolist()], np.int32))
        return prompts

    def _generate_batch(self, texts: list[Ids], most: int, stop: Sequence[str], characters: int | None) -> Ids:
        """Tokens [text, time] after each text, until all have ended or have `most` tokens or a few more."""
        longest = padded_length(max(map(len, texts)))
        empty = self._begin(texts[0][:0], longest + most + GENERATED_PER_CALL)
        cache = self._extend_rows(empty, [0] * len(texts), [text[:-1] for text in texts])
        last = self._shard(np.resize(np.array([text[-1] for text in texts], np.int32), cache.lengths_B.shape))
        tokens = np.zeros((len(texts), 0), np.int32)
        ended = False
        while not ended and tokens.shape[1] < most:
            more, last, cache = self._generate(self.params, cache, last, tokens=GENERATED_PER_CALL)
            tokens = np.concatenate([tokens, np.asarray(more)[: len(texts)]], axis=1)
            ended = all(self._has_ended(row, stop, characters) for row in tokens)
        return tokens

    def _generate_answers(self, task: Task, shots: Shots) -> list[str]:
        """The continuation of each prompt: up to a stop, the end of a document or the longest answer."""
        most = min(task.longest_answer, self.config.context // 2)
        return self.generate(self.answer_prompts(task, shots), most, task.stop, task.longest_answer)

    def text_before_end(self, tokens: Ids) -> str:
        """The text of tokens up to their first end of a document."""
        ends = np.flatnonzero(tokens == self.tokenizer.end_of_document)
        return self.tokenizer.decode(tokens[: ends[0]] if len(ends) else tokens)

    def _has_ended(self, tokens: Ids, stop: Sequence[str], characters: int | None) -> bool:
        if (tokens == self.tokenizer.end_of_document).any():
            return True
        text = self.tokenizer.decode(tokens)
        return (characters is not None and len(text) >= characters) or any(mark in text for mark in stop)

    def _prompt(self, task: Task, item: Item, shots: Shots) -> tuple[list[int], str]:
        """Tokens of the documents before that of the question, each ended, and the text up to its answer.

        Spaces between the two belong to the answer, as they do in most vocabularies.
        """
        documents, opening, question = prompt(task, item, shots)
        end = self.tokenizer.end_of_document
        before = [token for text in documents for token in (*self.tokenizer.encode(text).tolist(), end)]
        return [end, *before], opening + question

    def _question(self, task: Task, item: Item, shots: Shots) -> Question:
        before, text = self._prompt(task, item, shots)
        prompt_tokens = len(self.tokenizer.encode(text.rstrip()))
        candidates, scored, cut, most = [], [], 0, self.config.context + 1
        for answer in (*item.choices, *item.answers):
            document = self.tokenizer.encode(f"{text}{task.delimiter}{answer}").tolist()
            scored.append(max(1, len(document) - prompt_tokens))
            check(
                scored[-1] < most,
                f"task {task.name}, item {item.name}: the answer {answer[:40]!r} has {scored[-1]} tokens, more than "
                f"the context of {self.config.context} holds",
            )
            tokens = np.array([*before, *document], np.int32)
            candidates.append(tokens[-most:])
            cut = max(cut, len(tokens) - most)
        if not candidates:
            return Question(np.array([], np.int32), (), (), 0)
        unscored = [len(tokens) - count - 1 for tokens, count in zip(candidates, scored)]
        split = min(common_prefix(candidates), *unscored)
        return Question(candidates[0][:split], tuple(x[split:] for x in candidates), tuple(scored), max(0, cut))

    def _score_questions(self, questions: Sequence[Question]) -> list[list[Scored]]:
        """ln p of the scored tokens of every candidate, and whether they are the greedy ones."""
        scores: list[list[Scored]] = [[(0.0, False)] * len(question.tails) for question in questions]
        with_tails = [n for n, question in enumerate(questions) if question.tails]
        for group in prefix_groups([questions[n].head for n in with_tails]):
            self._score_group(questions, [with_tails[number] for number in group], scores)
        return scores

    def _score_group(self, questions: Sequence[Question], numbers: list[int], scores: list[list[Scored]]) -> None:
        """Fill in the scores of the questions `numbers`, whose heads have a common prefix."""
        start = common_prefix([questions[n].head for n in numbers])
        heads = {n: questions[n].head[start:] for n in numbers}
        longest_tail = max(len(tail) for n in numbers for tail in questions[n].tails)
        room = padded_length(max(map(len, heads.values()))) + padded_length(longest_tail)
        prefix = self._begin(questions[numbers[0]].head[:start], room)
        for batch in self._batches(numbers, lambda n: len(heads[n]), start + room):
            cache = self._extend_rows(prefix, [0] * len(batch), [heads[n] for n in batch])
            row_of = {n: row for row, n in enumerate(batch)}
            tails = [(n, k) for n in batch for k in range(len(questions[n].tails))]
            for tail_batch in self._batches(tails, lambda nk: len(questions[nk[0]].tails[nk[1]]), start + room):
                texts = [questions[n].tails[k] for n, k in tail_batch]
                tokens = self._block([text[:-1] for text in texts], 0)
                targets = self._block([text[1:] for text in texts], -1)
                for row, (n, k) in enumerate(tail_batch):
                    targets[row, : len(texts[row]) - 1 - questions[n].scored[k]] = -1
                source = self._source_rows([row_of[n] for n, _ in tail_batch], len(tokens))
                arrays = self._score(self.params, cache, self._shard(tokens), self._shard(targets), source)
                logprobs, greedy = (np.asarray(array).tolist() for array in arrays)
                for (n, k), logprob, is_greedy in zip(tail_batch, logprobs, greedy):
                    scores[n][k] = (logprob, is_greedy)

    def _begin(self, tokens: Ids, room: int) -> KVCache:
        """The cache of one text, with room for more. It stands on every device: all rows begin with a copy of it."""
        empty = kv_cache.init_cache(self.config, 1, padded_length(len(tokens)) + room)
        if not len(tokens):
            return empty
        count, first = np.array([len(tokens)], np.int32), np.zeros(1, np.int32)
        return self._extend(self.params, empty, self._block([tokens], 0, rows=1), count, first)

    def _extend_rows(self, cache: KVCache, source: list[int], texts: list[Ids]) -> KVCache:
        """The cache of every text, read after the row of `cache` that `source` names."""
        block = self._block(texts, 0)
        counts = np.zeros(len(block), np.int32)
        counts[: len(texts)] = [len(text) for text in texts]
        rows = self._source_rows(source, len(block))
        return self._extend(self.params, cache, self._shard(block), self._shard(counts), rows)

    def _source_rows(self, source: list[int], rows: int) -> jax.Array:
        """The row of a cache that each row of a block continues; rows that only fill the block continue the first."""
        return self._shard(np.array(source + [0] * (rows - len(source)), np.int32))

    def _block(self, texts: list[Ids], fill: int, rows: int | None = None) -> Ids:
        """Texts as rows of a block, padded on the right and with rows below."""
        rows = rows or self._rows_for(len(texts))
        block = np.full((rows, padded_length(max(map(len, texts)))), fill, np.int32)
        for row, text in zip(block, texts):
            row[: len(text)] = text
        return block

    def _shard(self, block: Ids) -> jax.Array:
        return jax.device_put(block, batch_sharding(self.mesh))

    def _rows_for(self, count: int) -> int:
        """At least `count`, a power of two times the devices that a batch is divided over."""
        devices = batch_devices(self.mesh)
        return devices * 2 ** max(0, -(-count // devices) - 1).bit_length()

    def _batches(self, texts: list[Text], length: Callable[[Text], int], positions: int) -> Iterator[list[Text]]:
        """Texts of one padded length, as many as fit in one call beside a cache of so many positions."""
        config = self.config
        row_bytes = (
            2 * config.layers * positions * config.num_kv_heads * config.head_width * np.dtype("float32").itemsize
        )
        for size in sorted({padded_length(length(text)) for text in texts}):
            of_size = [text for text in texts if padded_length(length(text)) == size]
            most = min(TOKENS_PER_CALL // size, CACHE_BYTES // row_bytes, LOGIT_BYTES // (4 * size * config.vocab))
            step = self._rows_for(max(1, most) // 2 + 1)
            yield from (of_size[start : start + step] for start in range(0, len(of_size), step))
