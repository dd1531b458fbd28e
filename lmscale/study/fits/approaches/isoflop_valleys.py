"""The IsoFLOP valleys of a table: the runs of each compute budget, from the smallest model to the largest.

Axes: k sizes of a budget, n runs of a budget, r noise draws; the draw index last. ln N is the abscissa throughout.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmscale.study.fits.runs import UsableRuns
from lmscale.study.grouping import group_index, group_values

SAME_SIZE = 0.02  # sizes this close are one: interpolation between them would amplify noise


@dataclass(frozen=True)
class IsoFlopValley:
    """The runs of one budget, sorted by size: ln N (k,) and loss (k,), equal sizes side by side. So too along ln D."""

    flops: float
    log_params_n: np.ndarray
    loss_n: np.ndarray
    names: tuple[str, ...]

    @cached_property
    def size_of(self) -> np.ndarray:
        """Which size each run has (n,): sizes are the groups of N with neighbours at most `SAME_SIZE` apart."""
        return group_index(np.exp(self.log_params_n), SAME_SIZE)

    @cached_property
    def sizes(self) -> np.ndarray:
        """ln N of every size (k,)."""
        return self.by_size(self.log_params_n[:, None])[:, 0]

    def by_size(self, values_nr: np.ndarray) -> np.ndarray:
        """Means over the runs of one size, (k, r)."""
        where = self.size_of
        total = np.zeros((where[-1] + 1, values_nr.shape[1]))
        np.add.at(total, where, values_nr)
        return total / np.bincount(where)[:, None]


def valleys_of(
    runs: UsableRuns, budgets: np.ndarray, along: str = "params", stated: str = "nominal"
) -> list[IsoFlopValley]:
    """One valley per group of budgets, smallest first, `along` the model sizes or the "tokens".

    Its FLOPs are the middle budget of the group ("nominal"), or the "mean" FLOPs of its runs. Raises `UserError` where
    the table has no such column.
    """
    log_params, loss, names = np.log(runs.column(along)), runs.column("loss_nats"), runs.names
    flops_n = runs.column("flops") if stated == "mean" else None
    middle = group_values(budgets)
    out = []
    for flops in np.unique(middle[np.isfinite(middle)]):
        member = np.flatnonzero(middle == flops)
        order = member[np.argsort(log_params[member], kind="stable")]
        at = float(flops) if flops_n is None else float(flops_n[member].mean())
        out.append(IsoFlopValley(at, log_params[order], loss[order], tuple(names[i] for i in order)))
    return out
