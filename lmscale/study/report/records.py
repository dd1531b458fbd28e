"""What the page says of a run that a reader points at: its name, N, D, C, loss and rate, its use and its command."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.core.quantities import finite_number
from lmscale.core.run_folder import CONFIG_FILE
from lmscale.study.grouping import group_values
from lmscale.study.plots import compact, held_out_mask, power
from lmscale.study.report.account import printable, why_not_used

if TYPE_CHECKING:
    import pandas as pd

NAMED = (("params", "N {}"), ("tokens", "D {}"), ("peak_lr", "rate {}"), ("seed", "seed {}"))
"""What a run is named by, besides its id."""
COLUMNS = ("params", "tokens", "flops", "loss_nats", "peak_lr", "flops_budget")


def records(
    table: "pd.DataFrame", fits: Sequence[Any], runs_folder: str | Path | None = None
) -> dict[str, dict[str, Any]]:
    """A record for every run of the table; numbers that it lacks are None."""
    reasons = why_not_used(table, fits)
    budgets = _budgets(table)
    return {
        str(row["run"]): _record(row, bool(out), reasons.get(str(row["run"]), ""), budget, runs_folder)
        for row, out, budget in zip(table.to_dict("records"), held_out_mask(table), budgets, strict=True)
    }


def _budgets(table: "pd.DataFrame") -> list[float | None]:
    """The middle value of each run's group of budgets, None without one."""
    if "flops_budget" not in table:
        return [None] * len(table)
    return [finite_number(value) for value in group_values(table["flops_budget"].astype(float))]


def _record(
    row: Mapping[Any, Any], held_out: bool, reason: str, budget: float | None, runs_folder: str | Path | None
) -> dict[str, Any]:
    run = str(row["run"])
    value = {name: finite_number(row.get(name)) for name in COLUMNS}
    return {
        "name": run_name(row),
        "params": value["params"],
        "tokens": value["tokens"],
        "flops": value["flops"],
        "loss": value["loss_nats"],
        "rate": value["peak_lr"],
        "flops_budget": budget,
        "budget": "" if budget is None else power(budget),
        "size": "" if value["params"] is None else compact(value["params"]),
        "use": "held out" if held_out and "held out" not in reason else reason,
        "command": command(run, runs_folder),
    }


def run_name(row: Mapping[Any, Any]) -> str:
    """A run as people name it: "N 26.1k, D 1.20M, rate 0.01, seed 0"; its id where the table knows none of these."""
    parts = []
    for name, text in NAMED:
        value = finite_number(row.get(name))
        if value is not None:
            written = compact(value) if name in ("params", "tokens") else f"{value:.3g}"
            parts.append(text.format(written))
    return ", ".join(parts) or str(row["run"])


def command(run: str, runs_folder: str | Path | None) -> str:
    """The line that trains the run again; "" for a row of a table without a sweep's folder."""
    if runs_folder is None or not (Path(runs_folder) / run / CONFIG_FILE).is_file():
        return ""
    return f"lmscale train {shlex.quote(f'{printable(runs_folder)}/{run}/{CONFIG_FILE}')}"
