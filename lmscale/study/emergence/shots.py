"""In-context learning against scale: what examples in the prompt add, as a graded score of its own."""

from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.errors import UserError
from lmscale.study.emergence.curves import RHO
from lmscale.study.emergence.scores import canonical

if TYPE_CHECKING:
    import pandas as pd


def gains(table: "pd.DataFrame", *, rho: float = RHO) -> "pd.DataFrame":
    """Score with k examples less score without, per task, metric and model: rows that `detect` reads as graded.

    `table` has the columns of `emergence.scores` with `shots`, of which one value is 0. The standard error takes both
    scores as independent, with over-dispersion `rho`; of one model on the same items it is a little too large. The gain
    at chance level is 0. Raises `UserError` where nothing can be paired.
    """
    rows = canonical(table)
    if "shots" not in rows or not (rows["shots"] == 0).any() or not (rows["shots"] > 0).any():
        raise UserError("what examples add needs a column 'shots' with 0 and with another number of examples")
    axes = [axis for axis in ("params", "flops", "loss", "x") if axis in rows]
    keys = ["task", "metric", *(name for name in ("family", "subtask", "seed") if name in rows), *axes]
    rows = rows.assign(variance=_variance(rows, rho))
    without, with_shots = rows[rows["shots"] == 0], rows[rows["shots"] > 0]
    values = [*keys, "score", "variance"]
    both = with_shots[[*values, "shots", "higher_is_better"]].merge(without[values], on=keys, suffixes=("", "_0"))
    if not len(both):
        raise UserError(f"no row with examples has one without of the same {', '.join(keys)}")
    both["metric"] = both["metric"] + " gained by examples"
    both["kind"], both["chance"] = "graded", 0.0
    both["score"] -= both["score_0"]
    both["stderr"] = np.sqrt(both["variance"] + both["variance_0"])
    return both.drop(columns=["variance", "variance_0", "score_0"])


def _variance(rows: "pd.DataFrame", rho: float) -> "pd.Series[float]":
    """Variance of every score: as stated, or beta-binomial with an answer added, so that 0 and 1 have an error too."""
    n = rows["n"] / (1 + (rows["n"] - 1) * rho)
    shrunk = (rows["score"] * n + 0.5) / (n + 1)
    return (rows["stderr"] ** 2).fillna(shrunk * (1 - shrunk) / n)
