"""Parts of Python modules as documents: the code without docstrings, or the docstrings alone."""

import ast
import inspect
import itertools
import warnings
from collections.abc import Iterator

from lmscale.lm.data.corpora.chunks import Unreadable
from lmscale.lm.data.corpora.sources import Document, Skipped, Source

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class ModuleParts:
    """One part of every module of a source: "code" or "docstrings"; see `sources.Source`.

    The two parts of a module have no text in common, so that what is learned from one is not the text of the other.
    """

    def __init__(self, name: str, modules: Source, part: str) -> None:
        self.name = name
        self._modules = modules
        self._part = {"code": code, "docstrings": docstrings}[part]

    def units(self) -> Iterator[tuple[str, float]]:
        return self._modules.units()

    def documents(self, unit: str, skipped: list[Skipped]) -> Iterator[Document]:
        for document in self._modules.documents(unit, skipped):
            yield document._replace(text=self._part(document.text))


def docstrings(text: bytes) -> bytes:
    """The docstrings of a module in their order, without indentation, blank lines between. Raises `Unreadable`."""
    texts = (inspect.cleandoc(str(node.value)) for node in _docstrings(text))
    return "\n\n".join(texts).encode(errors="backslashreplace")


def code(text: bytes) -> bytes:
    """A module without its docstrings, nor the lines that they alone stand on. Raises `Unreadable`."""
    lines = text.splitlines(keepends=True)
    starts = list(itertools.accumulate(map(len, lines), initial=0))
    pieces, done = [], 0
    for node in _docstrings(text):
        assert node.end_lineno is not None and node.end_col_offset is not None
        first, last = node.lineno - 1, node.end_lineno - 1
        alone = not lines[first][: node.col_offset].strip() and not lines[last][node.end_col_offset :].strip()
        pieces.append(text[done : starts[first] + (0 if alone else node.col_offset)])
        done = starts[last + 1] if alone else starts[last] + node.end_col_offset
    return b"".join([*pieces, text[done:]])


def _docstrings(text: bytes) -> list[ast.Constant]:
    """The docstrings of a module, by their place. Raises `Unreadable` for what is no module of this Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # modules that test the compiler have escapes that it warns of
            tree = ast.parse(text.decode())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unreadable("is no Python that the running version can parse") from None
    first = (node.body[0] for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and node.body)
    values = (node.value for node in first if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    strings = (value for value in values if isinstance(value.value, str))
    return sorted(strings, key=lambda node: (node.lineno, node.col_offset))
