"""What the symbols on the page mean for this table: which N, which C, which loss, which intervals."""

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lmscale.core.config import loss_unit
from lmscale.core.counting import Counts
from lmscale.study.laws import SIX_ND
from lmscale.study.plots import measured_runs
from lmscale.study.report import methods
from lmscale.study.tables import size_column

if TYPE_CHECKING:
    import pandas as pd

COUNTED_HERE = {item.name for item in fields(Counts) if not item.name.startswith("active_")}
"""Columns that a table has whose runs this package counted: those of `counting.Counts`; tables of before models had
experts lack the active ones."""
MEANINGS = {"params": "all trained parameters", "active_params": "the parameters that one token passes"}
CONSTANT = 1e-3
"""C/6ND that differs by less between runs is stated as one number."""

RATIO = (
    "compute-optimal training tokens per parameter, both as above: another count of N or another tokenizer gives "
    "another number"
)


def conventions(table: "pd.DataFrame", fits: Sequence[Any]) -> list[tuple[str, str]]:
    """(symbol, meaning) of every quantity on the page."""
    runs = measured_runs(table) if len(table) else table
    return [
        *_sizes(table, runs),
        ("D", f"training tokens{', repeats counted' if _counted_here(table) else ' as the table states them'}"),
        *_compute(runs, fits),
        ("loss", _loss(runs)),
        *targets(fits),
        *intervals(fits),
        *([("D*/N*", RATIO)] if any(fit.states_optimum for fit in fits) else []),
    ]


def _counted_here(table: "pd.DataFrame") -> bool:
    return set(table.columns) >= COUNTED_HERE


def _sizes(table: "pd.DataFrame", runs: "pd.DataFrame") -> list[tuple[str, str]]:
    """What N is; beside it, in a table counted here, how much of it Kaplan's N is."""
    column = size_column(table)
    if not _counted_here(table):
        return [("N", f"model parameters as the table states them (column {column})"), *_experts(table, runs)]
    if column not in MEANINGS:
        return [("N", f"another count than that of all trained parameters (column {column})"), *_experts(table, runs)]
    lines = [("N", f"{MEANINGS[column]}, embeddings and output head included (column {column})")]
    lines += _experts(table, runs)
    if len(runs) and column == "params":
        share = runs["params_non_embedding"].astype(float) / runs["params"].astype(float)
        lines.append(
            (
                "N non-embedding",
                f"the matrices of the layers alone (Kaplan 2020): {100 * share.min():.0f} to "
                f"{100 * share.max():.0f} % of N in these runs",
            )
        )
    return lines


def _experts(table: "pd.DataFrame", runs: "pd.DataFrame") -> list[tuple[str, str]]:
    """How much of a model with experts a token passes; nothing of dense models."""
    if size_column(table) != "params" or "active_params" not in runs or not len(runs):
        return []
    share = runs["active_params"].astype(float) / runs["params"].astype(float)
    if not share.min() < 1:
        return []
    sentence = f"the parameters that one token passes (column active_params): {100 * share.min():.0f} to "
    sentence += f"{100 * share.max():.0f} % of N in these runs. C counts those alone, memory all"
    return [("active N", sentence)]


def _compute(runs: "pd.DataFrame", fits: Sequence[Any]) -> list[tuple[str, str]]:
    """What C is, how it compares with 6ND, and by which formula of N and D the allocations convert."""
    lines = []
    if len(runs):
        meaning = (
            "exact training FLOPs: projections, causal attention, MLP, head; forward and backward; without validation"
            if _counted_here(runs)
            else "training FLOPs as the table states them"
        )
        share = runs["flops"].astype(float) / SIX_ND.flops(runs["params"].astype(float), runs["tokens"].astype(float))
        constant = share.max() - share.min() <= CONSTANT
        ratio = (
            f"C = {6 * share.mean():.4g} N D on every row"
            if constant
            else f"C/6ND = {share.min():.3f} to {share.max():.3f} in these runs"
        )
        lines.append(("C", f"{meaning}. {ratio}"))
    models: dict[str, list[str]] = {}
    for fit in fits:
        if fit.states_optimum:
            models.setdefault(str(fit.compute), []).append(fit.approach)
    for model, approaches in models.items():
        whose = f" (Approach {' and '.join(approaches)})" if len(models) > 1 else ""
        lines.append(("C(N, D)", f"allocations convert with {model}{whose}"))
    return lines


def _loss(runs: "pd.DataFrame") -> str:
    """What the loss is, over which tokens, and what stands behind ±."""
    if not _counted_here(runs):
        return "the table's loss, read as cross-entropy in nats per token (natural logarithm)"
    unit = loss_unit(runs["stage"].dropna() if "stage" in runs else ())
    meaning = f"cross-entropy in {unit} (natural logarithm)" if unit == "nats per token" else f"mean loss, {unit}"
    tokens = sorted({int(value) for value in runs["validation_tokens"].dropna()}) if "validation_tokens" in runs else []
    if tokens:
        count = f"{tokens[0]:,}" if len(tokens) == 1 else f"{tokens[0]:,} to {tokens[-1]:,}"
        meaning += f": validation loss at the last step over {count} fixed tokens that are not trained on"
    if "loss_stderr" in runs and runs["loss_stderr"].notna().any():
        meaning += "; ± is its standard error"
    return meaning


def targets(fits: Sequence[Any]) -> list[tuple[str, str]]:
    """What a law states where that is not the loss."""
    targets = dict.fromkeys(fit.law.TARGET for fit in fits if fit.approach == "3")
    return [
        (name, f"what Approach 3 fits, as the table states it (column {name})")
        for name in targets
        if name != "loss_nats"
    ]


def intervals(fits: Sequence[Any]) -> list[tuple[str, str]]:
    """What an interval is; how each fit drew its own stands with the fit."""
    if not any(fit.resamples for fit in fits):
        return [("intervals", "none: no fit was made with resamples")] if fits else []
    meaning = (
        f"the central {methods.levels()} of a fit's resamples, which are described beside its parameters. An interval "
        f"of the law is where the law lies, if its form is right"
    )
    if any(fit.resamples and fit.approach == "3" for fit in fits):
        meaning += (
            "; the interval of the mean is where many runs lie on average, whether or not the form is right: law times "
            "a smooth unknown function, of which the runs and a prior say how large; the interval of one new run adds "
            "a run's own scatter, and is wider (among the fitted runs: about the law, as the residuals scatter)"
        )
    return [("intervals", meaning)]
