"""What a reader must know to judge or repeat a scaling-law study, filled in from the records of this one.

The questions follow the checklist of "(Mis)Fitting: A Survey of Scaling Laws" (Li et al. 2025, arXiv 2502.18969): the
law, the training of the runs, the data that enters the fit, and the fit itself. What no record states is said to be
unknown.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.plots import compact, held_out_mask, measured_runs, power
from lmscale.study.report import methods
from lmscale.study.tables import size_column

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

UNKNOWN = "not recorded"
FEW = 4
"""Values that are listed; of more, their number and ends are."""


def checklist(table: "pd.DataFrame", fits: Sequence[Any], checked: "Sequence[HeldOut]" = ()) -> list[tuple[str, str]]:
    """(question, answer) in the order of the checklist."""
    runs = measured_runs(table) if len(table) else table
    return [*_law(table, fits), *_training(runs), *_data(table, runs), *_fit(fits, checked)]


def _law(table: "pd.DataFrame", fits: Sequence[Any]) -> list[tuple[str, str]]:
    """The form of the law and what its variables count."""
    forms = [f"Approach {fit.approach}: {fit.law.FORMULA if fit.approach == '3' else 'N* = G C^a'}" for fit in fits]
    models = {str(fit.compute) for fit in fits if fit.states_optimum}
    return [
        ("form of the law", "; ".join(forms) or "none was fitted"),
        ("what N counts", size_column(table) if len(table) else UNKNOWN),
        ("what C counts", "exact training FLOPs" if "flops_6n" in table else "as the table states it"),
        ("C(N, D) of the allocations", "; ".join(sorted(models)) or UNKNOWN),
    ]


def _training(runs: "pd.DataFrame") -> list[tuple[str, str]]:
    """How many models of which sizes were trained on what, and how their hyperparameters were chosen."""
    columns = (
        ("model sizes N", "params", compact), ("training tokens D", "tokens", compact), ("compute C", "flops", power),
        ("architecture: layers", "layers", str), ("architecture: width", "width", str),
        ("vocabulary", "vocab", str), ("context", "context", str), ("corpus", "source", str),
        ("batch, tokens", "batch_tokens", compact), ("peak learning rate", "peak_lr", "{:.3g}".format),
        ("passes over the data", "epochs", "{:.3g}".format), ("seeds", "seed", str), ("device", "device", str),
    )  # fmt: skip
    return [(question, _values(runs, column, write)) for question, column, write in columns]


def _values(runs: "pd.DataFrame", column: str, write: Any) -> str:
    """A few values, or their number and ends."""
    if column not in runs or not runs[column].notna().any():
        return UNKNOWN
    values = sorted(set(runs[column].dropna().tolist()))
    written = list(dict.fromkeys(write(value) for value in values))
    if len(written) <= FEW:
        return ", ".join(written)
    return f"{len(written)} values, {written[0]} to {written[-1]}"


def _data(table: "pd.DataFrame", runs: "pd.DataFrame") -> list[tuple[str, str]]:
    """Which runs and which of their losses enter the fit."""
    several = (
        "peak_lr" in runs and len(runs) and bool((runs.groupby(["params", "tokens"])["peak_lr"].nunique() > 1).any())
    )
    return [
        ("runs planned, and measured", f"{len(table)}, {len(runs)}"),
        ("runs held out from every fit", str(int(held_out_mask(table).sum()))),
        ("losses that enter", "validation at the end of each run" if "loss_stderr" in runs else "as the table states"),
        ("points inside a run", _inside(runs)),
        ("tuned for each size and length", "several learning rates were run" if several else "one learning rate each"),
        ("noise of one run", _noise(runs)),
    ]  # fmt: skip


def _inside(runs: "pd.DataFrame") -> str:
    """Whether losses on the way enter too."""
    if "loss_stderr" not in runs:
        return UNKNOWN
    return "none: a point inside a decaying schedule lies above a schedule that ends there"


def _noise(runs: "pd.DataFrame") -> str:
    """Scatter between the seeds of one size and length, where there are several."""
    if not {"seed", "params", "tokens"} <= set(runs.columns) or not len(runs):
        return UNKNOWN
    groups = runs.groupby(["params", "tokens"])["loss_nats"]
    spread = groups.std(ddof=1).dropna()
    if not len(spread):
        return "not measured: no size and length was run with several seeds"
    return f"{float(np.sqrt((spread**2).mean())):.2g} nats between seeds, over {len(spread)} sizes and lengths"


def _fit(fits: Sequence[Any], checked: "Sequence[HeldOut]") -> list[tuple[str, str]]:
    """What was minimised, how intervals were drawn, and whether the law was tried on unseen runs."""
    lines = []
    for fit in fits:
        lines.append((f"objective, Approach {fit.approach}", methods.method(fit)))
        lines.append((f"intervals, Approach {fit.approach}", methods.intervals(fit)))
    form = [
        f"residuals this smooth or large have probability {fit.lack_of_fit.p:.2g} if the form is right"
        for fit in fits
        if getattr(fit, "lack_of_fit", None) is not None
    ]
    tried = sum(len(check.runs) for check in checked)
    return [
        *lines,
        ("test of the form", "; ".join(form) or "the runs allow none"),
        ("tried on unseen runs", f"{tried} held-out losses" if tried else "no"),
    ]
