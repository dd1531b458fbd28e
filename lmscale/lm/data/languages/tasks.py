"""Algorithmic tasks as lines of text, in the spirit of RASP (Weiss 2021, arXiv 2106.06981).

    copy abca=abca      reverse abca=acba    count abca=2112    sort abca=aabc    most abca=a
    brackets (()())=y   add 123+456=0579

A window is an end of document and then line after line, each closed by an end of document. The task of every line is
drawn at random, and its letters, digits and brackets uniformly (half of the bracket strings are balanced). `count` is
how often each letter occurs, `most` the letter that occurs most often, the first in the alphabet where several do.

Mixed into text at a rate: `mix: 0.9 * stdlib + 0.1 * synthetic:tasks(letters=4)`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config.synthetic import TASK_WORDS, Tasks
from lmscale.lm.data.languages.chance import Chance, chance_of

A, ZERO, OPEN, CLOSE, YES, NO = (np.int32(ord(char)) for char in "a0()yn")
EXAMPLES_SEED = 0x7461736B
"""Seed of the examples; windows use others."""
QuestionAnswer = tuple[jax.Array, jax.Array]
"""Question and answer as character codes, int32 [Q] and [R]."""
MakePair = Callable[[jax.Array], QuestionAnswer]
"""Makes a question and its answer from random numbers, uint32 [`_draws`]."""


@dataclass(frozen=True)
class LanguageTask:
    """One task: its questions, their answers, and what guessing scores."""

    name: str
    spec: Tasks

    @property
    def chance(self) -> Chance:
        """The exact expected scores of the best answer that does not depend on the question."""
        return chance_of(self.name, self.spec)

    @property
    def answer_length(self) -> int:
        """Characters of every answer."""
        lengths = {"most-frequent": 1, "brackets": 1, "addition": self.spec.digits + 1}
        return lengths.get(self.name, self.spec.length)

    def prompt(self, question: str) -> str:
        """The line up to the answer."""
        return f"{TASK_WORDS[self.name]} {question}="

    def answer(self, question: str) -> str:
        """The correct answer, computed in plain Python."""
        if self.name == "addition":
            return f"{sum(map(int, question.split('+'))):0{self.spec.digits + 1}d}"
        if self.name == "brackets":
            heights = np.cumsum([1 if char == "(" else -1 for char in question])
            return "y" if heights[-1] == 0 and heights.min() >= 0 else "n"
        counts = Counter(question)
        return {
            "copy": question,
            "reverse": question[::-1],
            "histogram": "".join(str(counts[char]) for char in question),
            "sort": "".join(sorted(question)),
            "most-frequent": min(counts, key=lambda char: (-counts[char], char)),
        }[self.name]

    def examples(self, count: int, stream: int = 0) -> list[tuple[str, str]]:
        """Questions and correct answers, drawn independently of every window."""
        key = jax.random.key(EXAMPLES_SEED, impl="threefry2x32")
        for number in (self.spec.seed, stream):
            key = jax.random.fold_in(key, number)
        questions, answers = _maker(self.name, self.spec)(jax.random.bits(key, (count, _draws(self.spec)), "uint32"))
        return [
            (_text(question), _text(answer)) for question, answer in zip(np.asarray(questions), np.asarray(answers))
        ]


@lru_cache(maxsize=32)
def _maker(name: str, spec: Tasks) -> jax.stages.Wrapped:
    """Makes questions and answers from rows of random numbers, compiled once."""
    return jax.jit(jax.vmap(_PAIRS[name](spec)))


def _text(codes: np.ndarray) -> str:
    return codes.astype(np.uint8).tobytes().decode()


def all_tasks(spec: Tasks) -> list[LanguageTask]:
    """The tasks of a language."""
    return [LanguageTask(name, spec) for name in spec.names]


def _draws(spec: Tasks) -> int:
    """The most random numbers that a line takes."""
    return max(2 * spec.length + 1, 2 * spec.digits)


def _letters(draws: jax.Array, spec: Tasks) -> jax.Array:
    """[length]: letters 0 ... letters - 1."""
    return (draws[: spec.length] % jnp.uint32(spec.letters)).astype(jnp.int32)


def _copy(spec: Tasks) -> MakePair:
    return lambda draws: ((x := A + _letters(draws, spec)), x)


def _reverse(spec: Tasks) -> MakePair:
    return lambda draws: ((x := A + _letters(draws, spec)), x[::-1])


def _sort(spec: Tasks) -> MakePair:
    return lambda draws: ((x := A + _letters(draws, spec)), jnp.sort(x))


def _histogram(spec: Tasks) -> MakePair:
    def pair(draws: jax.Array) -> QuestionAnswer:
        x = _letters(draws, spec)
        return A + x, ZERO + (x[:, None] == x[None]).sum(axis=1).astype(jnp.int32)

    return pair


def _most(spec: Tasks) -> MakePair:
    def pair(draws: jax.Array) -> QuestionAnswer:
        x = _letters(draws, spec)
        counts = (x[:, None] == jnp.arange(spec.letters)[None]).sum(axis=0)
        return A + x, A + jnp.argmax(counts)[None].astype(jnp.int32)  # argmax takes the first of several

    return pair


def _addition(spec: Tasks) -> MakePair:
    plus = np.full(1, ord("+"), np.int32)

    def pair(draws: jax.Array) -> QuestionAnswer:
        a, b = (draws[: 2 * spec.digits] % jnp.uint32(10)).astype(jnp.int32).reshape(2, spec.digits)
        digits, carry = [], jnp.int32(0)
        for position in reversed(range(spec.digits)):
            total = a[position] + b[position] + carry
            digits.append(total % 10)
            carry = total // 10
        return jnp.concatenate([ZERO + a, plus, ZERO + b]), ZERO + jnp.stack([carry, *digits[::-1]])

    return pair


def _brackets(spec: Tasks) -> MakePair:
    length = spec.length

    def pair(draws: jax.Array) -> QuestionAnswer:
        is_balanced, walk, order = draws[0] % 2 == 0, draws[1 : length + 1], draws[length + 1 : 2 * length + 1]
        height, balanced = jnp.int32(0), []
        for position in range(length):
            # Open with the share of balanced endings that open next (ballot numbers): all are equally likely.
            left = length - position
            ups, every = (height + 2) * (left - height), 2 * left * (height + 1)
            up = (walk[position] % every.astype(jnp.uint32)).astype(jnp.int32) < ups
            height = height + jnp.where(up, 1, -1)
            balanced.append(up)
        shuffled = jnp.argsort(order) < length // 2
        by_chance = (jnp.cumsum(jnp.where(shuffled, 1, -1)) >= 0).all()
        unbalanced = jnp.where(
            by_chance, shuffled[::-1], shuffled
        )  # a balanced string read backwards begins by closing
        chosen = jnp.where(is_balanced, jnp.stack(balanced), unbalanced)
        return jnp.where(chosen, OPEN, CLOSE), jnp.where(is_balanced, YES, NO)[None]

    return pair


_PAIRS: dict[str, Callable[[Tasks], MakePair]] = {
    "copy": _copy,
    "reverse": _reverse,
    "histogram": _histogram,
    "sort": _sort,
    "most-frequent": _most,
    "brackets": _brackets,
    "addition": _addition,
}


def sampler(spec: Tasks) -> Callable[[jax.Array, int], jax.Array]:
    """See `languages.Sampler`. Ids are bytes; 0xFF ends a line."""
    pairs = [_PAIRS[name](spec) for name in spec.names]
    heads = [np.array([*f"{TASK_WORDS[name]} ".encode()], np.int32) for name in spec.names]
    equals, end = np.full(1, ord("="), np.int32), np.full(1, spec.end_of_document, np.int32)

    def line(draws: jax.Array, task: int) -> jax.Array:
        question, answer = pairs[task](draws)
        return jnp.concatenate([heads[task], question, equals, answer, end])

    draws_shape = jax.ShapeDtypeStruct((_draws(spec),), jnp.uint32)
    lengths = [jax.eval_shape(partial(line, task=task), draws_shape).shape[0] for task in range(len(pairs))]
    longest, shortest = max(lengths), min(lengths)

    def any_line(draws: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A line of a random task, padded to the longest, and its length."""
        task = draws[0] % jnp.uint32(len(pairs))
        lines = [jnp.pad(line(draws[1:], i), (0, longest - length)) for i, length in enumerate(lengths)]
        return jnp.stack(lines)[task], jnp.array(lengths)[task]

    def sample(key: jax.Array, length: int) -> jax.Array:
        number = -(-(length - 1) // shortest)
        lines, sizes = jax.vmap(any_line)(jax.random.bits(key, (number, 1 + _draws(spec)), "uint32"))
        ends = jnp.cumsum(sizes)
        position = jnp.arange(length - 1)
        row = jnp.searchsorted(ends, position, side="right")
        return jnp.concatenate([end, lines[row, position - (ends - sizes)[row]]])

    return sample
