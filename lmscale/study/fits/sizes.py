"""Which N a fit takes: total or active parameters, or another count; stated wherever models with experts make them
differ.

A table's column `params` is the total of all trained numbers. `--columns params=active_params` puts those in its place
that take part in reading one token, and a fit keeps the name of the count that its N is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.core.counting import ACTIVE, TOTAL
from lmscale.core.errors import UserError
from lmscale.study.fits.results.common import Status
from lmscale.study.tables import size_column
from lmscale.study.tables.headers import KNOWN

if TYPE_CHECKING:
    import pandas as pd

OF_EXPERTS = ("experts", "granularity", "sparsity")
"""Inputs by which a law knows the experts of a model."""
USUAL_NAMES = KNOWN["params"]
SAME = 1e-6
"""Relative difference below which two counts are one: half a parameter in a small model, rounding in a printed one."""
MEANINGS = {TOTAL: "all trained parameters", ACTIVE: "the parameters that one token passes"}


def counted_by(table: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """The table with the count `column` as its N, whatever it was read with: so runs are compared with a fit of them.

    Raises `UserError` where the table does not have that count any more.
    """
    if (present := size_column(table)) == column:
        return table
    if column not in table or column == TOTAL:  # the total has given its place to another count
        raise UserError(
            f"the N of the fit is {column}, that of the table {present}: read the table with "
            f"`columns='params={column}'`{' left out' if column == TOTAL else ''}, or fit it as it is"
        )
    counted = table.assign(params=table[column])
    counted.attrs = {**table.attrs, "columns": {**table.attrs.get("columns", {}), TOTAL: column}}
    return counted


def statuses(table: "pd.DataFrame", inputs: Sequence[str]) -> list[Status]:
    """What N is, where rows have experts; a warning where the law does not know how many, or takes another N."""
    experts = _numbers(table, "experts")
    share = _active_share(table)
    sparse = (experts > 1) | (share < 1 - SAME)
    column = size_column(table)
    if not sparse.any():
        return [] if column == TOTAL else [Status("N", f"N is {_meaning(table)}", "note")]
    meaning = f"N is {_meaning(table)} of models with experts"
    if column == TOTAL and np.isfinite(share).any():
        meaning += f", of which a token passes {100 * np.nanmin(share):.0f} to {100 * np.nanmax(share):.0f} %"
    if {*OF_EXPERTS, ACTIVE} & set(inputs):
        wrong = column == TOTAL and "params" in inputs and not {"sparsity", ACTIVE} & set(inputs)
        take = "; the published laws of experts take active ones: `columns='params=active_params'`" if wrong else ""
        return [Status("experts", meaning + take, "warning" if wrong else "note")]
    if len(set(experts[np.isfinite(experts)].tolist())) == 1:
        return [Status("experts", meaning, "note")]
    counted = f"{np.nanmin(experts):g} to {np.nanmax(experts):g}" if np.isfinite(experts).any() else "of several counts"
    sentence = f"{meaning}; the law does not know how many a model has, here {counted}, and runs through all of them: "
    sentence += "fit one number with `where='experts == 8'`, or a law with experts"
    if column == TOTAL:
        sentence += ", or take active parameters with `columns='params=active_params'`"
    return [Status("experts", sentence, "warning")]


def _meaning(table: "pd.DataFrame") -> str:
    """What the column `params` counts, in words."""
    column = size_column(table)
    source = table.attrs.get("columns", {}).get(TOTAL, TOTAL)
    if column == TOTAL and source not in USUAL_NAMES:
        return f"what the table states in its column {source!r}"
    return f"{MEANINGS.get(column, 'another count than that of all parameters')} (column {column})"


def _active_share(table: "pd.DataFrame") -> np.ndarray:
    """Active over total parameters of every row (n,); NaN where the table does not state both."""
    total, active = (_numbers(table, name) for name in (TOTAL, ACTIVE))
    if size_column(table) != TOTAL:  # the total is no longer there
        return np.full(len(table), np.nan)
    return active / np.where(total > 0, total, np.nan)


def _numbers(table: "pd.DataFrame", name: str) -> Any:
    import pandas as pd

    if name not in table:
        return np.full(len(table), np.nan)
    return np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=float)
