"""Which rows of a table can be drawn, and which of them were held out."""

from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.errors import UserError, nearest
from lmscale.study.tables.states import unfinished

if TYPE_CHECKING:
    import pandas as pd


@checked
def measured_runs(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows that can be drawn: of runs that finished, N, D, C and the loss finite and positive."""
    if not len(table.columns):
        return table
    for name in ("params", "tokens", "flops", "loss_nats"):
        if name not in table:
            raise UserError(f"the table has no column {name!r}{nearest(name, map(str, table.columns))}")
    values = table[["params", "tokens", "flops", "loss_nats"]].to_numpy(dtype=float)
    known = (np.isfinite(values) & (values > 0)).all(axis=1)
    return table.iloc[np.flatnonzero(known & (unfinished(table) == ""))]


@checked
def held_out_mask(table: "pd.DataFrame") -> Any:
    """Which rows are held out (n,), all False where the table does not say."""
    if "held_out" not in table:
        return np.zeros(len(table), dtype=bool)
    return np.array(
        [isinstance(value, bool | np.bool_ | int | float) and value == 1 for value in table["held_out"]], dtype=bool
    )
