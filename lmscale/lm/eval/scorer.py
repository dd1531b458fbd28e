"""What a model does with the items of a task: ln p of every choice and answer, and what it writes by itself.

    reader = Reader(params, config, encoder)
    responses = reader.responses(task, Shots(5))

What items have in common is read once: the worked examples before all of them, then each question before its choices.
Texts are filled up to a few fixed lengths, so that few programs are compiled. Letters as in `model`.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.core.config import MeshConfig, ModelConfig, check
from lmscale.lm.data.tokenizer import Tokenizer
from lmscale.lm.devices.sharding import batch_sharding, make_mesh, replicated
from lmscale.lm.eval.tasks import Item, Response, Shots, Task, prompt
from lmscale.lm.model import kv_cache
from lmscale.lm.model.kv_cache import KVCache
from lmscale.lm.model.parameters import Params

TOKENS_AT_ONCE = 16_384
"""Read together: enough to fill a device."""
MEMORY_BYTES, LOGIT_BYTES = 2**30, 2**29
"""Keys, values and logits of the texts that are read together take at most so much."""
SHORTEST = 8
"""Texts are filled up to this many tokens, or twice as many, or four times, ..."""
GROUP_TOKENS = 1024
"""What a further group costs, in tokens that could be read instead."""
WRITTEN_AT_ONCE = 16
"""Tokens between two looks at whether all answers have ended."""
WRITTEN_METRICS = {"exact_match", "edit_similarity", "share_in_place"}
Ids = NDArray[np.int32]
Thing = TypeVar("Thing")


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


class Reader:
    """A model that reads and writes. With a mesh, `params` are placed on it and texts are cut over data and fsdp."""

    def __init__(self, params: Params, config: ModelConfig, encoder: Tokenizer, mesh: Mesh | None = None) -> None:
        self.params, self.config, self.encoder = params, config, encoder
        self.mesh = mesh or make_mesh(MeshConfig())
        self._read = jax.jit(
            lambda params, memory, block, counts, after: kv_cache.extend(params, memory, block, counts, config, after)[
                1
            ]
        )
        self._score = jax.jit(
            lambda params, memory, block, targets, after: kv_cache.score(params, memory, block, targets, config, after),
            out_shardings=replicated(self.mesh),
        )
        self._write = jax.jit(
            partial(kv_cache.generate, config=config),
            static_argnames="tokens",
            out_shardings=(replicated(self.mesh), None, None),
        )

    def responses(self, task: Task, shots: Shots = Shots()) -> list[Response]:  # noqa: B008
        """One response per item, in their order: choices and answers scored, and written where a metric compares.

        A prompt that does not fit the context loses its left end, which is counted.
        Raises `UserError` for an answer longer than the context and for too few exemplars.
        """
        questions = [self._question(task, item, shots) for item in task.items]
        with jax.set_mesh(self.mesh):
            scores = self._scores(questions)
            written: Sequence[str | None] = [None] * len(questions)
            if WRITTEN_METRICS & set(task.metrics) or not task.metrics:
                written = self._answers(task, shots)
        found = []
        for item, question, scored, text in zip(task.items, questions, scores, written):
            nats, greedy = tuple(value for value, _ in scored), tuple(same for _, same in scored)
            n = len(item.choices)
            found.append(Response(item.name, nats[:n], greedy[:n], nats[n:], greedy[n:], text, question.cut))
        return found

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Of every (context, continuation) of tokens: ln p of the continuation, and whether the model would write it.

        A context that does not fit with its continuation loses its left end; equal contexts are read once.
        Raises `UserError` for an empty context and for a continuation longer than the model's context.
        """
        together: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for number, (context, continuation) in enumerate(pairs):
            check(len(context) > 0, "a context is empty; it holds the end of a document at least")
            cut = max(0, len(context) + len(continuation) - self.config.context - 1)
            check(
                cut < len(context),
                f"a continuation has {len(continuation)} tokens, more than the context of {self.config.context} holds",
            )
            together.setdefault((cut, tuple(context[cut:])), []).append(number)
        questions = []
        for (cut, kept), numbers in together.items():
            tails = tuple(np.array([kept[-1], *pairs[n][1]], np.int32) for n in numbers)
            questions.append(Question(np.array(kept[:-1], np.int32), tails, tuple(len(x) - 1 for x in tails), cut))
        with jax.set_mesh(self.mesh):
            scores = self._scores(questions)
        found = {n: one for numbers, several in zip(together.values(), scores) for n, one in zip(numbers, several)}
        return [found[number] for number in range(len(pairs))]

    def write(
        self, prompts: Sequence[Ids], most: int, stop: Sequence[str] = (), characters: int | None = None
    ) -> list[str]:
        """The text of the likeliest tokens after each prompt, `most` at most, up to the end of a document.

        It may go on behind one of `stop`, which only says that no more is needed. A prompt that leaves too little room
        in the context loses its left end; `most` is less than the context.
        """
        texts = [tokens[-(self.config.context - most) :] for tokens in prompts]
        written = [""] * len(texts)
        room = most + WRITTEN_AT_ONCE
        with jax.set_mesh(self.mesh):
            for group in self._together(list(range(len(texts))), lambda n: len(texts[n]), self.config.context + room):
                longest = _filled(max(len(texts[n]) for n in group))
                empty = self._begin(texts[0][:0], longest + room)
                memory = self._read_on(empty, [0] * len(group), [texts[n][:-1] for n in group])
                last = self._placed(
                    np.resize(np.array([texts[n][-1] for n in group], np.int32), memory.lengths_B.shape)
                )
                tokens = np.zeros((len(group), 0), np.int32)
                ended = False
                while not ended and tokens.shape[1] < most:
                    more, last, memory = self._write(self.params, memory, last, tokens=WRITTEN_AT_ONCE)
                    tokens = np.concatenate([tokens, np.asarray(more)[: len(group)]], axis=1)
                    ended = all(self._has_ended(row, stop, characters) for row in tokens)
                for n, row in zip(group, tokens):
                    written[n] = self._text(row[:most])[:characters]
        return written

    def _prompt(self, task: Task, item: Item, shots: Shots) -> tuple[list[int], str]:
        """Tokens of the documents before that of the question, each ended, and the text up to its answer.

        Spaces between the two belong to the answer, as they do in most vocabularies.
        """
        documents, opening, question = prompt(task, item, shots)
        end = self.encoder.end_of_document
        before = [token for text in documents for token in (*self.encoder.encode(text).tolist(), end)]
        return [end, *before], opening + question

    def _question(self, task: Task, item: Item, shots: Shots) -> Question:
        before, text = self._prompt(task, item, shots)
        asked = len(self.encoder.encode(text.rstrip()))
        candidates, scored, cut, most = [], [], 0, self.config.context + 1
        for answer in (*item.choices, *item.answers):
            whole = self.encoder.encode(f"{text}{task.delimiter}{answer}").tolist()
            scored.append(max(1, len(whole) - asked))
            check(
                scored[-1] < most,
                f"task {task.name}, item {item.name}: the answer {answer[:40]!r} has {scored[-1]} tokens, more than "
                f"the context of {self.config.context} holds",
            )
            tokens = np.array([*before, *whole], np.int32)
            candidates.append(tokens[-most:])
            cut = max(cut, len(tokens) - most)
        if not candidates:
            return Question(np.array([], np.int32), (), (), 0)
        known = [len(tokens) - count - 1 for tokens, count in zip(candidates, scored)]
        alike = min(_alike(candidates), *known)
        return Question(candidates[0][:alike], tuple(x[alike:] for x in candidates), tuple(scored), max(0, cut))

    def _scores(self, questions: Sequence[Question]) -> list[list[tuple[float, bool]]]:
        """ln p of what is scored of every candidate, and whether it is what the model would write."""
        found: list[list[tuple[float, bool]]] = [[(0.0, False)] * len(question.tails) for question in questions]
        asked = [n for n, question in enumerate(questions) if question.tails]
        for group in _sharing([questions[n].head for n in asked]):
            self._score_together(questions, [asked[place] for place in group], found)
        return found

    def _score_together(
        self, questions: Sequence[Question], numbers: list[int], found: list[list[tuple[float, bool]]]
    ) -> None:
        start = _alike([questions[n].head for n in numbers])
        heads = {n: questions[n].head[start:] for n in numbers}
        tails = [(n, k) for n in numbers for k in range(len(questions[n].tails))]
        room = _filled(max(map(len, heads.values()))) + _filled(max(len(questions[n].tails[k]) for n, k in tails))
        opening = self._begin(questions[numbers[0]].head[:start], room)
        for group in self._together(numbers, lambda n: len(heads[n]), start + room):
            memory = self._read_on(opening, [0] * len(group), [heads[n] for n in group])
            places = {n: place for place, n in enumerate(group)}
            ours = [(n, k) for n in group for k in range(len(questions[n].tails))]
            for part in self._together(ours, lambda nk: len(questions[nk[0]].tails[nk[1]]), start + room):
                texts = [questions[n].tails[k] for n, k in part]
                tokens = self._block([text[:-1] for text in texts], 0)
                targets = self._block([text[1:] for text in texts], -1)
                for row, (n, k) in enumerate(part):
                    targets[row, : len(texts[row]) - 1 - questions[n].scored[k]] = -1
                after = self._after([places[n] for n, _ in part], len(tokens))
                nats, greedy = self._score(self.params, memory, self._placed(tokens), self._placed(targets), after)
                for (n, k), value, same in zip(part, np.asarray(nats).tolist(), np.asarray(greedy).tolist()):
                    found[n][k] = (value, same)

    def _answers(self, task: Task, shots: Shots) -> list[str]:
        """What the model writes after each prompt: up to a stop, the end of a document or the longest answer."""
        prompts = []
        for item in task.items:
            before, text = self._prompt(task, item, shots)
            prompts.append(np.array([*before, *self.encoder.encode(text.rstrip()).tolist()], np.int32))
        most = min(task.longest_answer, self.config.context // 2)
        return self.write(prompts, most, task.stop, task.longest_answer)

    def _text(self, tokens: Ids) -> str:
        """The text before the end of the document."""
        ends = np.flatnonzero(tokens == self.encoder.end_of_document)
        return self.encoder.decode(tokens[: ends[0]] if len(ends) else tokens)

    def _has_ended(self, tokens: Ids, stop: Sequence[str], characters: int | None) -> bool:
        if (tokens == self.encoder.end_of_document).any():
            return True
        text = self.encoder.decode(tokens)
        return (characters is not None and len(text) >= characters) or any(mark in text for mark in stop)

    def _begin(self, tokens: Ids, room: int) -> KVCache:
        """The memory of one text, with room for more. It stands on every device: all rows begin with a copy of it."""
        empty = kv_cache.init_cache(self.config, 1, _filled(len(tokens)) + room)
        if not len(tokens):
            return empty
        count, first = np.array([len(tokens)], np.int32), np.zeros(1, np.int32)
        return self._read(self.params, empty, self._block([tokens], 0, rows=1), count, first)

    def _read_on(self, memory: KVCache, places: list[int], texts: list[Ids]) -> KVCache:
        """The memory of every text read after the row of `memory` that `places` names."""
        block = self._block(texts, 0)
        counts = np.zeros(len(block), np.int32)
        counts[: len(texts)] = [len(text) for text in texts]
        after = self._after(places, len(block))
        return self._read(self.params, memory, self._placed(block), self._placed(counts), after)

    def _after(self, places: list[int], rows: int) -> jax.Array:
        """The row of the memory that each row of a block goes on from."""
        return self._placed(np.array(places + [0] * (rows - len(places)), np.int32))

    def _block(self, texts: list[Ids], fill: int, rows: int | None = None) -> Ids:
        """Texts as rows of a block, filled up on the right and with rows below."""
        rows = rows or self._rows_for(len(texts))
        block = np.full((rows, _filled(max(map(len, texts)))), fill, np.int32)
        for row, text in zip(block, texts):
            row[: len(text)] = text
        return block

    def _placed(self, block: Ids) -> jax.Array:
        return jax.device_put(block, batch_sharding(self.mesh))

    def _rows_for(self, count: int) -> int:
        """At least `count`, a multiple of the parts of a batch, and one of few numbers."""
        parts = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        return parts * 2 ** max(0, -(-count // parts) - 1).bit_length()

    def _together(self, things: list[Thing], length: Callable[[Thing], int], positions: int) -> Iterator[list[Thing]]:
        """Things of nearly one length, as many as fit in one call beside a memory of so many positions."""
        config = self.config
        row_bytes = (
            2 * config.layers * positions * config.num_kv_heads * config.head_width * np.dtype("float32").itemsize
        )
        for size in sorted({_filled(length(one)) for one in things}):
            alike = [one for one in things if _filled(length(one)) == size]
            most = min(TOKENS_AT_ONCE // size, MEMORY_BYTES // row_bytes, LOGIT_BYTES // (4 * size * config.vocab))
            step = self._rows_for(max(1, most) // 2 + 1)
            yield from (alike[i : i + step] for i in range(0, len(alike), step))


def _sharing(texts: Sequence[Ids]) -> list[list[int]]:
    """Groups of texts, by number, such that reading each group's common beginning once saves most.

    A few that begin otherwise (an item that is itself an example, a prompt cut on its left) must not take the common
    beginning from all. In order of their tokens, texts are cut apart where neighbours have least in common, as long as
    that leaves less to read; those that end up alone are one group.
    """
    order = sorted(range(len(texts)), key=lambda n: texts[n].tolist())
    common = [_alike([texts[one], texts[other]]) for one, other in itertools.pairwise(order)]

    def tokens_read(start: int, stop: int) -> int:
        total = sum(len(texts[n]) for n in order[start:stop])
        alone = stop - start == 1
        return total if alone else GROUP_TOKENS + total - (stop - start - 1) * min(common[start : stop - 1])

    groups, single, open_ranges = [], [], [(0, len(order))] if order else []
    while open_ranges:
        start, stop = open_ranges.pop()
        if stop - start == 1:
            single.append(order[start])
            continue
        least = min(common[start : stop - 1])
        cuts = [start, *(n + 1 for n in range(start, stop - 1) if common[n] == least), stop]
        parts = list(itertools.pairwise(cuts))
        if sum(tokens_read(*part) for part in parts) < tokens_read(start, stop):
            open_ranges += parts
        else:
            groups.append(order[start:stop])
    return groups + ([single] if single else [])


def _alike(texts: Sequence[Ids]) -> int:
    """Tokens that all texts begin with."""
    shortest = min(map(len, texts))
    block = np.stack([text[:shortest] for text in texts])
    differs = (block != block[:1]).any(axis=0)
    return int(differs.argmax()) if differs.any() else shortest


def _filled(length: int) -> int:
    """The next of SHORTEST, twice SHORTEST, ..."""
    return SHORTEST * 2 ** max(0, -(-length // SHORTEST) - 1).bit_length()
