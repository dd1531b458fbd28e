"""Every assertion of the tests can fail: none is on a generator, a tuple, a text, or a function that is not called."""

import ast
from collections.abc import Iterator

import pytest
from helpers.architecture import ROOT

ALWAYS_TRUE = (ast.GeneratorExp, ast.Tuple, ast.Lambda, ast.JoinedStr)


def operands(test: ast.expr) -> Iterator[ast.expr]:
    """The expressions whose truth an assertion depends on: both sides of `and` and `or`, what `not` negates."""
    if isinstance(test, ast.BoolOp):
        for value in test.values:
            yield from operands(value)
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from operands(test.operand)
    else:
        yield test


def faults(source: str) -> list[str]:
    """The assertions of a program that cannot fail, and comparisons whose result nobody reads, as text."""
    texts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Compare | ast.BoolOp):
            texts.append(ast.unparse(node))
        if not isinstance(node, ast.Assert):
            continue
        if isinstance(node.msg, ast.Constant) and not isinstance(node.msg.value, str):  # meant as a comparison
            texts.append(ast.unparse(node))
        for part in operands(node.test):
            constant = isinstance(part, ast.Constant) and bool(part.value)
            if constant or isinstance(part, ALWAYS_TRUE) or uncalled(part):
                texts.append(ast.unparse(node))
    return texts


def uncalled(part: ast.expr) -> bool:
    """Whether an expression names a method that every object of its kind has, and does not call it."""
    return isinstance(part, ast.Attribute) and part.attr in ("exists", "is_dir", "is_file", "startswith", "endswith")


@pytest.mark.long
def test_every_assertion_can_fail() -> None:
    wrong = {file.name: faults(file.read_text()) for file in sorted((ROOT / "tests").rglob("*.py"))}
    assert {name: texts for name, texts in wrong.items() if texts} == {}


@pytest.mark.parametrize(
    "fault",
    [
        "assert (x for x in y)",
        "assert a == b and ('gpu' in words for words in told)",
        "assert (a, b)",
        "assert not (a, b)",
        "assert path.exists",
        "assert 1",
        "assert f'{a}'",
        "assert a, 3",
        "a == b",
        "a == b or c",
    ],
)
def test_the_fault_is_found(fault: str) -> None:
    assert faults(fault) == [fault]


def test_what_can_fail_is_left_alone() -> None:
    assert (
        faults("assert all(x for x in y) and path.exists() and (a, b) == c, 'a sentence'\nassert done, done.stderr")
        == []
    )
