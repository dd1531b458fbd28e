"""The expressions of `where`: comparisons and arithmetic of columns, and, or, not, in. Nothing else can be written.

    params > 1e8 and kind in ('a', 'b')        `eval loss` < 3          not held_out          'gpt' in name

An expression is parsed, never executed: it reaches columns, numbers and texts, no attribute, function or module.
"""

import ast
import io
import operator
import tokenize
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 2000
"""Characters of an expression."""
MOST_VALUES = 8
"""Values of a column that an error lists."""
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.Mod: operator.mod, ast.FloorDiv: operator.floordiv,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
WORDS = {"&": "and", "|": "or", "~": "not"}
"""Signs of pandas for the words."""
EXAMPLE = "write a comparison of columns, as in 'params > 1e8'"


class _Invalid(Exception):
    """What an expression may not hold; the text says it."""


def query(table: "pd.DataFrame", where: str) -> "pd.DataFrame":
    """The rows for which the expression `where` holds. Raises `UserError` where it cannot be evaluated, or for none."""
    try:
        if not isinstance(where, str):
            raise _Invalid("it is no text")
        if len(where) > LONGEST:
            raise _Invalid(f"it has more than {LONGEST} characters")
        text, names = _python(where)
        with np.errstate(all="ignore"):
            evaluation, tree = _Evaluation(table, names), ast.parse(text, mode="eval").body
            mask = _mask(evaluation.of(tree), len(table))
    except (_Invalid, SyntaxError, TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        if isinstance(error, UserError):
            raise UserError(f"`where={_shown(where)}` {error}") from None
        sentence = error.msg if isinstance(error, SyntaxError) else str(error)
        cause = sentence.splitlines()[0] if sentence else type(error).__name__
        raise UserError(f"`where={_shown(where)}` cannot be evaluated ({cause}): {EXAMPLE}") from None
    if not mask.any():
        raise UserError(f"`where={_shown(where)}` keeps none of the {len(table)} rows{_why_none(evaluation, tree)}")
    return table[mask]


def _why_none(evaluation: "_Evaluation", tree: ast.expr) -> str:
    """What the column of the first comparison that no row meets does hold, as a clause; "" where none fails alone."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(ast.Name() | ast.Attribute() as name, [ast.Eq() | ast.In() | ast.Lt() | ast.LtE()
                                                                    | ast.Gt() | ast.GtE()], [_]):  # fmt: skip
                if len(evaluation.table) and not np.asarray(evaluation.of(node), dtype=bool).any():
                    return f"; {evaluation.values_of(name)}"
    return ""


def _shown(where: object) -> str:
    text = repr(where)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _python(where: str) -> tuple[str, dict[str, str]]:
    """The expression with placeholders for names between backticks and words for signs; placeholder -> name."""
    names: dict[str, str] = {}
    pieces = where.split("`")
    if len(pieces) % 2 == 0:
        raise _Invalid("a backtick has no partner")
    for place in range(1, len(pieces), 2):
        placeholder = f"_column_{place}_"
        names[placeholder] = pieces[place]
        pieces[place] = f" {placeholder} "
    tokens = []
    try:
        for token in tokenize.generate_tokens(io.StringIO("".join(pieces).strip()).readline):
            word = WORDS.get(token.string) if token.type == tokenize.OP else None
            tokens.append((tokenize.NAME if word else token.type, word or token.string))
    except (tokenize.TokenError, IndentationError) as error:
        raise _Invalid(str(error.args[0]).lower()) from None
    return tokenize.untokenize(tokens).strip(), names


def _mask(truth: Any, rows: int) -> np.ndarray:
    import pandas as pd

    if not isinstance(truth, pd.Series):
        raise _Invalid("it names no column")
    if truth.dtype.kind == "O" and truth.dropna().map(lambda value: isinstance(value, bool | np.bool_)).all():
        truth = truth.map(lambda value: value is True or value is np.True_)
    if str(truth.dtype) not in ("bool", "boolean"):
        raise _Invalid("it is no comparison: for each row it must be true or false")
    return np.asarray(truth.fillna(False), dtype=bool).reshape(rows)


class _Evaluation:
    """The values of syntax trees over the columns of one table: columns, numbers, texts and lists of these."""

    def __init__(self, table: "pd.DataFrame", names: dict[str, str]) -> None:
        self.table, self.names = table, names

    def of(self, node: ast.expr) -> Any:
        """The value of a tree. Raises `_Invalid` for anything outside of the language."""
        value: Any
        match node:
            case ast.Constant(value) if value is None or isinstance(value, bool | int | float | str):
                pass
            case ast.Name() | ast.Attribute():
                value = self._column(node)
            case ast.List(items) | ast.Tuple(items) | ast.Set(items):
                value = [self._constant(item) for item in items]
            case ast.UnaryOp(ast.Not(), operand):
                value = ~self._truth(operand)
            case ast.UnaryOp(ast.USub(), operand):
                value = -self._number(operand)
            case ast.BoolOp(joint, operands):
                value = self._joined(joint, operands)
            case ast.BinOp(left, sign, right) if type(sign) in ARITHMETIC:
                value = ARITHMETIC[type(sign)](self._number(left), self._number(right))
            case ast.Compare(left, signs, rights):
                value = self._chain([left, *rights], signs)
            case _:
                shown = ast.unparse(node)[:60]
                raise _Invalid(f"{shown!r} is no column, number, text, comparison or arithmetic")
        return value

    def _column(self, node: ast.expr) -> Any:
        """A column by its name, which may hold points: config.lr."""
        name = self.names.get(ast.unparse(node), ast.unparse(node))
        columns = [str(column) for column in self.table.columns]
        if name not in columns:
            raise UserError(f"names {name!r}, which is no column{nearest(name, columns)}")
        return self.table.iloc[:, columns.index(name)]

    def values_of(self, node: ast.expr) -> str:
        """ "params is 1e+07 to 1e+09", or "kind is one of 'a', 'b'"."""
        import pandas as pd

        column = self._column(node).dropna()
        named = self.names.get(ast.unparse(node), ast.unparse(node))
        if not len(column):
            return f"{named} is empty"
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            low, high = f"{column.min():.4g}", f"{column.max():.4g}"
            return f"{named} is {low}" + f" to {high}" * (low != high)
        values = sorted(map(str, column.unique()))
        listed = ", ".join(repr(value[:40]) for value in values[:MOST_VALUES])
        return f"{named} is " + ("one of " * (len(values) > 1)) + listed + ", ..." * (len(values) > MOST_VALUES)

    def _constant(self, node: ast.expr) -> Any:
        value = self.of(node)
        if value is not None and not isinstance(value, bool | int | float | str):
            raise _Invalid("a list holds numbers and texts")
        return value

    def _number(self, node: ast.expr) -> Any:
        """A value of arithmetic, in float64, so that no power grows without bound."""
        import pandas as pd

        value = self.of(node)
        if isinstance(value, pd.Series) and pd.api.types.is_numeric_dtype(value):
            return value.astype(float)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return np.float64(value)
        raise _Invalid(f"{ast.unparse(node)[:60]!r} is no number")

    def _truth(self, node: ast.expr) -> Any:
        import pandas as pd

        return pd.Series(_mask(self.of(node), len(self.table)), index=self.table.index)

    def _joined(self, joint: ast.boolop, operands: list[ast.expr]) -> Any:
        truth = self._truth(operands[0])
        for operand in operands[1:]:
            other = self._truth(operand)
            truth = truth & other if isinstance(joint, ast.And) else truth | other
        return truth

    def _chain(self, nodes: list[ast.expr], signs: list[ast.cmpop]) -> Any:
        """Comparisons in a row: 1e7 < params <= 1e8."""
        values = [self.of(node) for node in nodes]
        truth = None
        for left, sign, right in zip(values[:-1], signs, values[1:], strict=True):
            link = self._compared(left, sign, right)
            truth = link if truth is None else truth & link
        return truth

    def _compared(self, left: Any, sign: ast.cmpop, right: Any) -> Any:
        import pandas as pd

        if isinstance(sign, ast.In | ast.NotIn):
            inside = self._inside(left, right)
            return inside if isinstance(sign, ast.In) else ~inside
        if type(sign) not in COMPARISONS:
            raise _Invalid("'is' compares no columns; write ==")
        if isinstance(left, list) or isinstance(right, list):
            raise _Invalid("a list stands behind 'in'")
        if left is None or right is None:
            column = right if left is None else left
            if not isinstance(column, pd.Series) or not isinstance(sign, ast.Eq | ast.NotEq):
                raise _Invalid("None stands behind == or !=")
            return column.isna() if isinstance(sign, ast.Eq) else column.notna()
        return COMPARISONS[type(sign)](left, right)

    def _inside(self, left: Any, right: Any) -> Any:
        """`column in (1, 2)`, or `'text' in column`: which rows hold the text."""
        import pandas as pd

        if isinstance(left, pd.Series) and isinstance(right, list):
            return left.isin(right)
        if isinstance(left, str) and isinstance(right, pd.Series):
            return right.map(lambda cell: isinstance(cell, str) and left in cell).astype(bool)
        raise _Invalid("'in' stands between a column and a list in brackets, or a text and a column")
