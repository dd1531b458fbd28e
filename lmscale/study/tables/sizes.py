"""Which N the column `params` of a table holds, and which of a table's counts sets the FLOPs of a token."""

from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.counting import ACTIVE, SIZES, TOTAL
from lmscale.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 0.01
"""Printed with two digits, active parameters of a dense model may exceed all of them by so much."""


def size_column(table: "pd.DataFrame") -> str:
    """The count, by its name in `counting.Counts`, that `--columns params=...` has put into the column `params`."""
    columns = table.attrs.get("columns", {})
    source = columns.get(TOTAL, TOTAL)
    if source == columns.get(ACTIVE):  # a table of others, whose active parameters go by another name
        return ACTIVE
    return source if source in SIZES else TOTAL


def params_of_flops(table: "pd.DataFrame") -> "pd.Series":
    """N of C = 6 N D (n,): the active parameters of models with experts, where the table states them."""
    if "active_params" not in table or size_column(table) != TOTAL:
        return table["params"]
    return table["active_params"].where(table["active_params"] > 0, table["params"])


def check_active(table: "pd.DataFrame", source: object) -> None:
    """Raise `UserError` where more parameters are active than there are."""
    if not {"params", "active_params"} <= set(table.columns) or size_column(table) != TOTAL:
        return
    more = np.flatnonzero(table["active_params"] > (1 + ROUNDING) * table["params"])
    if len(more):
        row = table.iloc[more[0]]
        raise UserError(
            f"{source} states {row['active_params']:.4g} active parameters of {row['params']:.4g} in all (run "
            f"{row['run']}): a token passes no more than there are; exchange the columns with `columns`, or give their "
            f"units, as in `columns='active_params=N_active*1e9'`"
        )
