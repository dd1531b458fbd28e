"""Every training curve from its first half: where a power law through it would have the run end, against what came.

L(t) = E + A t^-c through the first half of the logged losses. A decaying schedule ends below such a line: the table
shows by how much here, so that a reader knows what a forecast of a running curve is worth.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmscale.study.plots.loss_curves import binned
from lmscale.study.report import page
from lmscale.study.report.page import Number

if TYPE_CHECKING:
    import pandas as pd

HALF = 0.5
"""Share of a run's compute from which its end is forecast."""
LEAST_POINTS = 6
"""Fewest points of a first half through which a curve of three parameters is drawn."""
END = 0.05
"""Share of a run at its end over which the measured loss is averaged."""
FLOORS = np.linspace(0.0, 0.98, 50)
"""Shares of the lowest loss that are tried as the asymptote E."""


@dataclass(frozen=True)
class Forecast:
    """The loss at the end of one run, forecast from its first half and measured; nats per token."""

    run: str
    forecast_nats: float
    measured_nats: float

    @property
    def error(self) -> float:
        """Measured over forecast, minus one: negative where the run ended lower."""
        return self.measured_nats / self.forecast_nats - 1


def forecast(run: str, curve: "pd.DataFrame") -> Forecast | None:
    """The forecast of a curve of `flops` and `loss_nats`; None where its first half has too few points."""
    flops, losses = binned(curve)
    first = flops <= HALF * flops[-1] if len(flops) else np.zeros(0, dtype=bool)
    if first.sum() < LEAST_POINTS:
        return None
    predicted = power_law_at(flops[first], losses[first], float(flops[-1]))
    measured = float(losses[flops >= (1 - END) * flops[-1]].mean())
    return Forecast(run, predicted, measured) if math.isfinite(predicted) and predicted > 0 else None


def power_law_at(x: np.ndarray, y: np.ndarray, at: float) -> float:
    """The least-squares L = E + A x^-c at `at`: for each E a line of ln(L - E) on ln x, the E of the least error."""
    floors = FLOORS * y.min()
    slopes, levels = np.polyfit(np.log(x), np.log(y[:, None] - floors), 1)
    fitted = floors + np.exp(levels + slopes * np.log(x)[:, None])
    best = int(((fitted - y[:, None]) ** 2).sum(axis=0).argmin())
    return float(floors[best] + math.exp(levels[best] + slopes[best] * math.log(at)))


def section(curves: Mapping[str, "pd.DataFrame"], names: Mapping[str, str]) -> list[str]:
    """What forecasts from half a run were worth, in a sentence and a table; nothing without curves."""
    forecasts = [one for one in (forecast(run, curve) for run, curve in curves.items()) if one is not None]
    if not forecasts:
        return []
    errors = np.array([one.error for one in forecasts])
    rows = [page.Row(_cells(one, names.get(one.run, one.run))) for one in forecasts]
    heads = [
        ("run", ""),
        ("id", ""),
        ("forecast", "nats/token"),
        ("came", "nats/token"),
        ("error", "came / forecast − 1, %"),
    ]
    table = page.table(heads, rows, text_columns=(0, 1))
    return [
        page.heading("Curves forecast from their first half"),
        page.paragraphs([_sentence(errors)]),
        page.folded(f"Table of {len(rows)} forecast{'s' * (len(rows) > 1)}", table, open_=False),
    ]


def _cells(one: Forecast, name: str) -> list[page.Cell]:
    return [
        name,
        one.run,
        Number(f"{one.forecast_nats:.4f}", one.forecast_nats),
        Number(f"{one.measured_nats:.4f}", one.measured_nats),
        Number(f"{100 * one.error:+.2f}", 100 * one.error),
    ]


def _sentence(errors: np.ndarray) -> str:
    mean, median = 100 * float(np.abs(errors).mean()), 100 * float(np.median(errors))
    return (
        f"A power law through the first half of a training curve was off by {mean:.2f} % on average at the run's end; "
        f"the median run ended {abs(median):.2f} % {'lower' if median < 0 else 'higher'}. A schedule whose rate decays "
        "ends below such a line, so stop no run by it without this correction."
    )
