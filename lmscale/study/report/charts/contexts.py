"""What a longer context is worth: validation loss by position in the window, a line for each run."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.run_folder import OUTCOME_FILE
from lmscale.study.plots import compact, loss_label
from lmscale.study.plots.axes import padded
from lmscale.study.plots.loss_curves import drawn_runs
from lmscale.study.plots.style import colour
from lmscale.study.report.charts.choices import switches
from lmscale.study.report.marks import Axis, Chart, Mark, shade

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd


def read_positions(runs_folder: str | Path | None, runs: "pd.DataFrame") -> dict[str, list[float]]:
    """Run -> its losses of the tokens predicted from 1, 2 to 3, 4 to 7, ... tokens, as far as outcomes state them.

    Of many runs, those whose curves are drawn.
    """
    positions: dict[str, list[float]] = {}
    for run in drawn_runs(runs) if runs_folder is not None else ():
        with suppress(UserError, TypeError, ValueError):
            outcome = read_json(Path(runs_folder or "") / run / OUTCOME_FILE, "outcome")
            if losses := outcome.get("loss_by_position_nats"):
                positions[run] = [float(value) for value in losses]
    return positions


def by_position(
    runs: "pd.DataFrame", positions: Mapping[str, Sequence[float]], records: "Mapping[str, Mapping[str, Any]]"
) -> Chart:
    """Loss against the number of tokens before the predicted one; a bin is drawn at its geometric middle."""
    sizes = runs["params"].to_numpy(dtype=float)
    size_of = dict(zip(map(str, runs["run"]), sizes))
    marks = [
        Mark("line", f"N = {compact(size_of[run])}", middles(len(losses)), losses, run=run,
             colour=shade(colour(sizes, float(size_of[run]))), opacity=0.8)
        for run, losses in positions.items()
    ]  # fmt: skip
    every = [value for losses in positions.values() for value in losses]
    longest = max(map(len, positions.values()))
    return Chart(
        "loss by position",
        Axis("tokens before the predicted one", *padded(middles(longest), 0.04), numerals="compact"),
        Axis(f"validation {loss_label(runs)}", *padded(every, 0.05)),
        marks,
        switches(records),
    )


def middles(bins: int) -> list[float]:
    """Geometric middle of the bins 1, 2 to 3, 4 to 7, ..."""
    return [float(np.sqrt(2**place * (2 ** (place + 1) - 1))) for place in range(bins)]
