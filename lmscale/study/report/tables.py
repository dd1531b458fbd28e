"""The tables of a report: allocation, held-out runs, every run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmscale.study.grouping import group_values
from lmscale.study.plots import compact, held_out_mask, loss_label, measured_runs, number, power
from lmscale.study.report import page
from lmscale.study.report.account import why_not_used
from lmscale.study.report.answer import usable
from lmscale.study.report.page import Number

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

MANY = 60
"""Runs beyond which their table is folded away."""
MOST_ROWS = 2_000
"""Rows of runs on the page, which a browser shows at once; a longer table says where all of its rows are."""
BEYOND = 100.0
"""How far past the largest run allocations are stated, in compute."""


def budgets(table: "pd.DataFrame", at: Sequence[float] | None = None) -> list[float]:
    """The C of the allocation table: the planned budgets (or decades), then decades up to `BEYOND` past the runs."""
    if at is not None:
        return list(at)
    runs = measured_runs(table) if len(table) else table
    if not len(runs):
        return []
    low, high = float(runs["flops"].min()), float(runs["flops"].max())
    budgets_ = group_values(runs["flops_budget"].dropna()) if "flops_budget" in runs else np.array([])
    planned = sorted(set(budgets_.tolist()))
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high * BEYOND)) + 1)]
    if not planned or len(planned) > 12 or max(planned) < high / 2:
        return [c for c in decades if low / 2 <= c <= high * BEYOND * 1.01]
    return planned + [c for c in decades if max(planned) * 1.5 < c <= high * BEYOND * 1.01]


def allocation(table: "pd.DataFrame", fits: Sequence[Any], at: Sequence[float] | None = None) -> str:
    """N*, D*, D*/N* with 80 and 95 % intervals and the loss at each C, by every fit.

    The last column says how far a C lies beyond the largest that the fit used.
    """
    heads = [
        ("C", "FLOPs"), ("approach", ""), ("N*", "parameters"), ("95 %", ""), ("D*", "tokens"), ("95 %", ""),
        ("D*/N*", "tokens/param."), ("80 %", ""), ("95 %", ""), ("L*", _unit(table)), ("C / largest", "fitted"),
    ]  # fmt: skip
    columns = budgets(table, at)
    stated = [(fit, fit.allocations(columns)) for fit in usable(fits)]
    rows: list[tuple[str, list[page.Cell]]] = []
    for index, flops in enumerate(columns):
        for fit, allocations in stated:
            if not allocations:
                continue
            optimum, beyond = allocations[index], flops / fit.largest_flops
            wide, narrow = optimum["intervals"].get("0.95", {}), optimum["intervals"].get("0.8", {})
            rows.append(("beyond" if beyond > 1.001 else "", [
                Number(power(flops, 3), flops), fit.approach,
                Number(compact(optimum["params"]), optimum["params"]), _span(wide, "params"),
                Number(compact(optimum["tokens"]), optimum["tokens"]), _span(wide, "tokens"),
                Number(number(optimum["tokens_per_param"]), optimum["tokens_per_param"]),
                _span(narrow, "tokens_per_param", number), _span(wide, "tokens_per_param", number),
                Number(f"{optimum['loss_nats']:.3f}", optimum["loss_nats"]),
                f"{beyond:.3g}" if beyond > 1.001 else "–",
            ]))  # fmt: skip
    return page.table(heads, rows, text_columns=())


def _unit(table: "pd.DataFrame") -> str:
    """What a loss is counted in, as short as the head of a column."""
    return loss_label(table).removeprefix("loss, ").replace(" per token", "/token")


def _span(intervals: Any, name: str, text: Callable[[float], str] = compact) -> str:
    return f"{text(intervals[name][0])} – {text(intervals[name][1])}" if name in intervals else "–"


def held_out(checked: Sequence["HeldOut"], table: "pd.DataFrame") -> str:
    """Each held-out run: predicted loss with its interval, measured loss, error."""
    stated = table.dropna(subset=["flops"]) if "flops" in table else table.head(0).assign(flops=0.0)
    flops = dict(zip(stated["run"].astype(str), stated["flops"]))
    level = f"{100 * next((check.level for check in checked if check.runs), math.nan):g} %"
    heads = [
        ("run", ""), ("C", "FLOPs"), ("N", "parameters"), ("D", "tokens"), ("predicted loss", _unit(table)),
        ("one new run", level), ("measured loss", _unit(table)), ("error", "meas. − pred., %"), ("inside", ""),
    ]  # fmt: skip
    rows: list[tuple[str, list[page.Cell]]] = []
    for check in checked:
        for run in check.runs:
            inputs, (low, high) = run.prediction.inputs, run.prediction.interval
            known = run.has_interval
            rows.append(("", [
                run.run, _number(flops.get(run.run), lambda value: power(value, 3)),
                _number(inputs.get("params"), compact), _number(inputs.get("tokens"), compact),
                Number(f"{run.prediction.loss_nats:.4f}", run.prediction.loss_nats),
                f"{low:.4f} – {high:.4f}" if known else "–", Number(f"{run.measured:.4f}", run.measured),
                Number(f"{100 * run.error:+.2f}", 100 * run.error),
                ("yes" if run.inside else "no") if known else "–",
            ]))  # fmt: skip
    return page.table(heads, rows) if rows else ""


Column = tuple[tuple[str, str], str, Callable[[Any], str]]
"""Name and unit, column of the table, how a value is written."""


def _columns(table: "pd.DataFrame", inputs: Sequence[str] = ()) -> list[Column]:
    """What is known of a run, as far as the table has it; further `inputs` of a law at the end."""
    exact = "exact FLOPs" if "flops_6n" in table else "FLOPs"
    columns: list[Column] = [
        (("run", ""), "run", str),
        (("budget", "FLOPs"), "flops_budget", lambda v: power(v, 3)),
        (("C", exact), "flops", lambda v: power(v, 4)),
        (("experts", ""), "experts", lambda v: f"{int(v)}"),
        (("N", "params"), "params", compact),
        (("N", "active"), "active_params", compact),
        (("N", "non-emb."), "params_non_embedding", compact),
        (("D", "tokens"), "tokens", compact),
        (("D/N", ""), "tokens_per_param", number),
        (("loss", _unit(table)), "loss_nats", lambda v: f"{v:.4f}"),
        (("±", "s.e."), "loss_stderr", lambda v: f"{v:.4f}"),
        (("bits", "per byte"), "bits_per_byte", lambda v: f"{v:.3f}"),
        (("batch", "tokens"), "batch_tokens", compact),
        (("steps", ""), "steps", lambda v: f"{int(v):,}"),
        (("peak", "rate"), "peak_lr", lambda v: f"{v:.2g}"),
        (("seed", ""), "seed", lambda v: str(int(v))),
        (("epochs", ""), "epochs", lambda v: f"{v:.2f}"),
        (("time", "s"), "seconds", lambda v: f"{v:.0f}"),
    ]
    named = {column[1] for column in columns if column[1] != "experts" or "experts" not in inputs}
    columns = [column for column in columns if column[1] in named]
    columns += [((name, ""), name, number) for name in inputs if name not in named]
    known = [column for column in columns if column[1] in table and table[column[1]].notna().any()]
    of_experts = {"experts", "active_params"} - set(inputs)
    return known if _sparse(table) else [column for column in known if column[1] not in of_experts]


def _sparse(table: "pd.DataFrame") -> bool:
    """Whether a model has experts; tables of dense models go without what says how many."""
    return "active_params" in table and bool((table["active_params"] < table["params"]).any())


def runs(table: "pd.DataFrame", fits: Sequence[Any], inputs: Sequence[str] = ()) -> str:
    """Every row of the table, those that never finished too, with what it was used for.

    What was fitted is a column where anything was, or where a row says why not. A column that says the same of every
    run becomes a sentence above the table.
    """
    if "tokens_per_param" not in table and {"tokens", "params"} <= set(table.columns):
        table = table.assign(tokens_per_param=table["tokens"].astype(float) / table["params"].astype(float))
    columns, same = _varying(table, inputs)
    reasons = why_not_used(table, fits)
    rows: list[page.Row] = []
    used: list[str] = []
    shown = table.head(MOST_ROWS)
    for is_held_out, row in zip(held_out_mask(shown), shown.to_dict("records")):
        css, use = _use(bool(is_held_out), reasons.get(str(row["run"]), ""), bool(fits))
        cells = [_number(row[name], text) for _, name, text in columns]
        rows.append(page.Row(cells, css, str(row["run"])))
        used.append(use)
    heads = [head for head, _, _ in columns]
    if any(used):
        heads.append(("fitted", ""))
        rows = [replace(row, cells=[*row.cells, use]) for row, use in zip(rows, used)]
    constants = page.paragraphs([f"The same in every run that states it: {'; '.join(same)}."], "small") if same else ""
    whole = constants + page.table(heads, rows, text_columns=(0, len(heads) - 1) if any(used) else (0,))
    if len(table) > len(rows):
        rest = (
            f"These are the first {len(rows):,} of {len(table):,} rows; table.csv beside this page holds all of them."
        )
        whole = page.paragraphs([rest], "small") + whole
    return page.folded(f"Table of {len(table):,} run{'s' * (len(table) != 1)}", whole, open_=len(rows) <= MANY)


def _varying(table: "pd.DataFrame", inputs: Sequence[str] = ()) -> tuple[list[Column], list[str]]:
    """The columns that differ between runs, and a phrase for each that does not."""
    columns, same = [], []
    for head, name, text in _columns(table, inputs):
        values = {_cell(value, text) for value in table[name].dropna()}
        if name not in ("run", "params", "tokens", "flops", "loss_nats") and len(values) == 1 and len(table) > 2:
            same.append(f"{' '.join(filter(None, head))} {values.pop()}")
        else:
            columns.append((head, name, text))
    if (gap := _budget_gap(table)) < 0.005:
        columns = [column for column in columns if column[1] != "flops"]
        same.append(f"C within {100 * max(gap, 1e-4):.2g} % of the budget")
    return columns, same


def _use(is_held_out: bool, reason: str, any_fit: bool) -> tuple[str, str]:
    """CSS class of a row, and whether its run was fitted: yes, held out, or no and why."""
    if "held out to check" in reason or (is_held_out and not reason):
        return "held", "held out"
    if reason.startswith("Approach"):
        return "out", f"not by {reason}"
    if reason:
        return "out", f"no: {reason}"
    return "", "yes" if any_fit else ""


def _budget_gap(table: "pd.DataFrame") -> float:
    """The largest relative gap between a run's C and its budget; infinite where a run has none."""
    if "flops_budget" not in table or "flops" not in table or table[["flops_budget", "flops"]].isna().to_numpy().any():
        return math.inf
    return float((table["flops"].astype(float) / table["flops_budget"].astype(float) - 1).abs().max())


def _number(value: Any, text: Callable[[Any], str]) -> page.Cell:
    """A cell with its number, or the text of what is none."""
    shown = _cell(value, text)
    if isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_) and shown != "–":
        return Number(shown, float(value))
    return shown


def _cell(value: Any, text: Callable[[Any], str]) -> str:
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return "–"
    return text(value)
