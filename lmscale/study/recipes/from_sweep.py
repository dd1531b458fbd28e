"""Rate and batch from a finished sweep: the best run of every size and length, and power laws through these."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmscale.core.arguments import checked
from lmscale.core.config import ModelConfig, check
from lmscale.core.counting import active_params_total, count
from lmscale.core.plans import read_plan
from lmscale.core.results import Outcome
from lmscale.study.grouping import group_index
from lmscale.study.recipes.recipe import Recipe, Rule

LEAST_RATES = 3
"""Fewest learning rates of a cell, a size at one length: fewer cannot bracket the best."""
NEAR = 0.05
"""Relative difference of D within one cell: whole batches of different sizes move it a little."""


@dataclass(frozen=True)
class BestCell:
    """The best rate and batch of one size at one length."""

    params: int
    """N as rules take it: the active parameters of a model with experts."""
    tokens: float
    peak_lr: float
    batch_tokens: int
    loss_nats: float
    at_edge: bool
    """Whether the best rate is the lowest or highest that was tried: the true best may lie further out."""
    experts: int = 1


@checked
def best_cells(folder: str | Path) -> list[BestCell]:
    """The best rate and batch of every size and length of a finished sweep.

    Raises `UserError` where no size has enough finished learning rates.
    """
    folder = Path(folder)
    _, runs = read_plan(folder)
    outcomes = [Outcome.read(folder / run.config.run_id) for run in runs]
    lengths = group_index([run.config.tokens for run in runs], NEAR)
    cells: dict[tuple[int, int, int], list[tuple[Any, float]]] = {}
    for run, outcome, length in zip(runs, outcomes, lengths.tolist()):
        loss = None if outcome is None else math.inf if outcome.state == "diverged" else outcome.loss_nats
        if loss is not None:
            size = count(run.config).active_params, run.config.model.experts
            cells.setdefault((*size, length), []).append((run.config, loss))
    best = [
        _best(params, members)
        for (params, _, _), members in cells.items()
        if _rates(members) >= LEAST_RATES and min(loss for _, loss in members) < math.inf
    ]
    check(
        bool(best),
        f"{folder} has no size with {LEAST_RATES} finished learning rates at one length; run a sweep over peak_lr "
        f"first, as sweeps/tune_cpu.py does",
    )
    return best


def _rates(members: list[tuple[Any, float]]) -> int:
    return len({config.optimizer.peak_lr for config, _ in members})


def _best(params: int, members: list[tuple[Any, float]]) -> BestCell:
    config, loss = min(members, key=lambda pair: pair[1])
    beside = sorted(
        one.optimizer.peak_lr for one, _ in members if one.optimizer.batch_sequences == config.optimizer.batch_sequences
    )
    rate = config.optimizer.peak_lr
    at_edge = rate in (beside[0], beside[-1])
    return BestCell(params, config.tokens, rate, config.batch_tokens, loss, at_edge, config.model.experts)


@checked
def tuned(from_: str | Path, recipe: Recipe, *, edges: bool = False, name: str = "tuned") -> Recipe:
    """`recipe` with the rate and batch that were best in a finished sweep, whose folder is `from_`.

    ln rate = c + n ln N + d ln D + e ln E is fitted through the best cells, E the number of experts, and the same
    for the batch; an exponent is zero where the cells do not vary its quantity. A best rate at the edge of its grid
    corrupts the exponents, so such cells are left out unless `edges`. Raises `UserError` where no cell remains.
    """
    cells = best_cells(from_)
    inside = [cell for cell in cells if edges or not cell.at_edge]
    check(
        bool(inside),
        f"in {from_} every best rate lies at the edge of its grid: try lower and higher rates, or take the edges "
        f"knowingly with tuned(..., edges=True)",
    )
    dropped = f", {len(cells) - len(inside)} at the edge of their rates left out" if len(inside) < len(cells) else ""
    source = f"{Path(from_).name}: {len(inside)} best cells{dropped}"
    rate = _power_law([cell.peak_lr for cell in inside], inside)
    batch = _power_law([cell.batch_tokens for cell in inside], inside)
    return replace(
        recipe,
        name=name,
        lr=Rule(rate, f"{source}: {rate}"),
        batch_sequences=Rule(
            lambda model, tokens: max(1, round(batch(model, tokens) / model.context)), f"{source}: {batch} tokens"
        ),
    )


@dataclass(frozen=True)
class _PowerLaw:
    """scale N^n D^d E^e."""

    scale: float
    powers: Mapping[str, float]

    def __call__(self, model: ModelConfig, tokens: float) -> float:
        dense = self.scale * active_params_total(model) ** self.powers["N"] * tokens ** self.powers["D"]
        return float(dense * model.experts ** self.powers["E"])

    def __str__(self) -> str:
        return f"{self.scale:.3g} " + " ".join(f"{name}^{power:.3g}" for name, power in self.powers.items() if power)


def _power_law(values: list[float], cells: list[BestCell]) -> _PowerLaw:
    columns = {
        "N": np.log([cell.params for cell in cells]),
        "D": np.log([cell.tokens for cell in cells]),
        "E": np.log([cell.experts for cell in cells]),
    }
    free = [name for name, column in columns.items() if np.ptp(column) > NEAR]
    matrix = np.stack([np.ones(len(cells)), *(columns[name] for name in free)], axis=1)
    if np.linalg.matrix_rank(matrix, tol=1e-3) < matrix.shape[1]:  # N and D vary together: one exponent describes both
        free = free[:1]
        matrix = matrix[:, :2]
    solved, *_ = np.linalg.lstsq(matrix, np.log(values), rcond=None)
    powers = dict.fromkeys(columns, 0.0) | {name: float(power) for name, power in zip(free, solved[1:])}
    return _PowerLaw(math.exp(float(solved[0])), powers)
