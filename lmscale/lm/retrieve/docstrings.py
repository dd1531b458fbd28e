"""A task of retrieval whose key comes from text itself: the body of a function, and its docstring among all others.

The functions are those of held-out modules of Python's standard library. A body has neither its own docstring nor those
of functions inside of it, so that no query contains a key. Of equal docstrings there is one key.
"""

import ast
import inspect
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.core.config import check
from lmscale.lm.data.corpora.chunks import Unreadable
from lmscale.lm.data.corpora.module_parts import code
from lmscale.lm.eval.batching import Ids
from lmscale.lm.inspect.subject import Subject
from lmscale.lm.retrieve.embed import Embedder
from lmscale.lm.retrieve.ranking import bm25_scores, ranks

FUNCTIONS = 512
"""Functions of the task where nobody says how many."""
LEAST_WORDS = 4
"""A docstring of fewer says too little to be found."""


class Function(NamedTuple):
    """A function of a module."""

    name: str
    body: str
    """The statements of the function, without docstrings."""
    docstring: str


class Ranks(NamedTuple):
    """The place of every function's docstring among all keys, counted from 1."""

    model_Q: NDArray[np.int64]
    bm25_Q: NDArray[np.int64]
    keys: int
    flops: int
    """FLOPs of embedding all bodies and docstrings."""


def held_out_functions(modules: Iterable[bytes], most: int) -> list[Function]:
    """The first functions of the modules. Raises `UserError` for fewer than two different docstrings."""
    chosen: list[Function] = []
    bodies: set[str] = set()
    for module in modules:
        for function in functions(module):
            if function.body not in bodies:
                bodies.add(function.body)
                chosen.append(function)
        if len(chosen) >= most:
            break
    chosen = chosen[:most]
    different = {function.docstring for function in chosen}
    check(
        len(different) > 1,
        f"the held-out modules have {len(different)} functions with a docstring, of which none can be told from "
        f"another; take a larger validation_fraction",
    )
    return chosen


def functions(module: bytes) -> Iterator[Function]:
    """The functions of a module that have a docstring and do something; none of what is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # modules that test the compiler have escapes that it warns of
            source = module.decode()
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _does_something(node):
            docstring = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
            body = _body(lines, node)
            if body and len(docstring.split()) >= LEAST_WORDS:
                yield Function(node.name, body, docstring)


def _does_something(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether statements follow a docstring that are more than a placeholder."""
    rest = node.body[1:]
    idle = len(rest) == 1 and isinstance(rest[0], ast.Pass | ast.Raise)
    on_lines_of_its_own = bool(rest) and rest[0].lineno > (node.body[0].end_lineno or 0)
    return ast.get_docstring(node, clean=False) is not None and on_lines_of_its_own and not idle


def _body(lines: Sequence[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The statements after the docstring, without the docstrings inside of them; "" where they cannot be told."""
    decorators = getattr(node.body[1], "decorator_list", [])
    first = min(one.lineno for one in [node.body[1], *decorators])
    text = textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))
    try:
        return code(text.encode()).decode().strip()
    except Unreadable:  # a line that goes on at the margin
        return ""


def rank_docstrings(subject: Subject, embedder: Embedder, chosen: Sequence[Function]) -> Ranks:
    """Where the docstring of each function is among those of all, for the model and for BM25.

    Of what is longer than a context the model reads the beginning.
    """
    keys = list(dict.fromkeys(function.docstring for function in chosen))
    number_of = {key: number for number, key in enumerate(keys)}
    key_Q = np.array([number_of[function.docstring] for function in chosen], np.int64)
    bodies = [function.body for function in chosen]
    before = embedder.tokens
    queries_QD, keys_ND = (embedder([_tokens(subject, text) for text in texts]) for texts in (bodies, keys))
    read = embedder.tokens - before
    flops = read * embedder.flops_per_token(read // (len(bodies) + len(keys)))
    return Ranks(ranks(queries_QD @ keys_ND.T, key_Q), ranks(bm25_scores(bodies, keys), key_Q), len(keys), flops)


def _tokens(subject: Subject, text: str) -> Ids:
    return np.asarray(subject.tokenizer.encode(text), np.int32)[: subject.config.model.context - 1]
