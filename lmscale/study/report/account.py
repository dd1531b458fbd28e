"""The account of a study: how many runs there are, which were left out and why, how the numbers were made."""

import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lmscale
from lmscale.core.errors import UserError
from lmscale.core.files import read_json
from lmscale.core.run_folder import OUTCOME_FILE
from lmscale.study.grouping import group_values
from lmscale.study.plots import held_out_mask, measured_runs

if TYPE_CHECKING:
    import pandas as pd

    from lmscale.study.fits import HeldOut

SHOWN = 12
"""Runs of one reason that are named; the others are counted."""
REJECTED = "its budget has no minimum"


def why_not_used(table: "pd.DataFrame", fits: Sequence[Any]) -> dict[str, str]:
    """Run (or budget) -> why some fit left it out; a run that never finished is described by its state."""
    states = _states(table)
    reasons = {
        name: _by_approach(entries, fits) for name, entries in _dropped(table, fits).items() if name not in states
    }
    return {**states, **reasons}


def _dropped(table: "pd.DataFrame", fits: Sequence[Any]) -> dict[str, list[tuple[str, str]]]:
    """Run (or budget) -> the reasons why it was left out, each with the approach that did."""
    dropped: dict[str, list[tuple[str, str]]] = {}
    for fit in fits:
        for item in fit.dropped:
            dropped.setdefault(item.run, []).append((item.reason, fit.approach))
        for run in _of_rejected_budgets(table, fit):
            dropped.setdefault(run, []).append((REJECTED, fit.approach))
    for item in table.attrs.get("dropped", []):
        approaches = [fit.approach for fit in fits] or [""]
        dropped.setdefault(str(item["run"]), [(str(item["reason"]), approach) for approach in approaches])
    return dropped


def _of_rejected_budgets(table: "pd.DataFrame", fit: Any) -> list[str]:
    """Runs that a fit of valleys did not use because their budget has no minimum."""
    rejected = [float(item.run.removeprefix("budget ")) for item in fit.dropped if is_budget(item.run, table)]
    if not rejected:
        return []
    planned = "flops_budget" in table and table["flops_budget"].notna().any()
    budgets = table["flops_budget" if planned else "flops"].astype(float)
    groups = group_values([*budgets, *rejected])
    inside = np.isin(groups[: len(table)], groups[len(table) :]) & ~held_out_mask(table)
    names = {item.run for item in fit.dropped}
    return [str(run) for run in table["run"][inside] if str(run) not in names]


def is_budget(name: str, table: "pd.DataFrame") -> bool:
    """Whether what was left out is a whole budget, and not a run of the table."""
    return name.startswith("budget ") and name not in set(table["run"].astype(str))


def _by_approach(entries: Sequence[tuple[str, str]], fits: Sequence[Any]) -> str:
    """The reasons as one phrase; those of some approaches only name them."""
    by_reason: dict[str, list[str]] = {}
    for reason, approach in entries:
        by_reason.setdefault(reason, []).append(approach)
    return "; ".join(
        reason
        if len(set(whose)) >= len({fit.approach for fit in fits})
        else f"Approach {' and '.join(sorted(set(whose)))}: {reason}"
        for reason, whose in by_reason.items()
    )


def _states(table: "pd.DataFrame") -> dict[str, str]:
    """Run -> its state and the reason, for runs that did not finish."""
    if "state" not in table:
        return {}
    phrases = {}
    unfinished = table[table["state"].astype(str) != "finished"].reindex(columns=["run", "state", "reason"])
    for row in unfinished.to_dict("records"):
        if (state := str(row["state"])) != "finished":
            reason = row["reason"]
            if not (isinstance(reason, str) and reason):
                reason = "no outcome was written" if state == "missing" else ""
            phrases[str(row["run"])] = f"{state}{': ' + reason if reason else ''}"
    return phrases


def fitted_rows(table: "pd.DataFrame", fits: Sequence[Any]) -> "pd.DataFrame":
    """The rows of the table that at least one of the fits used."""
    runs = measured_runs(table) if len(table) else table
    used = np.zeros(len(runs), dtype=bool)
    for fit in fits:
        out = {item.run for item in fit.dropped} | set(_of_rejected_budgets(table, fit))
        used |= ~held_out_mask(runs) & np.array([str(run) not in out for run in runs["run"]], dtype=bool)
    return runs[used]


def left_out(table: "pd.DataFrame", fits: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """(reason, runs) for everything that some fit did not use; held-out runs are counted apart."""
    held_out = set(table["run"][held_out_mask(table)].astype(str))
    states = _states(table)
    groups: dict[str, list[str]] = {}
    for run, reason in why_not_used(table, fits).items():
        if run not in held_out or run in states:
            groups.setdefault(reason, []).append(run)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def run_count(table: "pd.DataFrame") -> str:
    """How many runs there are, by state."""
    if not len(table):
        return "The table holds no run."
    sentence = _count(len(table), "run")
    if "state" in table:
        counts = sorted(table["state"].value_counts().items(), key=lambda item: -item[1])
        sentence += ": " + ", ".join(f"{count} {state}" for state, count in counts)
    if held_out := int(held_out_mask(table).sum()):
        sentence += f"; {held_out} {'is' if held_out == 1 else 'are'} held out"
    return f"{sentence}."


def left_out_lines(
    table: "pd.DataFrame", fits: Sequence[Any], checked: "Sequence[HeldOut]" = (), for_a_law: bool = True
) -> list[str]:
    """A line per reason with the runs it concerns, one for the held-out runs, and the notes of table and fits."""
    lines = []
    for reason, runs in left_out(table, fits):
        named = ", ".join(runs[:SHOWN]) + (f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else "")
        kind = "budget" if all(is_budget(run, table) for run in runs) else "run"
        lines.append(f"{reason} – {_count(len(runs), kind)}: {named}.")
    if count := int(held_out_mask(table).sum()):
        lines.append(f"{_count(count, 'held-out run')} entered no fit{_use(table, checked)}.")
    notes = dict.fromkeys([*table.attrs.get("notes", []), *(note for fit in fits for note in fit.notes)])
    nothing = ["Nothing: every run of the table was fitted."] if fits else ["No run was fitted."]
    if not for_a_law:
        nothing = ["Nothing: every run of the table stands in the answer and its figure. No law of N and D was fitted."]
    return [*lines, *(f"{note}." for note in notes)] or nothing


def _use(table: "pd.DataFrame", checked: "Sequence[HeldOut]") -> str:
    """Whether predictions were checked against the held-out runs, and against how many of them."""
    if not any(check.runs or check.budgets for check in checked):
        return ", and no prediction was checked against a held-out run"
    count = int(held_out_mask(table).sum())
    measured = int(held_out_mask(measured_runs(table)).sum())
    losses = measured or max(len(check.runs) for check in checked)  # of a law of other inputs than N and D
    which = "their" if losses == count else f"the {losses} measured"
    return f": the predictions above are checked against {which} losses"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def parameters(fit: Any) -> str:
    """The law with its numbers in one sentence."""
    stated = fit.to_json()
    numbers = []
    for name, value in stated["parameters"].items():
        ends = stated["intervals"].get("0.95", {}).get(name)
        if name in stated.get("fixed", ()):
            interval = " (held fixed)"
        elif name in stated.get("at_bounds", ()):
            interval = " (at its bound)"
        else:
            interval = f" (95 % {ends[0]:.4g} to {ends[1]:.4g})" if ends else ""
        numbers.append(f"{name} = {value:.5g}{interval}")
    return f"{stated['formula']}, {_count(stated['n_runs'], 'run')}: {'; '.join(numbers)}."


def statuses(fit: Any) -> list[str]:
    """The fit's findings about itself, warnings first."""
    order = {"warning": 0, "note": 1, "ok": 2}
    return [
        f"{'Warning – ' if status.severity == 'warning' else ''}{status.name}: {status.sentence}."
        for status in sorted(fit.status, key=lambda status: order[status.severity])
    ]


def provenance(table: "pd.DataFrame", fits: Sequence[Any], runs_folder: str | Path | None) -> list[tuple[str, str]]:
    """Where the numbers come from: versions, devices, data, hashes of what was fitted."""
    lines = []
    if known := versions(table, runs_folder):
        lines.append(("trained with", ", ".join(f"{name} {'/'.join(sorted(known[name]))}" for name in sorted(known))))
    for label, column in (("on", "device"), ("data", "source"), ("data fingerprint", "data_fingerprint")):
        values = sorted({str(value) for value in table[column].dropna()}) if column in table else []
        if values:
            lines.append((label, ", ".join(printable(value) for value in values)))
    if "seconds" in table and (timed := int(table["seconds"].notna().sum())):
        over = "all runs" if timed == len(table) else f"the {timed} of {len(table)} runs that state theirs"
        minutes = float(table["seconds"].sum()) / 60
        lines.append(("training time", f"{minutes:.1f} minutes over {over}, start-up left out"))
    lines += [(f"Approach {fit.approach}", f"SHA-256 of the fitted rows {fit.table_hash[:16]}") for fit in fits]
    return [*lines, ("report by", f"lmscale {lmscale.__version__}, Python {platform.python_version()}")]


def versions(table: "pd.DataFrame", runs_folder: str | Path | None) -> dict[str, set[str]]:
    """Library -> the versions that the runs were trained with."""
    known: dict[str, set[str]] = {}
    if runs_folder is None:
        return known
    believed = table[~table["state"].isin(("corrupt", "missing"))] if "state" in table else table
    for run in map(str, believed["run"]):  # whose outcomes were checked when the table was read
        with suppress(UserError):
            outcome = read_json(Path(runs_folder) / run / OUTCOME_FILE, "outcome")
            for name, version in (outcome.get("versions") or {}).items():
                known.setdefault(name, set()).add(version)
    return known


def printable(path: str | Path) -> str:
    """A path as it may be printed: relative where it can be, else its name."""
    path_ = Path(path)
    if not path_.is_absolute():
        return str(path)
    return str(path_.relative_to(Path.cwd())) if path_.is_relative_to(Path.cwd()) else path_.name
