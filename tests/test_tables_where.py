"""The language of `where`: comparisons of columns, and nothing that runs code."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmscale.core.errors import UserError
from lmscale.study.tables import query

TABLE = pd.DataFrame(
    {
        "run": ["a", "b", "gpt-c", "d"],
        "params": [1e6, 2e6, 3e6, np.nan],
        "seed": [0, 1, 0, 1],
        "done": [True, False, True, True],
        "maybe": pd.Series([True, None, False, None], dtype=object),
        "eval loss": [3.0, 2.5, 2.0, 1.0],
        "config.lr": [1e-3, 1e-3, 3e-3, 3e-3],
        "kind": ["x", "y", None, "x"],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("params > 1e6", "bc"),
        ("1e6 <= params < 3e6 and seed == 1", "b"),
        ("params > 1e6 & kind == 'y'", "b"),
        ("(seed == 0) | (kind == 'x')", "acd"),
        ("~(seed == 0)", "bd"),
        ("not done", "b"),
        ("done and not maybe", "cd"),
        ("`eval loss` < 2.2", "cd"),
        ("config.lr == 3e-3", "cd"),
        ("kind in ('x', 'z')", "ad"),
        ("seed not in [1]", "ac"),
        ("kind == None", "c"),
        ("params != None", "abc"),
        ("params == params", "abc"),
        ("'gpt' in run", "c"),
        ("params / 1e6 - seed * 2 == 1", "a"),
        ("-seed < 0", "bd"),
        ("params ** 2 > 3e12", "bc"),
        ("kind == 1 or seed == 1", "bd"),
        ("10 ** 10 ** 10 ** 10 > params", "abc"),
        ('run == "a"', "a"),
    ],
)
def test_comparisons(where: str, rows: str) -> None:
    assert "".join(name[-1] for name in query(TABLE, where)["run"]) == rows


@pytest.mark.parametrize(
    "where",
    [
        "0", "1", "params", "seed", "", " ", "True", "1 < 2", "'x'", "None", "params >", "(" * 300,
        "@pd.io", "@params > 1", "@__builtins__", "__import__('os').system('touch owned')", "run.str.len() > 1",
        "params.__class__ == 1", "params.values > 1", "[x for x in params]", "(lambda: 1)() == 1", "params[0] > 1",
        "f'{params}' == 'a'", "(params := 3) > 1", "params if done else seed",
        "'a' * 10 ** 10 == run", "run > 1", "kind + 'x' == 'xx'", "params is None", "kind in 'x'", "params == [1, 2]",
        "params << 2 > 1", "params @ params > 1", "seed > 1; done", "seed == 1\nimport os", "`eval loss < 1",
        "x" * 5000, "*params", "params > 1 if True else 2", "await params", "params == 1j", "...", "b'a' == run",
        "params > nan",
    ],
)  # fmt: skip
def test_nothing_else_is_evaluated(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"`where=.*`? ") as error:
        query(TABLE, where)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert not list(tmp_path.iterdir())


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(UserError, match="names 'parms', which is no column; did you mean 'params'"):
        query(TABLE, "parms > 1")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("params > 1e9", "; params is 1e+06 to 3e+06"),
        ("kind == 'A'", "; kind is one of 'x', 'y'"),
        ("params > 0 and kind in ('A', 'B')", "; kind is one of 'x', 'y'"),
        ("1e9 < params", ""),
        ("seed == 0 and seed == 1", ""),
    ],
)
def test_what_a_column_holds_is_said_where_no_row_is_kept(where: str, why: str) -> None:
    with pytest.raises(UserError) as error:
        query(TABLE, where)
    assert str(error.value).endswith(f"keeps none of the 4 rows{why}")
