"""Figures from a table of runs or from a fit, each drawn onto an Axes you give it.

    with plots.style():
        figure, (left, right) = plots.canvas(9, 4, panels=2)
        plots.valleys(left, table, isoflop)
        plots.allocation(right, [isoflop, law], "tokens_per_param", span=(1e12, 1e14))
    plots.save(figure, "figures/allocation.svg")

Every axis states its unit and convention: N all parameters, D training tokens, C training FLOPs as the table counts
them, losses in nats per token. Colours are told apart by colour-blind readers (Okabe and Ito; viridis) and come from
`INK` and `SEQUENCE`, so that a page can exchange them for a dark background.
"""

from lmscale.core.numerals import compact, number, power
from lmscale.study.plots.allocations import allocation
from lmscale.study.plots.emergence import CLASS_COLOUR, hard_and_graded, ladder, scores, small_multiples, threshold_text
from lmscale.study.plots.fit_quality import prediction_errors, predictions, residuals
from lmscale.study.plots.isoflop import valleys
from lmscale.study.plots.loss_curves import MOST_CURVES, curves, lower_frontier, read_curves, visible_baselines
from lmscale.study.plots.rows import held_out_mask, measured_runs
from lmscale.study.plots.style import (
    APPROACH_LABEL,
    APPROACH_NAME,
    INK,
    SEQUENCE,
    TOKENS_PER_PARAM,
    canvas,
    loss_label,
    render,
    save,
    style,
)
from lmscale.study.plots.transfer import PARAMETRIZATION_COLOUR, coordinates, rate_sweep, slope

__all__ = [
    "APPROACH_LABEL",
    "APPROACH_NAME",
    "CLASS_COLOUR",
    "INK",
    "MOST_CURVES",
    "PARAMETRIZATION_COLOUR",
    "SEQUENCE",
    "TOKENS_PER_PARAM",
    "allocation",
    "canvas",
    "compact",
    "coordinates",
    "curves",
    "hard_and_graded",
    "held_out_mask",
    "ladder",
    "loss_label",
    "lower_frontier",
    "measured_runs",
    "number",
    "power",
    "prediction_errors",
    "predictions",
    "rate_sweep",
    "read_curves",
    "render",
    "residuals",
    "save",
    "scores",
    "slope",
    "small_multiples",
    "style",
    "threshold_text",
    "valleys",
    "visible_baselines",
]
