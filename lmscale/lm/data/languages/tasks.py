"""Algorithmic tasks as lines of text, in the spirit of RASP (Weiss 2021, arXiv 2106.06981).

    copy abca=abca      reverse abca=acba    count abca=2112    sort abca=aabc    most abca=a
    brackets (()())=y   add 123+456=0579

A window is an end of document and then line after line, each closed by one; every line is of a task drawn at random,
with letters, digits and brackets drawn uniformly (brackets: half of them balanced). `count` is how often each letter
occurs, `most` the letter that occurs most often, the first in the alphabet where several do.

Mixed into text at a rate: `mix: 0.9 * stdlib + 0.1 * synthetic:tasks(letters=4)`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from lmscale.core.config.synthetic import Tasks
from lmscale.lm.data.languages.chance import Chance, chance_of

A, ZERO, OPEN, CLOSE, YES, NO = (np.int32(ord(char)) for char in "a0()yn")
EXAMPLES = 0x7461736B
"""Seed of the examples; windows use other ones."""
WORDS = {
    "copy": "copy",
    "reverse": "reverse",
    "histogram": "count",
    "sort": "sort",
    "most-frequent": "most",
    "brackets": "brackets",
    "addition": "add",
}
"""How a line of each task begins."""
Pair = tuple[jax.Array, jax.Array]
"""Question and answer as character codes, int32 [Q] and [R]."""
Make = Callable[[jax.Array], Pair]
"""From random numbers, uint32 [`_draws`], to a question and its answer."""


@dataclass(frozen=True)
class Task:
    """One task with its scores: `exact` is all or nothing, `graded` the share of the answer's characters in place."""

    name: str
    spec: Tasks

    @property
    def chance(self) -> Chance:
        """The expected scores of the best answer that does not look at the question, exactly."""
        return chance_of(self.name, self.spec)

    @property
    def answer_length(self) -> int:
        """Characters of every answer."""
        lengths = {"most-frequent": 1, "brackets": 1, "addition": self.spec.digits + 1}
        return lengths.get(self.name, self.spec.length)

    def prompt(self, question: str) -> str:
        """The line up to the answer."""
        return f"{WORDS[self.name]} {question}="

    def answer(self, question: str) -> str:
        """The right answer, computed in plain Python."""
        if self.name == "addition":
            return f"{sum(map(int, question.split('+'))):0{self.spec.digits + 1}d}"
        if self.name == "brackets":
            heights = np.cumsum([1 if char == "(" else -1 for char in question])
            return "y" if heights[-1] == 0 and heights.min() >= 0 else "n"
        counted = Counter(question)
        return {
            "copy": question,
            "reverse": question[::-1],
            "histogram": "".join(str(counted[char]) for char in question),
            "sort": "".join(sorted(question)),
            "most-frequent": min(counted, key=lambda char: (-counted[char], char)),
        }[self.name]

    def exact(self, question: str, given: str) -> bool:
        """Whether an answer is right."""
        return given == self.answer(question)

    def graded(self, question: str, given: str) -> float:
        """The share of the right answer's characters that an answer has in their place."""
        right = self.answer(question)
        return sum(a == b for a, b in zip(right, given)) / len(right)

    def examples(self, count: int, stream: int = 0) -> list[tuple[str, str]]:
        """Questions and right answers, drawn independently of every window."""
        key = jax.random.key(EXAMPLES, impl="threefry2x32")
        for part in (self.spec.seed, stream):
            key = jax.random.fold_in(key, part)
        questions, answers = _maker(self.name, self.spec)(jax.random.bits(key, (count, _draws(self.spec)), "uint32"))
        return [(_text(line), _text(right)) for line, right in zip(np.asarray(questions), np.asarray(answers))]


@lru_cache(maxsize=32)
def _maker(name: str, spec: Tasks) -> jax.stages.Wrapped:
    """The questions and answers of many random numbers at once, compiled once."""
    return jax.jit(jax.vmap(_PAIRS[name](spec)))


def _text(codes: np.ndarray) -> str:
    return codes.astype(np.uint8).tobytes().decode()


def all_tasks(spec: Tasks) -> list[Task]:
    """The tasks of a language."""
    return [Task(name, spec) for name in spec.names]


def _draws(spec: Tasks) -> int:
    """Random numbers that a line takes at most."""
    return max(2 * spec.length + 1, 2 * spec.digits)


def _letters(draws: jax.Array, spec: Tasks) -> jax.Array:
    """[length]: letters 0 ... letters - 1."""
    return (draws[: spec.length] % jnp.uint32(spec.letters)).astype(jnp.int32)


def _copy(spec: Tasks) -> Make:
    return lambda draws: ((x := A + _letters(draws, spec)), x)


def _reverse(spec: Tasks) -> Make:
    return lambda draws: ((x := A + _letters(draws, spec)), x[::-1])


def _sort(spec: Tasks) -> Make:
    return lambda draws: ((x := A + _letters(draws, spec)), jnp.sort(x))


def _histogram(spec: Tasks) -> Make:
    def pair(draws: jax.Array) -> Pair:
        x = _letters(draws, spec)
        return A + x, ZERO + (x[:, None] == x[None]).sum(axis=1).astype(jnp.int32)

    return pair


def _most(spec: Tasks) -> Make:
    def pair(draws: jax.Array) -> Pair:
        x = _letters(draws, spec)
        counted = (x[:, None] == jnp.arange(spec.letters)[None]).sum(axis=0)
        return A + x, A + jnp.argmax(counted)[None].astype(jnp.int32)  # argmax takes the first of several

    return pair


def _addition(spec: Tasks) -> Make:
    plus = np.full(1, ord("+"), np.int32)

    def pair(draws: jax.Array) -> Pair:
        a, b = (draws[: 2 * spec.digits] % jnp.uint32(10)).astype(jnp.int32).reshape(2, spec.digits)
        digits, over = [], jnp.int32(0)
        for place in reversed(range(spec.digits)):
            total = a[place] + b[place] + over
            digits.append(total % 10)
            over = total // 10
        return jnp.concatenate([ZERO + a, plus, ZERO + b]), ZERO + jnp.stack([over, *digits[::-1]])

    return pair


def _brackets(spec: Tasks) -> Make:
    length = spec.length

    def pair(draws: jax.Array) -> Pair:
        good, walk, order = draws[0] % 2 == 0, draws[1 : length + 1], draws[length + 1 : 2 * length + 1]
        height, balanced = jnp.int32(0), []
        for place in range(length):
            # The share of balanced endings that open next (ballot numbers), so every balanced string is as likely.
            left = length - place
            ups, every = (height + 2) * (left - height), 2 * left * (height + 1)
            up = (walk[place] % every.astype(jnp.uint32)).astype(jnp.int32) < ups
            height = height + jnp.where(up, 1, -1)
            balanced.append(up)
        mixed = jnp.argsort(order) < length // 2
        fine = (jnp.cumsum(jnp.where(mixed, 1, -1)) >= 0).all()
        wrong = jnp.where(fine, mixed[::-1], mixed)  # a balanced string read backwards begins by closing
        chosen = jnp.where(good, jnp.stack(balanced), wrong)
        return jnp.where(chosen, OPEN, CLOSE), jnp.where(good, YES, NO)[None]

    return pair


_PAIRS: dict[str, Callable[[Tasks], Make]] = {
    "copy": _copy,
    "reverse": _reverse,
    "histogram": _histogram,
    "sort": _sort,
    "most-frequent": _most,
    "brackets": _brackets,
    "addition": _addition,
}


def writer(spec: Tasks) -> Callable[[jax.Array, int], jax.Array]:
    """See `languages.Writer`. Ids are bytes; 0xFF ends a line."""
    pairs = [_PAIRS[name](spec) for name in spec.names]
    heads = [np.array([*f"{WORDS[name]} ".encode()], np.int32) for name in spec.names]
    equals, end = np.full(1, ord("="), np.int32), np.full(1, spec.end_of_document, np.int32)

    def line(draws: jax.Array, task: int) -> jax.Array:
        question, answer = pairs[task](draws)
        return jnp.concatenate([heads[task], question, equals, answer, end])

    given = jax.ShapeDtypeStruct((_draws(spec),), jnp.uint32)
    lengths = [jax.eval_shape(partial(line, task=task), given).shape[0] for task in range(len(pairs))]
    longest, shortest = max(lengths), min(lengths)

    def any_line(draws: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A line of a task at random, filled up, and its length."""
        task = draws[0] % jnp.uint32(len(pairs))
        lines = [jnp.pad(line(draws[1:], i), (0, longest - length)) for i, length in enumerate(lengths)]
        return jnp.stack(lines)[task], jnp.array(lengths)[task]

    def write(key: jax.Array, length: int) -> jax.Array:
        number = -(-(length - 1) // shortest)
        lines, sizes = jax.vmap(any_line)(jax.random.bits(key, (number, 1 + _draws(spec)), "uint32"))
        ends = jnp.cumsum(sizes)
        place = jnp.arange(length - 1)
        row = jnp.searchsorted(ends, place, side="right")
        return jnp.concatenate([end, lines[row, place - (ends - sizes)[row]]])

    return write
