"""The minimum of a loss along a curve of equal cost, for a law without a closed form."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lmscale.core.errors import UserError

FIRST_WINDOW = (1e2, 1e18)
"""Parameters among which the optimum is looked for first."""
POINTS = 737
"""Grid points of a window, a factor 1.05 apart."""
MOVES = 8
"""How often the window moves by half of its width: down to 1e-62 and up to 1e82 parameters."""
GOLDEN = (np.sqrt(5) - 1) / 2


def search(at: Callable[[Any], Any], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ln N of the minima of `at(ln N)`, and where the loss falls to the smallest or the largest N; each of `shape`.

    A grid over ln N, then golden sections: 13 digits of loss. The grid's window moves to where the minimum is.
    """
    low, high = np.log(FIRST_WINDOW)
    width = high - low
    window = np.zeros(shape)
    ends = np.zeros((2, *shape))
    below, above = np.zeros((2, *shape), dtype=bool)
    pending = np.ones(shape, dtype=bool)
    complex_loss = False
    for _ in range(MOVES + 1):
        grid = np.linspace(low, high, POINTS)
        with np.errstate(all="ignore"):
            losses = np.stack([np.broadcast_to(at(point + width * window), shape) for point in grid])
        complex_loss |= np.iscomplexobj(losses)
        real = np.where(np.isfinite(losses), np.real(losses), np.inf)
        best = real.argmin(axis=0)
        lowest = real.min(axis=0)
        # A loss that is flat to an end, to the last bit, has its minimum beyond it.
        above = pending & (real[-1] <= lowest)
        below = pending & (real[0] <= lowest) & ~above
        inner = np.clip(best, 1, len(grid) - 2)
        settled = pending & ~below & ~above
        ends = np.where(settled, np.stack([grid[inner - 1], grid[inner + 1]]) + width * window, ends)
        pending = below | above
        if not pending.any():
            break
        window = window + np.where(above, 0.5, 0) - np.where(below, 0.5, 0)
    left, right = ends
    for _ in range(60):
        inner_left, inner_right = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
        with np.errstate(all="ignore"):
            smaller = np.real(at(inner_left)) < np.real(at(inner_right))
        left, right = np.where(smaller, left, inner_left), np.where(smaller, inner_right, right)
    log_params = (left + right) / 2
    return _newton(at, log_params) if complex_loss else log_params, below, above


def no_optimum(name: str, flops: Any, below: np.ndarray, above: np.ndarray) -> UserError:
    """The error for a law whose loss has no minimum along the budget."""
    end = "smaller" if below.all() else "larger" if above.all() else "smaller or larger"
    budgets = sorted({f"{budget:.4g}": budget for budget in np.real(np.ravel(flops))}.items(), key=lambda pair: pair[1])
    stated = budgets[0][0] if len(budgets) == 1 else f"{budgets[0][0]} to {budgets[-1][0]}"
    return UserError(
        f"the law {name!r} has no optimum at {stated} FLOPs: with the data that the budget leaves, its loss is lower "
        f"for ever {end} models"
    )


def _newton(loss: Callable[[Any], Any], log_params: Any, step: float = 1e-3) -> Any:
    """One Newton step towards the minimum of a complex loss from that of its real part.

    A derivative by a complex step (Squire and Trapp 1998) rides on the imaginary part of the parameters, which a search
    that compares real numbers loses.
    """
    right, here, left = (loss(log_params + offset) for offset in (step, 0.0, -step))
    return log_params - step / 2 * (right - left) / (right - 2 * here + left)
