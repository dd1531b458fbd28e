"""IsoFLOP valleys: loss against model size at each budget, and where it is lowest."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.plots import compact, loss_label, power
from lmscale.study.plots.axes import padded, size_name
from lmscale.study.plots.isoflop import BudgetPoints, budget_points
from lmscale.study.report.charts.choices import names, switches
from lmscale.study.report.marks import Axis, Chart, Mark, shade
from lmscale.study.tables import size_column

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut


def valleys(
    table: "pd.DataFrame", fit: Any, held_out: "HeldOut | None", records: Mapping[str, Mapping[str, Any]]
) -> Chart:
    """Loss against N at every budget with the fitted curves and minima."""
    points = budget_points(table, fit, held_out)
    runs = [part.runs for part in points]
    sizes = np.concatenate([np.asarray(part["params"], dtype=float) for part in runs])
    losses = np.concatenate([np.asarray(part["loss_nats"], dtype=float) for part in runs])
    margin = 0.05 * float(np.ptp(losses))
    label = f"final {'validation ' * ('loss_stderr' in table)}{loss_label(runs[0])}"
    return Chart(
        "IsoFLOP valleys",
        Axis(f"model size N, {size_name(size_column(table))}", *padded(sizes, 0.04), numerals="compact"),
        Axis(label, float(losses.min()) - margin, float(losses.max()) + margin, log=False),
        [mark for part in points for mark in _valley(part)],
        [switch for switch in switches(records) if switch.name == "budget"],
    )


def _valley(part: BudgetPoints) -> list[Mark]:
    colour_, tags = shade(part.shade), {"budget": power(part.flops)}
    marks = []
    if part.curve is not None:
        x, y = (values.tolist() for values in part.curve)
        name = f"curve of {part.label}"
        marks.append(Mark("line", name, x, y, colour=colour_, dashed=part.held_out, tags=tags))
    points = Mark(
        "points", part.label, part.runs["params"].tolist(), part.runs["loss_nats"].tolist(), runs=names(part.runs),
        colour=colour_, filled=[not part.held_out] * len(part.runs), key=f"C = {part.label}", tags=tags,
    )  # fmt: skip
    marks.append(points)
    return marks if part.minimum is None else [*marks, *_minimum(part, *part.minimum, tags)]


def _minimum(
    part: BudgetPoints, params: float, loss_nats: float, intervals: Sequence[tuple[float, float]], tags: dict[str, str]
) -> list[Mark]:
    bars = [
        Mark(
            "bars",
            f"interval of N* at {part.label}",
            y=[loss_nats],
            low=[low],
            high=[high],
            along="x",
            width=width,
            tags=tags,
        )
        for width, (low, high) in zip((1.2, 3.2), intervals)
        if math.isfinite(low) and math.isfinite(high)
    ]
    name = f"minimum at {part.label}: N* = {compact(params)}"
    return [*bars, Mark("points", name, [params], [loss_nats], filled=[not part.held_out], shape="diamond", tags=tags)]
