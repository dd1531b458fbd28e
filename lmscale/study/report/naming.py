"""The rows of a table by names of their own, so that a page can point at each."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def named(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with the column `run`, whose rows the page names."""
    import pandas as pd

    if not len(table):
        return pd.DataFrame(columns=pd.Index(["run", "params", "tokens", "flops", "loss_nats"]))
    return table if "run" in table else table.assign(run=[f"row {index + 1}" for index in range(len(table))])
